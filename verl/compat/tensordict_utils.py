"""VeRL's functions over TensorDicts that hold values of any kind beside tensors (``import tensordict_utils as tu``).

A list of one value a row is a ``NonTensorStack``, a value for the whole batch a ``NonTensorData``. Mistakes raise
:class:`~verl.protocol.DataProtoError`, also an ``AssertionError`` as in VeRL.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from tensordict import NonTensorData, NonTensorStack, TensorDict
from torch.utils.data import DataLoader

from verl._protocol import tensordicts
from verl._protocol.checks import DataProtoError, MissingKeyError, deep_equal, tensors_equal

__all__ = [
    "assert_tensordict_eq",
    "assign_non_tensor",
    "assign_non_tensor_data",
    "assign_non_tensor_stack",
    "chunk_tensordict",
    "concat_nested_tensors",
    "concat_tensordict",
    "concat_tensordict_with_none_bsz",
    "contiguous",
    "get",
    "get_keys",
    "get_non_tensor_data",
    "get_tensordict",
    "index_select_tensor_dict",
    "list_of_dict_to_tensordict",
    "make_iterator",
    "maybe_fix_3d_position_ids",
    "nested_tensor_from_tensor_list",
    "pad_to_divisor",
    "pop",
    "pop_keys",
    "union_tensor_dict",
    "unpad",
    "unwrap_non_tensor_data",
]

# -- values ---------------------------------------------------------------------------------------


def assign_non_tensor_data(tensor_dict: TensorDict, key: str, val: Any) -> None:
    """``tensor_dict[key] = val``, one value for the whole batch."""
    _require_tensordict(tensor_dict)
    tensor_dict[key] = NonTensorData(val)


def assign_non_tensor_stack(tensor_dict: TensorDict, key: str, val: list) -> None:
    """``tensor_dict[key] = val``, a list of one value a row; the values may be lists or dicts of any depth."""
    _require_tensordict(tensor_dict)
    tensor_dict[key] = _stack(val)


def assign_non_tensor(tensor_dict: TensorDict, **kwargs: Any) -> TensorDict:
    """Assign each keyword: a list as one value a row, anything else as one value for the batch. Returns ``tensor_dict``."""
    _require_tensordict(tensor_dict)
    for key, val in kwargs.items():
        wrapped = isinstance(val, NonTensorData | NonTensorStack)
        tensor_dict[key] = val if wrapped else _stack(val) if isinstance(val, list) else NonTensorData(val)
    return tensor_dict


def unwrap_non_tensor_data(data: Any) -> Any:
    """The value in a ``NonTensorData``; anything else as it is."""
    return data.data if isinstance(data, NonTensorData) else data


def get_non_tensor_data(data: TensorDict, key: str, default: Any) -> Any:
    """The value of ``key``, unwrapped, or ``default`` where it is missing."""
    return unwrap_non_tensor_data(data.get(key, default))


def get(tensordict: TensorDict, key: str, default: Any = None) -> Any:
    """The entry as plain Python: a tensor, a list of one value a row, or the value; ``default`` where it is missing."""
    return _plain(tensordict.get(key)) if key in tensordict else default


def pop(tensordict: TensorDict, key: str, default: Any = None) -> Any:
    """As :func:`get`, and remove the entry."""
    return _plain(tensordict.pop(key)) if key in tensordict else default


def get_keys(tensordict: TensorDict, keys: Iterable[str]) -> TensorDict:
    """A new TensorDict of the entries ``keys``. Raises ``KeyError`` for one that is missing."""
    keys = list(keys)
    missing = [key for key in keys if key not in tensordict]
    if missing:
        raise MissingKeyError(f"the TensorDict has no key {missing}; it has {sorted(map(str, tensordict.keys()))}")
    return _rebuilt({key: tensordict.get(key) for key in keys})


def pop_keys(tensordict: TensorDict, keys: Iterable[str]) -> TensorDict:
    """As :func:`get_keys`, and remove the entries."""
    keys = list(keys)
    popped = get_keys(tensordict, keys)
    for key in keys:
        del tensordict[key]
    return popped


# -- building -------------------------------------------------------------------------------------


def get_tensordict(tensor_dict: dict[str, Any], non_tensor_dict: dict[str, Any] | None = None) -> TensorDict:
    """A TensorDict of ``tensor_dict`` (tensors, jagged tensors, lists or arrays with one entry a row) and
    ``non_tensor_dict`` (values for the whole batch). Without an entry a row it has no batch dimension."""
    source, rows = {}, {}
    for key, value in tensor_dict.items():
        if isinstance(value, torch.Tensor):
            if value.is_nested and (value.layout != torch.jagged or not value.is_contiguous()):
                raise DataProtoError(f"{key!r} must be a contiguous nested tensor of layout torch.jagged")
            source[key], rows[key] = value, value.size(0)
        elif isinstance(value, NonTensorStack | list | np.ndarray):
            source[key] = value if isinstance(value, NonTensorStack) else _stack(value)
            rows[key] = len(value)
        else:
            raise DataProtoError(f"{key!r} must be a tensor, or a list or array with one entry a row, got {type(value).__name__}")
    if len(set(rows.values())) > 1:
        raise DataProtoError(f"the entries must have one batch size, got {rows}")
    for key, value in (non_tensor_dict or {}).items():
        if key in source:
            raise DataProtoError(f"{key!r} is in both tensor_dict and non_tensor_dict: rename one")
        source[key] = value if isinstance(value, NonTensorData) else NonTensorData(value)
    return TensorDict(source, batch_size=list(rows.values())[:1])


def list_of_dict_to_tensordict(list_of_dicts: list[dict[str, Any]]) -> TensorDict:
    """A row a dict: tensors of one shape are stacked, of several become jagged, other values stay values."""
    if not list_of_dicts:
        raise DataProtoError("list_of_dict_to_tensordict of an empty list: there is nothing to tell the keys from")
    source = {}
    for key in list_of_dicts[0]:
        values = [row[key] for row in list_of_dicts]
        if not all(isinstance(value, torch.Tensor) for value in values):
            source[key] = _stack(values)
        elif len({value.shape for value in values}) == 1:
            source[key] = torch.stack(values)
        else:
            source[key] = torch.nested.as_nested_tensor(values, layout=torch.jagged)
    return TensorDict(source, batch_size=[len(list_of_dicts)])


def nested_tensor_from_tensor_list(tensors: list[torch.Tensor], ragged_idx: int | None = None) -> torch.Tensor:
    """A jagged tensor with a row a tensor; ``ragged_idx`` is the dimension in which they differ (default: the last)."""
    return tensordicts.jagged(tensors, ragged_idx)


def contiguous(data: TensorDict) -> TensorDict:
    """A new TensorDict with contiguous tensors and the same values."""
    return _rebuilt({key: data.get(key) for key in data.keys()}, contiguous=True)


def maybe_fix_3d_position_ids(data: TensorDict) -> None:
    """Mark three-dimensional jagged ``position_ids`` as ragged along the last dimension, which older versions of
    tensordict lost in pickling."""
    if "position_ids" in data and tensordicts.is_jagged(data["position_ids"]) and data["position_ids"].dim() == 3:
        data["position_ids"]._ragged_idx = 2


# -- rows -----------------------------------------------------------------------------------------


def index_select_tensor_dict(batch: TensorDict | None, indices: torch.Tensor | list[int]) -> TensorDict | None:
    """The given rows of every entry; None of None."""
    index = torch.tensor(indices, dtype=torch.long) if isinstance(indices, list) else indices
    if index.dim() != 1:
        raise DataProtoError(f"row indices must be a 1-D tensor or a list, got shape {tuple(index.shape)}")
    return None if batch is None else tensordicts.select_rows(batch, index)


def chunk_tensordict(td: TensorDict, chunks: int) -> list[TensorDict]:
    """``chunks`` TensorDicts of equally many consecutive rows."""
    return tensordicts.chunk_rows(td, chunks)


def concat_tensordict(data: Sequence[TensorDict]) -> TensorDict:
    """The rows of all parts, in order."""
    return tensordicts.concat_rows(data)


def concat_tensordict_with_none_bsz(data: Sequence[TensorDict]) -> TensorDict:
    """The first of TensorDicts without a batch dimension, which hold only values for the whole batch."""
    if any(part.batch_size for part in data):
        raise DataProtoError(f"no part may have a batch dimension, got {[tuple(part.batch_size) for part in data]}")
    return tensordicts.concat_rows(data)


def concat_nested_tensors(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The rows of several jagged tensors, in order, as one."""
    return tensordicts.concat_jagged(tensors)


