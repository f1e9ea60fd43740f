"""Statistics over all ranks, and nested tensors (``verl.utils.torch_functional``)."""

from __future__ import annotations

import torch
import torch.distributed as dist


def _over_ranks(value: torch.Tensor, op=dist.ReduceOp.SUM) -> torch.Tensor:
    value = value.clone()
    dist.all_reduce(value, op=op)
    return value


def distributed_mean_max_min_std(
    local_tensor: torch.Tensor, compute_max: bool = True, compute_min: bool = True, compute_std: bool = True
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """``(mean, max, min, std)`` over the elements of all ranks, scalars; None for what is not asked for, std unbiased.

    Collective: every rank of the default process group calls it.
    """
    count = _over_ranks(torch.tensor(local_tensor.numel(), device=local_tensor.device))
    mean = _over_ranks(local_tensor.sum()) / count
    largest = _over_ranks(local_tensor.max(), dist.ReduceOp.MAX) if compute_max else None
    smallest = _over_ranks(local_tensor.min(), dist.ReduceOp.MIN) if compute_min else None
    std = (_over_ranks((local_tensor - mean).square().sum()) / (count - 1)).sqrt() if compute_std else None
    return mean, largest, smallest, std


def distributed_masked_mean(local_tensor: torch.Tensor, local_mask: torch.Tensor) -> torch.Tensor:
    """Mean of the elements under ``local_mask`` over all ranks, a scalar (NaN where no rank has one).

    Values outside the mask are never read. Collective: every rank of the default process group calls it.
    """
    mask = local_mask.bool()
    total = torch.where(mask, local_tensor, torch.zeros((), dtype=local_tensor.dtype, device=local_tensor.device)).sum()
    return _over_ranks(total) / _over_ranks(mask.sum())


def expand_as_nested(tensor: torch.Tensor, nested_tensor: torch.Tensor) -> torch.Tensor:
    """(B,) numbers repeated to the lengths of a jagged ``nested_tensor`` (B, j): a nested tensor of the same offsets.

    Raises ``AssertionError``, as VeRL does, for other shapes and for a tensor that is not nested.
    """
    if not nested_tensor.is_nested or nested_tensor.dim() != 2:
        raise AssertionError(f"nested_tensor must be a jagged nested tensor (B, j), got one of {nested_tensor.dim()} dimensions")
    if tensor.dim() != 1 or len(tensor) != nested_tensor.size(0):
        raise AssertionError(f"tensor must have shape ({nested_tensor.size(0)},), one number a row, got {tuple(tensor.shape)}")
    offsets = nested_tensor.offsets()
    return torch.nested.nested_tensor_from_jagged(tensor.repeat_interleave(offsets.diff()), offsets)
