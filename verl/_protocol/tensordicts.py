"""Rows of a TensorDict: chosen, cut into chunks, joined; with jagged tensors, which TensorDict's own methods refuse.

An entry is a tensor ``(B, ...)``, a jagged nested tensor of ``B`` rows, a ``NonTensorStack`` (a value a row) or a
``NonTensorData`` (one value for the whole batch).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import NonTensorData, TensorDict

from verl._protocol.checks import DataProtoError


def jagged(rows: Sequence[torch.Tensor], ragged_dim: int | None = None) -> torch.Tensor:
    """One jagged tensor of ``rows``, which differ in size along ``ragged_dim`` alone (counted as in the result, so from
    1; by default the last). All rows may be of one size there: the layout stays jagged along that dimension."""
    if not rows:
        raise DataProtoError("a jagged tensor needs at least one row")
    dims = rows[0].dim()
    ragged_dim = dims if ragged_dim is None else ragged_dim
    if not 1 <= ragged_dim <= dims:
        raise DataProtoError(f"ragged_dim must be between 1 and {dims} for rows of shape {tuple(rows[0].shape)}, got {ragged_dim}")
    lengths = torch.tensor([row.shape[ragged_dim - 1] for row in rows])
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).to(rows[0].device)
    return torch.nested.nested_tensor_from_jagged(torch.cat(list(rows), dim=ragged_dim - 1), offsets, jagged_dim=ragged_dim)


def ragged_dim(tensor: torch.Tensor) -> int:
    """The dimension along which the rows of a jagged tensor differ."""
    return tensor._ragged_idx


def is_jagged(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_nested


def concat_jagged(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The rows of several jagged tensors of at least two dimensions, in order, as one."""
    for i, tensor in enumerate(tensors):
        if not is_jagged(tensor) or tensor.layout != torch.jagged or not tensor.is_contiguous() or tensor.dim() < 2:
            raise DataProtoError(f"tensor {i} must be a contiguous jagged tensor of two or more dimensions, got {tensor!r:.80}")
    return jagged([row for tensor in tensors for row in tensor.unbind()], ragged_dim(tensors[0]))


def select_rows(batch: TensorDict, index: torch.Tensor) -> TensorDict:
    """The rows ``index`` (1-D, integers) of every entry; values for the whole batch stay as they are."""
    if index.dim() != 1:
        raise DataProtoError(f"row indices must be a 1-D tensor, got shape {tuple(index.shape)}")
    chosen = {}
    for key in batch.keys():  # a TensorDict itself iterates over rows
        value = batch.get(key)
        if is_jagged(value):
            rows = value.unbind()
            chosen[key] = jagged([rows[i] for i in index.tolist()], ragged_dim(value))
        else:
            chosen[key] = value if isinstance(value, NonTensorData) else value[index]
    return TensorDict(chosen, batch_size=[len(index)], device=batch.device)


def chunk_rows(batch: TensorDict, chunks: int) -> list[TensorDict]:
    """``chunks`` TensorDicts of equally many consecutive rows."""
    if not isinstance(batch, TensorDict):
        raise DataProtoError(f"only a TensorDict can be cut into chunks here, got {type(batch).__name__}")
    if chunks < 1 or len(batch) % chunks:
        raise DataProtoError(f"{len(batch)} rows do not make {chunks} equal chunks: pad them first")
    return [select_rows(batch, part) for part in torch.arange(len(batch)).view(chunks, -1)]


def concat_rows(parts: Sequence[TensorDict]) -> TensorDict:
    """The rows of all parts, in order; a value for the whole batch is the first part's, as in VeRL. Parts without a batch
    dimension hold only such values: the first is the result. Raises :class:`DataProtoError` where the parts differ in
    their keys, or in which entries are jagged."""
    if not parts:
        raise DataProtoError("concat of no TensorDicts: there is nothing to tell the keys from")
    first = parts[0]
    if not first.batch_size:
        return first
    for i, part in enumerate(parts):
        if kinds := set(_kinds(part)) ^ set(_kinds(first)):
            raise DataProtoError(f"concat: part {i} differs in the entries {sorted({key for key, _ in kinds})}")
    joined = {}
    for key, kind in _kinds(first):
        values = [part.get(key) for part in parts]
        if kind == "whole":
            joined[key] = NonTensorData(values[0].data)
        else:
            joined[key] = concat_jagged(values) if kind == "jagged" else torch.cat(values, dim=0)
    return TensorDict(joined, batch_size=[sum(len(part) for part in parts)], device=first.device)


def _kinds(batch: TensorDict) -> list[tuple[str, str]]:
    """Each key with ``"jagged"``, ``"rows"`` (a tensor, or a value a row) or ``"whole"`` (a value for the batch)."""
    kinds = []
    for key in batch.keys():
        value = batch.get(key)
        kinds.append((key, "jagged" if is_jagged(value) else "whole" if isinstance(value, NonTensorData) else "rows"))
    return kinds