def pad_to_divisor(data: TensorDict, size_divisor: int) -> tuple[TensorDict, int]:
    """``(padded, pad_size)``: rows from the start, repeated in order, make the length a multiple of ``size_divisor``."""
    _require_tensordict(data)
    pad_size = -len(data) % size_divisor
    if pad_size == 0:
        return data, 0
    return tensordicts.select_rows(data, torch.arange(len(data) + pad_size) % len(data)), pad_size


def unpad(data: TensorDict, pad_size: int) -> TensorDict:
    """Without the last ``pad_size`` rows."""
    return tensordicts.select_rows(data, torch.arange(len(data) - pad_size)) if pad_size else data


def make_iterator(
    tensordict: TensorDict, mini_batch_size: int, epochs: int, seed: int | None = None, dataloader_kwargs: dict | None = None
) -> Iterator[TensorDict]:
    """Mini-batches of ``mini_batch_size`` rows (which must divide the batch), ``epochs`` times over;
    ``dataloader_kwargs`` go to PyTorch's DataLoader."""
    if mini_batch_size < 1 or len(tensordict) % mini_batch_size:
        raise DataProtoError(f"mini_batch_size {mini_batch_size} does not divide the batch of {len(tensordict)} rows")
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    rows = DataLoader(
        range(len(tensordict)), mini_batch_size, collate_fn=torch.tensor, generator=generator, **(dataloader_kwargs or {})
    )
    return (tensordicts.select_rows(tensordict, part) for _ in range(epochs) for part in rows)


