"""Sizes of a decoder-only model, from its ``config.json`` alone: no weights, no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: model types whose parameters follow from the sizes below: gated MLP, RMSNorm, rotary positions
DENSE_TYPES = {"qwen2", "qwen3", "llama", "mistral"}


@dataclass(frozen=True)
class ModelShape:
    """``q`` = heads x head_dim and ``kv`` = kv_heads x head_dim are the widths of the projections.

    ``counted``: the number of parameters where it was counted on the model itself (types outside
    :data:`DENSE_TYPES`); otherwise they are computed.
    """

    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    tied: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    max_positions: int | None = None
    o_bias: bool = False
    mlp_bias: bool = False
    counted: int | None = None

    @property
    def q(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def layer_parameters(self) -> int:
        """Parameters of one block."""
        if self.counted is not None:
            return max(0, self.counted - self.root_parameters) // self.layers
        h = self.hidden
        attention = h * (self.q + 2 * self.kv) + self.q * h + (2 * self.head_dim if self.qk_norm else 0)
        bias = (self.q + 2 * self.kv) * self.qkv_bias + h * self.o_bias + (2 * self.intermediate + h) * self.mlp_bias
        return attention + 3 * h * self.intermediate + 2 * h + bias

    @property
    def layer_matmul_parameters(self) -> int:
        """Weights of one block's linear layers: each multiplies and adds once a token."""
        if self.counted is not None:
            return self.layer_parameters
        return self.hidden * (2 * self.q + 2 * self.kv) + 3 * self.hidden * self.intermediate

    @property
    def root_parameters(self) -> int:
        """Embedding, head and last norm: what stays whole during an FSDP forward pass."""
        return (1 if self.tied else 2) * self.vocab * self.hidden + self.hidden

    @property
    def parameters(self) -> int:
        if self.counted is not None:
            return self.counted
        return self.root_parameters + self.layers * self.layer_parameters

    def value_model(self) -> ModelShape:
        """The same backbone under a one-number head (a critic)."""
        changed = {**self.__dict__, "tied": True}
        if self.counted is not None and not self.tied:
            changed["counted"] = self.counted - self.vocab * self.hidden
        return ModelShape(**changed)

    def lora_parameters(self, rank: int) -> int:
        """Adapters of rank ``rank`` on every linear layer of every block (``target_modules: all-linear``)."""
        h, i = self.hidden, self.intermediate
        sides = (h + self.q) + 2 * (h + self.kv) + (self.q + h) + 2 * (h + i) + (i + h)
        return rank * sides * self.layers

    def kv_bytes_per_token(self, element: int) -> int:
        """Bytes of keys and values that one token of context takes, ``element`` bytes a number."""
        return 2 * self.layers * self.kv * element

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelShape:
        """From the contents of ``config.json``. Raises ``KeyError`` naming a size that is missing and
        ``ValueError`` for a type whose parameters cannot be computed (see :func:`count_on_meta`)."""
        kind = config.get("model_type", "unknown")
        if kind not in DENSE_TYPES:
            raise ValueError(f"model_type {kind!r}: parameters are computed for {', '.join(sorted(DENSE_TYPES))} alone")
        bias = bool(config.get("attention_bias", False)) and kind in ("llama", "qwen3")
        return cls._sizes(
            config,
            qkv_bias=bias or kind == "qwen2",
            o_bias=bias,
            mlp_bias=bool(config.get("mlp_bias", False)) and kind == "llama",
            qk_norm=kind == "qwen3",
        )

    @classmethod
    def _sizes(cls, config: Mapping[str, Any], **more: Any) -> ModelShape:
        heads = config["num_attention_heads"]
        return cls(
            vocab=config["vocab_size"],
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            intermediate=config.get("intermediate_size") or 4 * config["hidden_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
            max_positions=config.get("max_position_embeddings"),
            **more,
        )


def _qwen2(hidden, layers, heads, kv_heads, intermediate, vocab, tied) -> ModelShape:
    return ModelShape(vocab, hidden, layers, heads, kv_heads, hidden // heads, intermediate, tied, True, False, 32768)


def _qwen3(hidden, layers, heads, kv_heads, intermediate, tied) -> ModelShape:
    return ModelShape(151936, hidden, layers, heads, kv_heads, 128, intermediate, tied, False, True, 40960)


#: sizes from the published ``config.json`` of models that are often trained but not at hand
PUBLISHED: dict[str, ModelShape] = {
    "Qwen2.5-0.5B": _qwen2(896, 24, 14, 2, 4864, 151936, True),
    "Qwen2.5-1.5B": _qwen2(1536, 28, 12, 2, 8960, 151936, True),
    "Qwen2.5-3B": _qwen2(2048, 36, 16, 2, 11008, 151936, True),
    "Qwen2.5-7B": _qwen2(3584, 28, 28, 4, 18944, 152064, False),
    "Qwen2.5-14B": _qwen2(5120, 48, 40, 8, 13824, 152064, False),
    "Qwen3-0.6B": _qwen3(1024, 28, 16, 8, 3072, True),
    "Qwen3-1.7B": _qwen3(2048, 28, 16, 8, 6144, True),
    "Qwen3-4B": _qwen3(2560, 36, 32, 8, 9728, True),
    "Qwen3-8B": _qwen3(4096, 36, 32, 8, 12288, False),
    "Qwen3-14B": _qwen3(5120, 40, 40, 8, 17408, False),
}


def published_shape(name: str) -> ModelShape | None:
    """The shape of a hub model by name (``Qwen/Qwen2.5-1.5B-Instruct``), where its family is in the table."""
    base = name.rsplit("/", 1)[-1]
    for suffix in ("-Instruct", "-Base", "-Math", "-Coder"):
        base = base.replace(suffix, "")
    return PUBLISHED.get(base)


def read_shape(folder: Path) -> ModelShape:
    """The shape of the model in ``folder`` from its ``config.json`` (counted on the meta device where
    the type is none of :data:`DENSE_TYPES`). Raises ``ValueError`` where the file cannot serve."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    try:
        return ModelShape.from_config(config)
    except KeyError as error:
        raise ValueError(f"{path} has no {error.args[0]}: it describes no decoder-only language model") from error
    except ValueError:
        return count_on_meta(folder)


def count_on_meta(folder: Path) -> ModelShape:
    """The shape of any causal language model that transformers knows, its parameters counted on a copy
    without storage. Imports torch and transformers."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    read = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(read)
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
             "intermediate_size", "tie_word_embeddings", "max_position_embeddings")  # fmt: skip
    sizes = {name: value for name in names if (value := getattr(read, name, None)) is not None}  # older types rename them
    try:
        return ModelShape._sizes(sizes, counted=sum(p.numel() for p in model.parameters()))
    except KeyError as error:
        raise ValueError(f"{folder}/config.json has no {error.args[0]}: it describes no decoder-only language model") from error
