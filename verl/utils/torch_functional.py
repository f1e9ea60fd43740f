"""Tensor helpers: masked statistics, padding, learning-rate schedules, and log-probabilities and
entropy computed in chunks of tokens, so that the logits of a 150k vocabulary are never held in
float32 as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch.optim.lr_scheduler import LambdaLR

from verl.compat.tensors import distributed_masked_mean, distributed_mean_max_min_std, expand_as_nested
from verl.utils.chunked_logprobs import (
    calculate_sum_pi_squared_from_logits,
    chunked_logprobs_entropy,
    chunked_sum_pi_squared,
    entropy_from_logits,
    entropy_from_logits_with_chunking,
    logprobs_entropy_from_logits,
    logprobs_from_logits,
)

__all__ = [
    "calculate_sum_pi_squared_from_logits",
    "chunked_logprobs_entropy",
    "chunked_sum_pi_squared",
    "distributed_masked_mean",
    "distributed_mean_max_min_std",
    "expand_as_nested",
    "entropy_from_logits",
    "entropy_from_logits_with_chunking",
    "logprobs_entropy_from_logits",
    "logprobs_from_logits",
    "clip_by_value",
    "masked_sum",
    "masked_mean",
    "masked_var",
    "masked_whiten",
    "masked_fill_zero",
    "get_response_mask",
    "pad_2d_list_to_length",
    "pad_sequence_to_length",
    "get_constant_schedule_with_warmup",
    "get_cosine_schedule_with_warmup",
]


# -- masked statistics --------------------------------------------------------------------------

#: share of numbers' size by which they may differ and still be the same number: a few roundings of float32
ROUNDING = 2.0**-21


def masked_fill_zero(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """``values`` where ``mask`` is true, 0 elsewhere; unlike ``values * mask`` also where ``values``
    is NaN or infinite, in the backward pass too."""
    return torch.where(mask.bool(), values, torch.zeros((), dtype=values.dtype, device=values.device))


def masked_sum(values: torch.Tensor, mask: torch.Tensor, axis: int | tuple[int, ...] | None = None) -> torch.Tensor:
    """Sum of the values under ``mask`` (0 if there are none)."""
    return masked_fill_zero(values, mask).sum(dim=axis)


def masked_mean(values: torch.Tensor, mask: torch.Tensor, axis: int | tuple[int, ...] | None = None) -> torch.Tensor:
    """Mean of the values under ``mask``; 0, not NaN, where the mask is empty."""
    return masked_sum(values, mask, axis) / mask.sum(dim=axis).clamp(min=1)


def masked_var(values: torch.Tensor, mask: torch.Tensor, unbiased: bool = True) -> torch.Tensor:
    """Variance of the values under ``mask`` (with Bessel's correction if ``unbiased``).

    Raises ``ValueError`` if the mask selects nothing, or one value and ``unbiased`` is set.
    """
    count = int(mask.sum())
    if count == 0 or (unbiased and count == 1):
        raise ValueError(f"masked_var needs at least {2 if unbiased else 1} masked-in values, got {count}")
    mean = masked_mean(values, mask)
    total = masked_sum((values - mean).square(), mask)
    return total / (count - 1 if unbiased else count)


def masked_whiten(values: torch.Tensor, mask: torch.Tensor, shift_mean: bool = True) -> torch.Tensor:
    """``(values - mean) / std`` with mean and (unbiased) variance of the values under ``mask``;
    without ``shift_mean`` the mean is added back. Fewer than two masked-in values have no variance:
    they are centred and not scaled. Values that are alike but for rounding become exactly 0: scaled, the rounding of
    their mean would pass for a difference."""
    mean = masked_mean(values, mask)
    var = masked_var(values, mask) if int(mask.sum()) > 1 else torch.ones_like(mean)
    whitened = (values - mean) * torch.rsqrt(var + 1e-8)
    chosen = values[mask.bool()]
    if len(chosen) and chosen.max() - chosen.min() <= ROUNDING * chosen.abs().max():
        whitened = torch.zeros_like(whitened)
    return whitened if shift_mean else whitened + mean


def clip_by_value(x: torch.Tensor, tensor_min: torch.Tensor, tensor_max: torch.Tensor) -> torch.Tensor:
    """``x`` clipped between two tensors (``torch.clamp`` with tensor bounds)."""
    return torch.maximum(torch.minimum(x, tensor_max), tensor_min)


# -- padding ------------------------------------------------------------------------------------


def get_response_mask(
    response_id: torch.Tensor, eos_token: int | Sequence[int] = 2, dtype: torch.dtype = torch.int64
) -> torch.Tensor:
    """``(B, T)`` mask that is 1 up to and including the first end-of-sequence token."""
    eos = torch.as_tensor(eos_token, device=response_id.device).reshape(-1)
    is_eos = torch.isin(response_id, eos).long()
    return (is_eos.cumsum(dim=1) - is_eos == 0).to(dtype)


def pad_2d_list_to_length(response: Sequence[Sequence[int]], pad_token_id: int, max_length: int | None = None) -> torch.Tensor:
    """Ragged lists -> ``(B, T)``, right padded to the longest or to ``max_length`` if that is more."""
    width = max([len(row) for row in response] + [max_length or 0], default=0)
    return torch.tensor([list(row) + [pad_token_id] * (width - len(row)) for row in response]).reshape(-1, width)


def pad_sequence_to_length(tensors: torch.Tensor, max_seq_len: int, pad_token_id: float, left_pad: bool = False) -> torch.Tensor:
    """``(..., T)`` padded to ``(..., max_seq_len)``; returned as it is where ``T`` is already enough."""
    missing = max_seq_len - tensors.shape[-1]
    if missing <= 0:
        return tensors
    return F.pad(tensors, (missing, 0) if left_pad else (0, missing), value=pad_token_id)


# -- learning-rate schedules --------------------------------------------------------------------


def get_constant_schedule_with_warmup(optimizer: torch.optim.Optimizer, num_warmup_steps: int, last_epoch: int = -1) -> LambdaLR:
    """Linear warm-up over ``num_warmup_steps`` optimizer steps, then the optimizer's own rate.
    The first step of a warm-up runs at ``1 / num_warmup_steps`` of it, not at 0."""

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / max(1, num_warmup_steps))

    return LambdaLR(optimizer, factor, last_epoch)


def get_cosine_schedule_with_warmup(
    optimizer: torch.optim.Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    min_lr_ratio: float = 0.0,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
) -> LambdaLR:
    """Linear warm-up, then a cosine from 1 down to ``min_lr_ratio`` of the rate at
    ``num_training_steps`` (and constant after it). Raises ``ValueError`` for a ratio outside [0, 1]."""
    if not 0.0 <= min_lr_ratio <= 1.0:
        raise ValueError(f"min_lr_ratio must lie in [0, 1], got {min_lr_ratio}")

    def factor(step: int) -> float:
        if step < num_warmup_steps:
            return (step + 1) / max(1, num_warmup_steps)
        progress = min(1.0, (step - num_warmup_steps) / max(1, num_training_steps - num_warmup_steps))
        cosine = 0.5 * (1.0 + math.cos(2.0 * math.pi * num_cycles * progress))
        return min_lr_ratio + (1.0 - min_lr_ratio) * cosine

    return LambdaLR(optimizer, factor, last_epoch)
