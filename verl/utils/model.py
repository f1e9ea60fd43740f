"""Hugging Face models for training: found, configured without dropout, built on the CPU or on `meta`."""

import logging
import os
import re
from collections.abc import Iterable

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForTokenClassification, PretrainedConfig

from verl.compat.model import compute_position_id_with_mask, create_random_mask

__all__ = [
    "DROPOUT_KEYS",
    "HUB_ID",
    "ModelPathError",
    "VALUE_HEADS",
    "backbone",
    "build_causal_lm",
    "build_value_model",
    "compute_position_id_with_mask",
    "count_parameters",
    "create_random_mask",
    "decoder_layers",
    "load_model_config",
    "value_head",
]

logger = logging.getLogger(__name__)

HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$")
VALUE_HEADS = ("score", "classifier")  # what token classification models call theirs
DROPOUT_KEYS = (
    "attention_dropout",
    "hidden_dropout",
    "classifier_dropout",
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
    "summary_first_dropout",
)


class ModelPathError(ValueError):
    """The model path of the config leads nowhere; the message names key, value and remedy."""


def load_model_config(
    path: str, overrides: dict | None = None, trust_remote_code: bool = False, key: str = "actor_rollout_ref.model.path"
) -> PretrainedConfig:
    """Read `config.json` of a local folder or of a model on the hub, apply `overrides`, switch every dropout off.

    Dropout is off because the update has to see the probabilities that the engine sampled from.

    Raises:
        ModelPathError: `path` is neither a folder with a `config.json` nor a reachable model of the hub.
    """
    path = os.path.expanduser(str(path))
    is_folder = os.path.isdir(path)
    if is_folder and not os.path.isfile(os.path.join(path, "config.json")):
        raise ModelPathError(
            f"{key}={path!r} is a folder without config.json: give the folder that holds config.json, "
            "the weights and the tokenizer (a training checkpoint is merged first: python -m verl.model_merger merge)"
        )
    if not is_folder and not HUB_ID.match(path):
        raise ModelPathError(f"{key}={path!r}: no such folder. Give an existing model folder or a name like Qwen/Qwen2.5-1.5B")
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ModelPathError(
            f"{key}={path!r} cannot be read as a model ({_first_line(error)}). Give an existing model folder or a "
            "reachable name of the Hugging Face hub; a model with code of its own needs model.trust_remote_code=true"
        ) from error
    overrides = dict(overrides or {})
    overrides.pop("attn_implementation", None)  # chosen by verl.utils.attention.resolve_attention
    config.update(overrides)
    for name in DROPOUT_KEYS:
        if getattr(config, name, None):
            setattr(config, name, 0.0)
    return config


def build_causal_lm(
    path: str, config: PretrainedConfig, *, attn_implementation: str, meta: bool, trust_remote_code: bool = False
) -> nn.Module:
    """The causal language model of `path` in float32: with its weights on the CPU, or without any on `meta`."""
    return _build(AutoModelForCausalLM, path, config, attn_implementation, meta, trust_remote_code)


def build_value_model(
    path: str, config: PretrainedConfig, *, attn_implementation: str, meta: bool, trust_remote_code: bool = False
) -> nn.Module:
    """The backbone of `path` under a one-number head (`AutoModelForTokenClassification`, as VeRL's critic).

    A causal language model's folder will do: its head is dropped and the value head starts at zero, so that the first
    values are neutral. A critic that was saved before keeps its trained head.
    """
    config.num_labels = 1
    config.classifier_dropout = 0.0
    config.hidden_dropout = 0.0
    config.tie_word_embeddings = False
    model = _build(AutoModelForTokenClassification, path, config, attn_implementation, meta, trust_remote_code)
    if not meta and "ForTokenClassification" not in " ".join(config.architectures or []):
        for parameter in value_head(model).parameters():
            nn.init.zeros_(parameter)
    return model


def _build(auto_class, path, config, attn_implementation, meta, trust_remote_code) -> nn.Module:
    options = {"dtype": torch.float32, "attn_implementation": attn_implementation, "trust_remote_code": trust_remote_code}
    if meta:
        with torch.device("meta"):
            return auto_class.from_config(config, **options)
    return auto_class.from_pretrained(os.path.expanduser(str(path)), config=config, **options)


def backbone(model: nn.Module) -> nn.Module:
    """The transformer under the head of a Hugging Face model (embeddings in, hidden states out)."""
    return getattr(model, model.base_model_prefix)


def value_head(model: nn.Module) -> nn.Linear:
    """The one-number head of a value model."""
    for name in VALUE_HEADS:
        if isinstance(getattr(model, name, None), nn.Linear):
            return getattr(model, name)
    raise ValueError(f"{type(model).__name__} has no linear head named score or classifier: it cannot be a critic")


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks of the model, those that Hugging Face says must not be split over devices."""
    names = set()
    for module in model.modules():
        names |= set(getattr(module, "_no_split_modules", None) or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def count_parameters(parameters: Iterable[nn.Parameter]) -> int:
    """Number of elements over all `parameters`."""
    return sum(parameter.numel() for parameter in parameters)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
