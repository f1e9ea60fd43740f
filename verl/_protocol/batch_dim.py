"""Changing the batch dimension: padding, folding, unfolding."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from tensordict import TensorDict

from verl._protocol.checks import DataProtoError

if TYPE_CHECKING:
    from verl.protocol import DataProto


def pad_dataproto_to_divisor(data: DataProto, size_divisor: int) -> tuple[DataProto, int]:
    """``(padded, pad_size)``: rows from the start, repeated in order, make the length a multiple of
    ``size_divisor``. An empty batch cannot be padded and has pad size 0."""
    if not hasattr(data, "select_idxs"):
        raise DataProtoError(f"data must be a DataProto, got {type(data).__name__}")
    if size_divisor < 1:
        raise DataProtoError(f"size_divisor must be at least 1, got {size_divisor}")
    pad_size = -len(data) % size_divisor
    if pad_size == 0:
        return data, 0
    return data.select_idxs(np.arange(len(data) + pad_size) % len(data)), pad_size


def unpad_dataproto(data: DataProto, pad_size: int) -> DataProto:
    """Without the last ``pad_size`` rows."""
    return data.slice(0, len(data) - pad_size) if pad_size else data


def fold_batch_dim(data: DataProto, new_batch_size: int) -> DataProto:
    """``(B, ...) -> (new_batch_size, B // new_batch_size, ...)`` in every entry."""
    if new_batch_size < 1 or len(data) % new_batch_size:
        raise DataProtoError(f"{len(data)} rows do not fold into {new_batch_size} rows")
    return _reshape_batch(data, lambda shape: (new_batch_size, len(data) // new_batch_size, *shape[1:]), new_batch_size)


def unfold_batch_dim(data: DataProto, batch_dims: int = 2) -> DataProto:
    """The first ``batch_dims`` dimensions of every entry become one: ``(B, n, ...) -> (B * n, ...)``."""
    entries = [*(() if data.batch is None else data.batch.values()), *data.non_tensor_batch.values()]
    leading = {tuple(entry.shape[:batch_dims]) for entry in entries}
    if len(leading) != 1 or len(next(iter(leading))) != batch_dims:
        raise DataProtoError(f"the entries do not share {batch_dims} leading dimensions: they have {sorted(leading)}")
    rows = int(np.prod(next(iter(leading))))
    return _reshape_batch(data, lambda shape: (rows, *shape[batch_dims:]), rows)


def _reshape_batch(data: DataProto, new_shape: Callable[[tuple[int, ...]], tuple[int, ...]], rows: int) -> DataProto:
    batch = None
    if data.batch is not None:
        source = {key: tensor.reshape(new_shape(tensor.shape)) for key, tensor in data.batch.items()}
        batch = TensorDict(source, batch_size=[rows], device=data.batch.device)
    return data._like(batch, {key: value.reshape(new_shape(value.shape)) for key, value in data.non_tensor_batch.items()})
