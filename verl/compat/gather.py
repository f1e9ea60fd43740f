"""``all_gather_data_proto``: the rows of every rank on every rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from tensordict import TensorDict

from verl._protocol.checks import DataProtoError
from verl._protocol.merge import concat_numpy_dicts

if TYPE_CHECKING:
    from verl.protocol import DataProto


def all_gather_data_proto(data: DataProto, process_group: dist.ProcessGroup | None) -> None:
    """Replace the rows of ``data``, in place, by those of all ranks of the group, in the order of the ranks.

    Ranks may hold different numbers of rows, but must have the same keys, dtypes and trailing shapes: otherwise every rank
    raises :class:`~verl.protocol.DataProtoError`. Tensors stay on their device; ``meta_info`` stays each rank's own.
    """
    layout = {key: (tensor.dtype, tuple(tensor.shape)) for key, tensor in _tensors(data).items()}
    parts: list[Any] = [None] * dist.get_world_size(process_group)
    dist.all_gather_object(parts, (layout, data.non_tensor_batch), group=process_group)
    _check_layouts([part[0] for part in parts])
    if data.batch is not None:
        rows = [next(iter(part[0].values()))[1][0] for part in parts]
        joined = {key: _all_gather(data.batch[key], rows, process_group) for key in sorted(layout)}
        data.batch = TensorDict({key: joined[key] for key in layout}, batch_size=[sum(rows)], device=data.batch.device)
    data.non_tensor_batch = concat_numpy_dicts([part[1] for part in parts])


def _tensors(data: DataProto) -> dict[str, torch.Tensor]:
    tensors = {} if data.batch is None else dict(data.batch.items())
    for key, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor) or tensor.is_nested:
            raise DataProtoError(f"all_gather_data_proto: {key!r} must be a tensor that is not nested, got {type(tensor).__name__}")
    return tensors


def _check_layouts(layouts: list[dict[str, tuple[torch.dtype, tuple[int, ...]]]]) -> None:
    expected = {key: (dtype, shape[1:]) for key, (dtype, shape) in layouts[0].items()}
    for rank, layout in enumerate(layouts):
        got = {key: (dtype, shape[1:]) for key, (dtype, shape) in layout.items()}
        if got != expected:
            differ = sorted(key for key in {*got, *expected} if got.get(key) != expected.get(key))
            raise DataProtoError(f"all_gather_data_proto: rank {rank} differs from rank 0 in the dtype or shape of {differ}")


def _all_gather(tensor: torch.Tensor, rows: list[int], group: dist.ProcessGroup | None) -> torch.Tensor:
    """``tensor`` of all ranks, joined; as bytes, because not every backend takes every dtype."""
    device = torch.device("cpu") if dist.get_backend(group) == "gloo" else torch.accelerator.current_accelerator()
    row_bytes = tensor.shape[1:].numel() * tensor.element_size()
    own = torch.zeros(max(rows) * row_bytes, dtype=torch.uint8, device=device)
    own[: len(tensor) * row_bytes].view(tensor.dtype).copy_(tensor.detach().reshape(-1))
    gathered = [torch.empty_like(own) for _ in rows]
    dist.all_gather(gathered, own, group=group)
    joined = torch.cat([part[: count * row_bytes] for part, count in zip(gathered, rows, strict=True)])
    return joined.view(tensor.dtype).view(sum(rows), *tensor.shape[1:]).to(tensor.device)
