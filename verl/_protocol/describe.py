"""What a batch holds, in words."""

from __future__ import annotations

from typing import Any

import numpy as np
from tensordict import TensorDict


def describe(batch: TensorDict | None, non_tensor_batch: dict[str, np.ndarray], meta_info: dict) -> str:
    """One line an entry under each of the three parts: shape, dtype and device of tensors, the type of a value."""
    tensors = {} if batch is None else {key: batch.get(key) for key in batch.keys()}
    lines = ["batch"]
    for key, tensor in tensors.items():
        if hasattr(tensor, "dtype") and hasattr(tensor, "shape"):
            lines.append(f"  {key}: {tuple(tensor.shape)} ({tensor.dtype}) {tensor.device}")
        else:
            lines.append(f"  {key}: {type(tensor).__name__}")
    lines.append("non_tensor_batch")
    lines += [f"  {key}: {_kind(array)}" for key, array in non_tensor_batch.items()]
    lines.append("meta_info")
    lines += [f"  {key}: {_kind(value)}" for key, value in meta_info.items()]
    return "\n".join(lines)


def _kind(value: Any) -> str:
    """The type, with what containers hold: of a list the kinds of its first three entries, of a dict its first pair."""
    if isinstance(value, list):
        return f"list[{'|'.join(dict.fromkeys(_kind(v) for v in value[:3])) or '...'}]"
    if isinstance(value, tuple):
        return f"tuple({', '.join(_kind(v) for v in value)})"
    if isinstance(value, dict) and value:
        key, first = next(iter(value.items()))
        return f"dict[{_kind(key)}: {_kind(first)}]"
    if isinstance(value, np.ndarray):
        return f"ndarray{value.shape} ({value.dtype})"
    return type(value).__name__
