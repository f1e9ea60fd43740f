"""Runs inside vLLM's worker (``worker_extension_cls``): takes over weights while the engine lives."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

#: how far tensors are looked for in what a module holds besides its parameters and buffers
_DEPTH = 3


class WeightSyncExtension:
    """Mixed into vLLM's worker class, so ``self`` has ``model_runner`` and ``reload_weights``."""

    def take_weights(self, weights: Iterable[tuple[str, torch.Tensor]], inspect: bool = False) -> list[str]:
        """Replace all weights in place, from Hugging Face names.

        ``reload_weights`` undoes and redoes the packing that a backend applies to linear layers. With
        tied embeddings it leaves the packed copy of the output head as it was, so that copy is made anew.

        ``inspect``: return the names of what a sleep of level 2 would lose, because this sync did not write it: parameters
        that vLLM's loader does not name among the loaded, and tensors that are neither parameters nor buffers and stayed
        as they were. (Buffers are saved and restored by vLLM, and the KV cache is empty.) Else nothing is looked for.
        """
        model = self.model_runner.get_model()
        expected = {name for name, _ in model.named_parameters()}
        before = {path: (tensor, _version(tensor)) for path, tensor in loose_tensors(model).items()} if inspect else {}
        with _loaded_names(model) as loaded:
            self.reload_weights(weights_iterator=weights)
        head = getattr(model, "lm_head", None)
        tied = getattr(getattr(model, "config", None), "tie_word_embeddings", False)
        if tied and head is not None and hasattr(head, "quant_method"):
            head.quant_method.process_weights_after_loading(head)
        if not inspect:
            return []
        after = loose_tensors(model)
        kept = {path for path, (tensor, version) in before.items() if after.get(path) is tensor and _version(tensor) == version}
        return sorted((expected - loaded) | kept)


def loose_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Tensors that modules hold as plain attributes, themselves or in a helper object (``layers.0.attn.impl.sinks``), on the
    device of the parameters and with memory of their own, by where they are."""
    known, device = set(), None
    for tensor in (*model.parameters(), *model.buffers()):
        known.add(tensor.untyped_storage().data_ptr())
        device = tensor.device if device is None else device
    found: dict[str, torch.Tensor] = {}
    for prefix, module in model.named_modules():
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers", "_modules", "kv_cache"):
                continue
            for path, tensor in _tensors_in(value, f"{prefix}.{name}".lstrip("."), set(), _DEPTH):
                if tensor.device == device and tensor.numel() and tensor.untyped_storage().data_ptr() not in known:
                    found[path] = tensor
    return found


def _version(tensor: torch.Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version  # tensors made in inference mode do not count their changes


def _tensors_in(value: Any, path: str, seen: set[int], depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield path, value
        return
    if depth == 0 or id(value) in seen or isinstance(value, nn.Module | type):
        return
    seen.add(id(value))
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        parts = list(value.items())
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    elif hasattr(value, "__dict__"):
        parts = list(vars(value).items())
    for name, part in parts:
        yield from _tensors_in(part, f"{path}.{name}", seen, depth - 1)


@contextlib.contextmanager
def _loaded_names(model: nn.Module) -> Iterator[set[str]]:
    """The names that ``model.load_weights`` returns within the ``with``: vLLM's own, of the engine's parameters."""
    loaded: set[str] = set()
    load = model.load_weights

    def recording(weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        found = load(weights)
        loaded.update(found or ())
        return found

    model.load_weights = recording
    try:
        yield loaded
    finally:
        del model.load_weights
