"""DataProto: the batch that travels between driver and workers.

Names, arguments and meanings are VeRL's. A DataProto has three parts with one row a sample:
``batch`` (tensors of shape ``(B, ...)`` in a TensorDict), ``non_tensor_batch`` (arrays of shape
``(B, ...)``, often of objects) and ``meta_info`` (about the batch as a whole; no rows).

Where VeRL leaves it open: an operation that returns a DataProto shares tensors with its source (unless it has to
move rows) but never the containers, so adding or popping keys on one does not change the other.
Mistakes raise :class:`DataProtoError`, also an ``AssertionError`` as in VeRL.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch.utils.data import DataLoader

from verl._protocol import disk, merge
from verl._protocol.batch_dim import fold_batch_dim, pad_dataproto_to_divisor, unfold_batch_dim, unpad_dataproto
from verl._protocol.checks import DataProtoError, MissingKeyError, require_keys
from verl._protocol.config import DataProtoConfig
from verl._protocol.describe import describe
from verl._protocol.future import DataProtoFuture
from verl._protocol.merge import union_numpy_dict, union_tensor_dict, union_two_dict
from verl._protocol.rows import as_counts, as_index, as_object_array
from verl._protocol.wire import (
    deserialize_single_tensor,
    deserialize_tensordict,
    own,
    serialize_single_tensor,
    serialize_tensordict,
)
from verl.compat.gather import all_gather_data_proto
from verl.compat.py_functional import list_of_dict_to_dict_of_list

__all__ = [
    "DataProto",
    "DataProtoConfig",
    "DataProtoError",
    "DataProtoFuture",
    "DataProtoItem",
    "MissingKeyError",
    "all_gather_data_proto",
    "collate_fn",
    "deserialize_single_tensor",
    "deserialize_tensordict",
    "fold_batch_dim",
    "list_of_dict_to_dict_of_list",
    "pad_dataproto_to_divisor",
    "serialize_single_tensor",
    "serialize_tensordict",
    "unfold_batch_dim",
    "union_numpy_dict",
    "union_tensor_dict",
    "union_two_dict",
    "unpad_dataproto",
]


@dataclass(eq=False)
class DataProtoItem:
    """One row of a DataProto: tensors and values without the batch dimension."""

    batch: TensorDict | None = None
    non_tensor_batch: dict[str, Any] = field(default_factory=dict)
    meta_info: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class DataProto:
    """A batch; see the module docstring. ``data[3]`` is a :class:`DataProtoItem`; a slice, list, array
    or tensor of rows (or a boolean mask) gives a DataProto."""

    batch: TensorDict | None = None
    non_tensor_batch: dict[str, np.ndarray] = field(default_factory=dict)
    meta_info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.non_tensor_batch = {} if self.non_tensor_batch is None else self.non_tensor_batch
        self.meta_info = {} if self.meta_info is None else self.meta_info
        self.check_consistency()

    def check_consistency(self) -> None:
        """Raise :class:`DataProtoError` unless there is one batch dimension, shared by all entries."""
        if self.batch is not None and len(self.batch.batch_size) != 1:
            raise DataProtoError(f"a DataProto has one batch dimension, got batch_size {tuple(self.batch.batch_size)}")
        for key, value in self.non_tensor_batch.items():
            if not isinstance(value, np.ndarray) or value.ndim == 0:
                raise DataProtoError(f"non_tensor_batch[{key!r}] must be an array with one entry a row, got {type(value)}")
            if len(value) != len(self):
                raise DataProtoError(f"non_tensor_batch[{key!r}] has {len(value)} rows, the batch has {len(self)}")

    # -- building -------------------------------------------------------------------------------

    @classmethod
    def from_single_dict(
        cls, data: dict[str, torch.Tensor | np.ndarray], meta_info: dict | None = None, auto_padding: bool = False
    ) -> DataProto:
        """From one dict: tensors go to ``batch``, arrays to ``non_tensor_batch``."""
        tensors = {k: v for k, v in data.items() if isinstance(v, torch.Tensor)}
        arrays = {k: v for k, v in data.items() if isinstance(v, np.ndarray)}
        for key in data.keys() - tensors.keys() - arrays.keys():
            raise ValueError(f"{key!r} must be a tensor or an array, got {type(data[key]).__name__}")
        return cls.from_dict(tensors, arrays, meta_info, auto_padding=auto_padding)

    @classmethod
    def from_dict(
        cls,
        tensors: dict[str, torch.Tensor] | None = None,
        non_tensors: dict[str, Any] | None = None,
        meta_info: dict | None = None,
        num_batch_dims: int = 1,
        auto_padding: bool = False,
    ) -> DataProto:
        """From dicts of tensors ``(B, ...)`` and of arrays or lists with ``B`` entries (lists become
        object arrays). The dicts themselves are not kept."""
        if num_batch_dims < 1:
            raise DataProtoError(f"num_batch_dims must be at least 1, got {num_batch_dims}")
        batch, size, first = None, None, None
        for key, tensor in (tensors or {}).items():
            if not isinstance(tensor, torch.Tensor) or tensor.ndim < num_batch_dims:
                raise DataProtoError(f"tensors[{key!r}] must be a tensor with a batch dimension, got {tensor!r:.80}")
            first, size = (key, tensor.shape[:num_batch_dims]) if size is None else (first, size)
            if tensor.shape[:num_batch_dims] != size:
                raise DataProtoError(f"{first!r} has batch size {tuple(size)}, {key!r} has shape {tuple(tensor.shape)}")
        if tensors:
            batch = TensorDict(dict(tensors), batch_size=size)
        arrays = {k: v if isinstance(v, np.ndarray) else as_object_array(v) for k, v in (non_tensors or {}).items()}
        meta_info = dict(meta_info or {})
        if auto_padding:
            meta_info[DataProtoConfig.auto_padding_key] = True
        return cls(batch=batch, non_tensor_batch=arrays, meta_info=meta_info)

    @classmethod
    def from_tensordict(cls, tensor_dict: TensorDict, meta_info: dict | None = None, num_batch_dims: int = 1) -> DataProto:
        """The inverse of :meth:`to_tensordict`: tensors go to ``batch``, lists of one value a row to
        ``non_tensor_batch``, values for the whole batch to ``meta_info``, beside those given."""
        batch, arrays, whole = merge.from_tensordict(tensor_dict, num_batch_dims)
        return cls(batch=batch, non_tensor_batch=arrays, meta_info={**(meta_info or {}), **whole})

    def _like(self, batch: TensorDict | None, non_tensor_batch: dict[str, np.ndarray]) -> DataProto:
        return type(self)(batch=batch, non_tensor_batch=non_tensor_batch, meta_info=dict(self.meta_info))

    # -- rows -----------------------------------------------------------------------------------

    def __len__(self) -> int:
        if self.batch is not None:
            return self.batch.batch_size[0]
        return len(next(iter(self.non_tensor_batch.values()))) if self.non_tensor_batch else 0

    def __getitem__(self, item: int | slice | Sequence | np.ndarray | torch.Tensor) -> DataProto | DataProtoItem:
        if isinstance(item, slice):
            return self.slice(item.start, item.stop, item.step)
        if isinstance(item, list | range | np.ndarray | torch.Tensor) and getattr(item, "ndim", 1):
            return self.select_idxs(item)
        if isinstance(item, int | np.integer | np.ndarray | torch.Tensor) and not isinstance(item, bool):
            row = int(as_index([int(item)], len(self))[0])
            batch = None if self.batch is None else self.batch[row]
            return DataProtoItem(batch, {k: v[row] for k, v in self.non_tensor_batch.items()}, dict(self.meta_info))
        raise TypeError(f"cannot index a DataProto with {type(item).__name__}")

    def slice(self, start: int | None = None, end: int | None = None, step: int | None = None) -> DataProto:
        """Rows ``start:end:step``, as views (a negative step copies)."""
        rows = slice(start, end, step)
        if (step or 1) < 0:  # torch has no negative strides
            return self.select_idxs(np.arange(len(self))[rows])
        batch = None if self.batch is None else self.batch[rows]
        return self._like(batch, {k: v[rows] for k, v in self.non_tensor_batch.items()})

    def select_idxs(self, idxs: Sequence | np.ndarray | torch.Tensor) -> DataProto:
        """The given rows (integers, or a boolean mask over all rows), copied."""
        index = as_index(idxs, len(self))
        batch = None
        if self.batch is not None:
            rows = torch.from_numpy(index)
            source = {key: tensor[rows.to(tensor.device)] for key, tensor in self.batch.items()}
            batch = TensorDict(source, batch_size=[len(index)], device=self.batch.device)
        return self._like(batch, {k: v[index] for k, v in self.non_tensor_batch.items()})

    def reorder(self, indices: Sequence | np.ndarray | torch.Tensor) -> None:
        """Permute the rows in place. Raises :class:`DataProtoError` if ``indices`` loses or repeats a
        row (:meth:`select_idxs` may)."""
        index = as_index(indices, len(self))
        if not np.array_equal(np.sort(index), np.arange(len(self))):
            raise DataProtoError(f"reorder needs every one of the {len(self)} rows once; to choose rows use select_idxs")
        ordered = self.select_idxs(index)
        self.batch, self.non_tensor_batch = ordered.batch, ordered.non_tensor_batch

    def repeat(self, repeat_times: int = 2, interleave: bool = True) -> DataProto:
        """Every row ``repeat_times`` times: ``aabbcc`` if ``interleave``, else ``abcabc``."""
        rows = np.arange(len(self))
        return self.select_idxs(np.repeat(rows, repeat_times) if interleave else np.tile(rows, repeat_times))

    def sample_level_repeat(self, repeat_times: Sequence[int] | np.ndarray | torch.Tensor) -> DataProto:
        """Row ``i`` repeated ``repeat_times[i]`` times, in order."""
        return self.select_idxs(np.repeat(np.arange(len(self)), as_counts(repeat_times, len(self))))

    def unfold_column_chunks(self, n_split: int, split_keys: Sequence[str] | None = None) -> DataProto:
        """Cut the second dimension of ``split_keys`` into ``n_split`` equal parts and make each part a
        row of its own (``(B, n * m, ...) -> (B * n, m, ...)``); the other keys repeat their rows."""
        split_keys = list(split_keys or [])
        require_keys(split_keys, self._keys(), "unfold_column_chunks: the DataProto")
        rest = self.repeat(n_split)
        batch, arrays = rest.batch, rest.non_tensor_batch
        for key in split_keys:
            old = self.non_tensor_batch[key] if key in self.non_tensor_batch else self.batch[key]
            if old.ndim < 2 or old.shape[1] % n_split:
                raise DataProtoError(f"{key!r} of shape {tuple(old.shape)} has no second dimension in {n_split} equal parts")
            new = old.reshape(len(self) * n_split, old.shape[1] // n_split, *old.shape[2:])
            (batch if isinstance(new, torch.Tensor) else arrays)[key] = new
        return self._like(batch, arrays)

    # -- keys -----------------------------------------------------------------------------------

    def _keys(self) -> list[str]:
        return [*(() if self.batch is None else self.batch.keys()), *self.non_tensor_batch]

    def select(
        self,
        batch_keys: Sequence[str] | None = None,
        non_tensor_batch_keys: Sequence[str] | None = None,
        meta_info_keys: Sequence[str] | None = None,
        deepcopy: bool = False,
    ) -> DataProto:
        """Only the named keys of each part (``None``: all of them)."""
        batch, arrays, meta = self.batch, dict(self.non_tensor_batch), dict(self.meta_info)
        if batch is not None or batch_keys:
            require_keys(batch_keys or (), batch.keys() if batch is not None else (), "select: batch")
            batch = batch.select(*(batch.keys() if batch_keys is None else batch_keys))
        if non_tensor_batch_keys is not None:
            require_keys(non_tensor_batch_keys, arrays, "select: non_tensor_batch")
            arrays = {key: arrays[key] for key in non_tensor_batch_keys}
        if meta_info_keys is not None:
            require_keys(meta_info_keys, meta, "select: meta_info")
            meta = {key: meta[key] for key in meta_info_keys}
        selected = type(self)(batch=batch, non_tensor_batch=arrays, meta_info=meta)
        return copy.deepcopy(selected) if deepcopy else selected

    def pop(
        self,
        batch_keys: Sequence[str] | None = None,
        non_tensor_batch_keys: Sequence[str] | None = None,
        meta_info_keys: Sequence[str] | None = None,
    ) -> DataProto:
        """Remove the named keys and return them as a DataProto (``None``: none of that part)."""
        popped = self.select(batch_keys or (), non_tensor_batch_keys or (), meta_info_keys or ())
        if not batch_keys:
            popped.batch = None
        for key in batch_keys or ():
            del self.batch[key]
        for key in non_tensor_batch_keys or ():
            del self.non_tensor_batch[key]
        for key in meta_info_keys or ():
            del self.meta_info[key]
        return popped

    def rename(self, old_keys: str | list[str] | None = None, new_keys: str | list[str] | None = None) -> DataProto:
        """Rename keys of ``batch`` in place; returns ``self``."""
        pair = [[k] if isinstance(k, str) else k for k in (old_keys, new_keys)]
        if not all(isinstance(k, list) for k in pair):
            raise TypeError(f"old_keys and new_keys must each be a string or a list, got {old_keys!r} and {new_keys!r}")
        if len(pair[0]) != len(pair[1]):
            raise ValueError(f"{len(pair[0])} old_keys cannot take {len(pair[1])} new_keys: one each")
        require_keys(pair[0], () if self.batch is None else self.batch.keys(), "rename: batch")
        names = dict(zip(*pair, strict=True))
        renamed = {names.get(key, key): value for key, value in self.batch.items()}
        if len(renamed) != len(list(self.batch.keys())):
            raise DataProtoError(f"rename {names}: two entries of the batch would get one name")
        self.batch = TensorDict(renamed, self.batch.batch_size, device=self.batch.device)
        return self

    def union(self, other: DataProto) -> DataProto:
        """Take over the entries of ``other`` in place; returns ``self``. A key in both must have one
        value in both, and the batch sizes must agree; otherwise :class:`DataProtoError`, and nothing has changed."""
        if len(self._keys()) and len(other._keys()) and len(self) != len(other):
            raise DataProtoError(f"cannot unite batches of sizes {len(self)} and {len(other)}")
        arrays = union_numpy_dict(dict(self.non_tensor_batch), other.non_tensor_batch)
        meta = union_two_dict(dict(self.meta_info), other.meta_info)
        if self.batch is not None and other.batch is not None:
            union_tensor_dict(self.batch, other.batch)
        elif self.batch is None and other.batch is not None:
            self.batch = other.batch.copy()
        self.non_tensor_batch, self.meta_info = arrays, meta
        return self

    # -- parts ----------------------------------------------------------------------------------

    def chunk(self, chunks: int) -> list[DataProto]:
        """``chunks`` parts of consecutive rows, as views; each gets the meta_info. The parts must be
        equal, unless padding is enabled: then their sizes may differ by one."""
        if chunks < 1 or (len(self) % chunks and not self.is_padding_enabled()):
            raise DataProtoError(
                f"only support equal chunk. {len(self)} rows do not make {chunks} equal chunks: pad them "
                "(pad_dataproto_to_divisor), or enable auto_padding"
            )
        bounds = np.cumsum([0, *(len(part) for part in np.array_split(np.empty(len(self)), chunks))])
        return [self.slice(int(a), int(b)) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]

    def split(self, split_size: int) -> list[DataProto]:
        """Consecutive parts of ``split_size`` rows; the last may be shorter."""
        if split_size < 1:
            raise DataProtoError(f"split_size must be at least 1, got {split_size}")
        return [self.slice(i, i + split_size) for i in range(0, len(self), split_size)]

    @staticmethod
    def concat(data: list[DataProto]) -> DataProto:
        """Rows of all parts in order. meta_info is merged: a key that several parts have must be equal in
        them (else :class:`DataProtoError`), ``metrics`` are gathered to lists."""
        if not data:
            raise DataProtoError("concat of no parts: there is nothing to tell the keys from")
        return type(data[0])(
            batch=merge.concat_tensor_dicts([d.batch for d in data]),
            non_tensor_batch=merge.concat_numpy_dicts([d.non_tensor_batch for d in data]),
            meta_info=merge.merge_meta_info([d.meta_info for d in data]),
        )

    def make_iterator(
        self, mini_batch_size: int, epochs: int, seed: int | None = None, dataloader_kwargs: dict | None = None
    ) -> Iterator[DataProto]:
        """Mini-batches of ``mini_batch_size`` rows (which must divide the batch), ``epochs`` times over.
        ``dataloader_kwargs`` go to PyTorch's DataLoader, e.g. ``{"shuffle": True}`` with ``seed``."""
        if mini_batch_size < 1 or len(self) % mini_batch_size:
            raise DataProtoError(f"mini_batch_size {mini_batch_size} does not divide the batch of {len(self)} rows")
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        # rows are loaded by index, a mini-batch at a time: collating single items would be many times slower
        loader = DataLoader(
            range(len(self)), mini_batch_size, collate_fn=self.select_idxs, generator=generator, **(dataloader_kwargs or {})
        )
        return (part for _ in range(epochs) for part in loader)

    # -- padding --------------------------------------------------------------------------------

    def is_padding_enabled(self) -> bool:
        """Whether a DP dispatch may pad this batch; see :class:`DataProtoConfig`."""
        return bool(self.meta_info.get(DataProtoConfig.auto_padding_key, False)) or DataProtoConfig.auto_padding

    def padding(self, padding_size: int, padding_candidate: str = "") -> None:
        """Append ``padding_size`` copies of the ``"first"`` row, or else of the last, in place."""
        if padding_size == 0:
            return
        row = 0 if padding_candidate == "first" else len(self) - 1
        padded = self.select_idxs([*range(len(self)), *[row] * padding_size])
        self.batch, self.non_tensor_batch = padded.batch, padded.non_tensor_batch

    # -- moving ---------------------------------------------------------------------------------

    def to(self, device: str | torch.device) -> DataProto:
        """Move the tensors to ``device`` in place; returns ``self``."""
        if self.batch is not None:
            self.batch = self.batch.to(device)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "batch": None if self.batch is None else serialize_tensordict(self.batch)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.batch = None if state["batch"] is None else deserialize_tensordict(state["batch"])
        self.non_tensor_batch = {key: own(value) for key, value in state["non_tensor_batch"].items()}

    def __deepcopy__(self, memo: dict) -> DataProto:
        new = copy.copy(self)  # and not by way of __getstate__, which brings tensors to the CPU
        memo[id(self)] = new
        new.__dict__.update({k: copy.deepcopy(v, memo) for k, v in self.__dict__.items() if k != "batch"})
        new.batch = None if self.batch is None else self.batch.clone()
        return new

    def __copy__(self) -> DataProto:
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def save_to_disk(self, filepath: str | os.PathLike) -> None:
        """Write one safetensors file, atomically. Only plain data can be stored (no pickle):
        :class:`DataProtoError` names what is not."""
        disk.save(filepath, self.batch, self.non_tensor_batch, self.meta_info)

    @classmethod
    def load_from_disk(cls, filepath: str | os.PathLike) -> DataProto:
        """Read what :meth:`save_to_disk` wrote, to the CPU. No code in the file can run."""
        batch, arrays, meta = disk.load(filepath)
        return cls(batch=batch, non_tensor_batch=arrays, meta_info=meta)

    def to_tensordict(self) -> TensorDict:
        """One TensorDict with everything: arrays become lists of values, meta_info plain values."""
        return merge.to_tensordict(self.batch, self.non_tensor_batch, self.meta_info, len(self))

    def get_data_info(self) -> str:
        """What the batch holds, an entry a line: shapes, dtypes and devices, and the types in meta_info."""
        return describe(self.batch, self.non_tensor_batch, self.meta_info)

    def print_size(self, prefix: str = "") -> None:
        """Print the bytes held by each part, in GiB."""
        tensors = sum(t.element_size() * t.numel() for t in self.batch.values()) if self.batch is not None else 0
        arrays = sum(v.nbytes for v in self.non_tensor_batch.values())
        head = f"{prefix}, " if prefix else ""
        # printing is what this method is for
        print(f"{head}Size of tensordict: {tensors / 2**30} GB, size of non_tensor_batch: {arrays / 2**30} GB")


def collate_fn(x: list[DataProtoItem]) -> DataProto:
    """Stack rows to a batch again; arrays get dtype object."""
    batch = None if x[0].batch is None else torch.stack([item.batch for item in x]).contiguous()
    keys = x[0].non_tensor_batch
    return DataProto(batch, {key: as_object_array([item.non_tensor_batch[key] for item in x]) for key in keys})
