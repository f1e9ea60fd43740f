"""Bringing two batches together: union by key, concatenation by row, what becomes of
meta_info; and the parts of one batch in one TensorDict, there and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tensordict import NonTensorData, NonTensorStack, TensorDict

from verl._protocol import buffers
from verl._protocol.checks import DataProtoError, deep_equal, shorten, tensors_equal
from verl._protocol.rows import as_object_array


def union_tensor_dict(tensor_dict1: TensorDict, tensor_dict2: TensorDict) -> TensorDict:
    """Add the entries of ``tensor_dict2`` to ``tensor_dict1`` in place and return it.

    Raises :class:`DataProtoError` (before anything is changed) if the batch sizes differ or a key is
    in both with different values.
    """
    if tensor_dict1.batch_size != tensor_dict2.batch_size:
        raise DataProtoError(
            f"cannot unite batches of sizes {tuple(tensor_dict1.batch_size)} and {tuple(tensor_dict2.batch_size)}"
        )
    present = dict(tensor_dict1.items())  # a TensorDict itself iterates over rows
    for key, value in tensor_dict2.items():
        if key in present and not tensors_equal(present[key], value):
            raise DataProtoError(_conflict(key, "tensor_dict", present[key].shape, value.shape))
    for key, value in tensor_dict2.items():
        if key not in present:
            tensor_dict1[key] = value
    return tensor_dict1


def union_numpy_dict(tensor_dict1: dict[str, np.ndarray], tensor_dict2: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As :func:`union_tensor_dict`, for dictionaries of arrays (object arrays are compared deeply)."""
    for key, value in tensor_dict2.items():
        if not isinstance(value, np.ndarray) or not isinstance(tensor_dict1.get(key, value), np.ndarray):
            raise DataProtoError(f"`{key}`: expected np.ndarray in both dictionaries, got {type(value).__name__}")
        if key in tensor_dict1 and not deep_equal(tensor_dict1[key], value):
            raise DataProtoError(_conflict(key, "tensor_dict", tensor_dict1[key].shape, value.shape))
    tensor_dict1.update(tensor_dict2)
    return tensor_dict1


def union_two_dict(dict1: dict, dict2: dict) -> dict:
    """As :func:`union_tensor_dict`, for ``meta_info``."""
    for key, value in dict2.items():
        if key in dict1 and not deep_equal(dict1[key], value):
            raise DataProtoError(_conflict(key, "meta_dict", shorten(dict1[key]), shorten(value)))
    dict1.update(dict2)
    return dict1


def _conflict(key: Any, name: str, first: Any, second: Any) -> str:
    return (
        f"`{key}` in {name}1 and {name}2 are not the same object. ({first} against {second}: "
        "rename or pop one of them before the union)"
    )


def concat_tensor_dicts(batches: Sequence[TensorDict | None]) -> TensorDict | None:
    """Concatenate along dim 0; every part must have the same keys and trailing shapes."""
    if all(batch is None for batch in batches):
        return None
    if any(batch is None for batch in batches):
        raise DataProtoError("concat: some parts have tensors and some have none")
    keys = set(batches[0].keys())
    for i, batch in enumerate(batches):
        if set(batch.keys()) != keys:
            raise DataProtoError(f"concat: part {i} differs in the keys {sorted(set(batch.keys()) ^ keys)}")
        for key in keys:
            if batch[key].shape[1:] != batches[0][key].shape[1:]:
                raise DataProtoError(
                    f"concat: {key!r} has shape {tuple(batches[0][key].shape)} in part 0 and "
                    f"{tuple(batch[key].shape)} in part {i}: pad them to one length first"
                )
    if len(batches) == 1:
        return batches[0]
    if any(not isinstance(value, torch.Tensor) for batch in batches for value in batch.values()):
        return torch.cat(list(batches), dim=0)  # nested TensorDicts, NonTensorData
    devices = {batch.device for batch in batches}
    return TensorDict(
        {key: buffers.cat([batch[key] for batch in batches]) for key in batches[0].keys()},  # noqa: SIM118  it iterates over rows
        batch_size=[sum(len(batch) for batch in batches), *batches[0].batch_size[1:]],
        device=devices.pop() if len(devices) == 1 else None,
    )


