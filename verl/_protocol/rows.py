"""Row indices: what a caller may hand in, as one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from verl._protocol.checks import DataProtoError


def as_index(index: Sequence | np.ndarray | torch.Tensor, length: int) -> np.ndarray:
    """``index`` as a 1-D int64 array of rows in ``[0, length)``.

    Takes integers (negative ones count from the end) or a boolean mask of ``length`` entries, as a
    list, tuple, range, array or tensor. Raises ``TypeError`` for other types, ``IndexError`` for rows
    that do not exist, :class:`DataProtoError` for a mask of another length.
    """
    array = index.detach().cpu().numpy() if isinstance(index, torch.Tensor) else np.asarray(index)
    if array.size == 0 and array.dtype.kind == "f":  # an empty list has no integer type of its own
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "biu":
        raise TypeError(f"row indices must be a 1-D sequence of integers or booleans, got {array.dtype} {array.shape}")
    if array.dtype == bool:
        if len(array) != length:
            raise DataProtoError(f"a mask of {len(array)} entries cannot select from {length} rows")
        return np.flatnonzero(array)
    array = array.astype(np.int64)
    if array.size and not (-length <= array.min() and array.max() < length):
        raise IndexError(f"row {array[(array < -length) | (array >= length)][0]} of a batch of {length} rows")
    return np.where(array < 0, array + length, array)


def as_object_array(values: Any) -> np.ndarray:
    """A list as an object array, one entry a row. Nested lists of equal length become further axes, as
    NumPy has it; rows that do not fit together (ragged arrays, tensors) stay whole objects."""
    if not any(isinstance(v, torch.Tensor) for v in values):
        try:
            return np.array(values, dtype=object)
        except ValueError:  # arrays of shapes that disagree beyond the first axis
            pass
    out = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        out[i] = value
    return out


def as_counts(repeat_times: Any, length: int) -> np.ndarray:
    """One repeat count a row, as an int64 array; zero drops the row."""
    if not isinstance(repeat_times, list | tuple | np.ndarray | torch.Tensor):
        raise DataProtoError(f"repeat_times must be a list, tuple, array or tensor, got {type(repeat_times).__name__}")
    counts = np.asarray(repeat_times.tolist() if isinstance(repeat_times, torch.Tensor) else repeat_times)
    if counts.shape != (length,) or (length and (counts.dtype.kind not in "iu" or counts.min() < 0)):
        raise DataProtoError(f"repeat_times must be {length} integers >= 0, one a row, got {repeat_times!r}")
    return counts.astype(np.int64)
