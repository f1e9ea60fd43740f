"""Losses beside the policy's: the critic's and the entropy bonus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from verl.trainer.ppo.aggregation import agg_loss
from verl.utils.torch_functional import clip_by_value, entropy_from_logits, masked_mean


def compute_value_loss(
    vpreds: torch.Tensor,
    returns: torch.Tensor,
    values: torch.Tensor,
    response_mask: torch.Tensor,
    cliprange_value: float,
    loss_agg_mode: str = "token-mean",
    global_batch_info: Mapping[str, Any] | None = None,
    **counts: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Clipped value loss (PPO, as in OpenAI's baselines), ``values`` being those of the rollout::

        L = 1/2 max((v - R)^2, (clip(v, values - eps, values + eps) - R)^2)

    All (B, T). Returns the aggregated loss and the share of tokens where the clipped term was the
    larger. ``global_batch_info``, or VeRL's ``dp_size``, ``batch_num_tokens``, ... by name: the arguments of ``agg_loss`` for a
    piece of a mini-batch.
    """
    counts = {**(global_batch_info or {}), **counts}
    clipped = clip_by_value(vpreds, values - cliprange_value, values + cliprange_value)
    loss, loss_clipped = (vpreds - returns).square(), (clipped - returns).square()
    vf_loss = 0.5 * agg_loss(torch.maximum(loss, loss_clipped), response_mask, loss_agg_mode, **counts)
    return vf_loss, masked_mean((loss_clipped > loss).float(), response_mask)


def compute_entropy_loss(
    logits: torch.Tensor,
    response_mask: torch.Tensor,
    loss_agg_mode: str = "token-mean",
    global_batch_info: Mapping[str, Any] | None = None,
) -> torch.Tensor:
    """Aggregated entropy of ``softmax(logits)``, logits (B, T, V); subtract it, times a coefficient."""
    return agg_loss(entropy_from_logits(logits), response_mask, loss_agg_mode, **(global_batch_info or {}))