# -- two of them ----------------------------------------------------------------------------------


def union_tensor_dict(tensor_dict1: TensorDict, tensor_dict2: TensorDict) -> TensorDict:
    """Add the entries of the second to the first, in place; one that both have must be equal in both."""
    if tensor_dict1.batch_size != tensor_dict2.batch_size:
        raise DataProtoError(f"cannot unite batches of sizes {tuple(tensor_dict1.batch_size)} and {tuple(tensor_dict2.batch_size)}")
    conflicts = [k for k in tensor_dict2.keys() if k in tensor_dict1 and not _equal(get(tensor_dict1, k), get(tensor_dict2, k))]
    if conflicts:
        raise DataProtoError(f"{conflicts} in tensor_dict1 and tensor_dict2 are not the same object: rename or pop one of them")
    for key in tensor_dict2.keys():
        if key not in tensor_dict1:
            tensor_dict1[key] = tensor_dict2.get(key)
    return tensor_dict1


def assert_tensordict_eq(tensordict1: TensorDict, tensordict2: TensorDict) -> None:
    """Raise ``AssertionError`` naming the entries unless both have the same keys and values."""
    if set(tensordict1.keys()) != set(tensordict2.keys()):
        raise DataProtoError(f"only one TensorDict has the keys {sorted(set(tensordict1.keys()) ^ set(tensordict2.keys()))}")
    unequal = [key for key in tensordict1.keys() if not _equal(get(tensordict1, key), get(tensordict2, key))]
    if unequal:
        raise DataProtoError(f"the TensorDicts differ in {unequal}")


# -- helpers --------------------------------------------------------------------------------------


def _require_tensordict(value: Any) -> None:
    if not isinstance(value, TensorDict):
        raise DataProtoError(f"expected a TensorDict, got {type(value).__name__}")


def _stack(values: Iterable[Any]) -> NonTensorStack:
    values = list(values)
    if any(isinstance(value, torch.Tensor) for value in values):
        raise DataProtoError("a list of one value a row cannot hold tensors: stack them, or make them a jagged tensor")
    return NonTensorStack.from_list([NonTensorData(value) for value in values])


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value
    return value.tolist() if isinstance(value, NonTensorStack) else value.data


def _rebuilt(entries: dict[str, Any], contiguous: bool = False) -> TensorDict:
    whole = {key: value for key, value in entries.items() if isinstance(value, NonTensorData)}
    rows = {key: value for key, value in entries.items() if key not in whole}
    if contiguous:
        rows = {key: value.contiguous() if isinstance(value, torch.Tensor) else value for key, value in rows.items()}
    return get_tensordict(rows, whole)


def _equal(a: Any, b: Any) -> bool:
    if tensordicts.is_jagged(a) and tensordicts.is_jagged(b):
        rows_a, rows_b = a.unbind(), b.unbind()
        return len(rows_a) == len(rows_b) and all(tensors_equal(x, y) for x, y in zip(rows_a, rows_b, strict=True))
    return deep_equal(a, b)