def concat_numpy_dicts(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Concatenate along axis 0; every part must have the same keys and trailing shapes."""
    out = {}
    for i, part in enumerate(parts):
        if part.keys() != parts[0].keys():
            raise DataProtoError(f"concat: part {i} differs in the non-tensor keys {sorted(part.keys() ^ parts[0].keys())}")
    for key in parts[0]:
        try:
            out[key] = np.concatenate([part[key] for part in parts], axis=0)
        except ValueError as e:
            raise DataProtoError(f"concat: non-tensor {key!r}: {e}") from e
    return out


def merge_meta_info(infos: Sequence[dict]) -> dict:
    """One ``meta_info`` for a concatenation.

    A key present in several parts must have one value, else :class:`DataProtoError` names it. The
    exception is ``metrics`` (a dict, or a list of dicts, of numbers or lists of numbers a part): its
    values are gathered to ``{name: [value, ...]}`` in the order of the parts.
    """
    merged: dict = {}
    for i, info in enumerate(infos):
        for key, value in info.items():
            if key == "metrics":
                _gather_metrics(merged.setdefault("metrics", {}), value)
            elif key not in merged:
                merged[key] = value
            elif not deep_equal(merged[key], value):
                raise DataProtoError(
                    f"Conflicting values for meta_info key '{key}': {shorten(merged[key])} in an earlier part, "
                    f"{shorten(value)} in part {i}. What differs by rank belongs in the batch or under 'metrics'."
                )
    return merged


def _gather_metrics(into: dict[str, list], metrics: Any) -> None:
    for entry in metrics if isinstance(metrics, list | tuple) else [metrics]:
        for name, value in (entry or {}).items():
            into.setdefault(name, []).extend(value if isinstance(value, list | tuple) else [value])


def to_tensordict(batch: TensorDict | None, non_tensor_batch: dict[str, np.ndarray], meta_info: dict, rows: int) -> TensorDict:
    """All three parts in one TensorDict; a name may be in only one of them."""
    names = [*(() if batch is None else batch.keys()), *non_tensor_batch, *meta_info]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataProtoError(f"to_tensordict: {twice} would be there twice: rename them first")
    out = TensorDict({} if batch is None else dict(batch.items()), batch_size=[rows])
    for key, value in non_tensor_batch.items():
        out[key] = NonTensorStack(*value.tolist())
    for key, value in meta_info.items():
        out[key] = NonTensorData(value, batch_size=out.batch_size)
    return out


def from_tensordict(data: TensorDict, batch_dims: int) -> tuple[TensorDict | None, dict[str, np.ndarray], dict]:
    """``(batch, non_tensor_batch, meta_info)``: tensors, values of one a row (as object arrays), and values for the whole
    batch."""
    tensors, arrays, whole = {}, {}, {}
    for key in data.keys():  # a TensorDict itself iterates over rows
        value = data.get(key)
        if isinstance(value, torch.Tensor):
            tensors[key] = value
        elif isinstance(value, NonTensorStack):
            arrays[key] = as_object_array(value.tolist())
        elif isinstance(value, NonTensorData):
            whole[key] = value.data
        else:
            raise DataProtoError(f"from_tensordict: {key!r} is a {type(value).__name__}, which a DataProto cannot hold")
    if batch_dims < 1 or (arrays and batch_dims > 1):
        raise DataProtoError(f"num_batch_dims must be 1 (or more, for tensors alone), got {batch_dims} with {sorted(arrays)}")
    shapes = {key: tuple(value.shape[:batch_dims]) for key, value in tensors.items()}
    if len(set(shapes.values())) > 1:
        raise DataProtoError(f"from_tensordict: the tensors must have one batch size, got {shapes}")
    batch = TensorDict(tensors, batch_size=next(iter(shapes.values()))) if tensors else None
    return batch, arrays, whole
