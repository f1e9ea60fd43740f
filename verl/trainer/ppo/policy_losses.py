"""Policy losses over the ratio of each token. Sequence-level ones: ``policy_losses_sequence``;
covariance: ``policy_losses_cov``; divergence masks: ``policy_losses_dppo``.

All take ``(old_log_prob, log_prob, advantages, response_mask)`` (B, T), the aggregation mode, the
actor's config and optional rollout weights (B, T), and return ``(loss, metrics)``. ``r`` is
``pi / pi_old`` of a token, ``A`` its advantage; losses are per token and aggregated by ``agg_loss``,
whose counts travel in ``config.global_batch_info`` (``with_batch_info``). The metrics are means over
the trained tokens at hand: weigh those of micro-batches by their numbers of trained tokens.
"""

from __future__ import annotations

from typing import Any

import torch

from verl.trainer.ppo.aggregation import agg_loss
from verl.trainer.ppo.config_access import batch_info, config_value
from verl.trainer.ppo.registry import register_policy_loss
from verl.utils.torch_functional import masked_fill_zero, masked_mean

LossResult = tuple[torch.Tensor, dict[str, float]]


def clip_range(config: Any) -> tuple[float, float]:
    """``(clip_ratio_low, clip_ratio_high)``; either falls back to ``clip_ratio`` (0.2)."""
    clip = config_value(config, "clip_ratio", 0.2)
    return config_value(config, "clip_ratio_low", clip), config_value(config, "clip_ratio_high", clip)


def masked_log_ratio(
    log_prob: torch.Tensor, old_log_prob: torch.Tensor, mask: torch.Tensor, bound: float | None = 20.0
) -> torch.Tensor:
    """``log pi - log pi_old`` clamped to +-``bound``, and 0 outside the mask, so that garbage there
    (even NaN) reaches neither loss nor gradient."""
    log_ratio = masked_fill_zero(log_prob, mask) - masked_fill_zero(old_log_prob, mask)
    return log_ratio if bound is None else log_ratio.clamp(-bound, bound)


def loss_metrics(
    mask: torch.Tensor, log_ratio: torch.Tensor, clipped: torch.Tensor | None = None, clipped_lower: torch.Tensor | None = None
) -> dict[str, float]:
    """VeRL's three: ``actor/ppo_kl`` (mean of -log r), ``actor/pg_clipfrac``, ``actor/pg_clipfrac_lower``."""

    def mean(x: torch.Tensor | None) -> float:
        return 0.0 if x is None else masked_mean(x.detach().float(), mask).item()

    return {"actor/ppo_kl": mean(-log_ratio), "actor/pg_clipfrac": mean(clipped), "actor/pg_clipfrac_lower": mean(clipped_lower)}


def weighted_agg(
    losses: torch.Tensor, mask: torch.Tensor, mode: str, config: Any, rollout_is_weights: torch.Tensor | None
) -> torch.Tensor:
    """Token losses times the rollout correction's weights, aggregated."""
    if rollout_is_weights is not None:
        losses = losses * rollout_is_weights
    return agg_loss(losses, mask, mode, **batch_info(config))


@register_policy_loss("vanilla")
def compute_policy_loss_vanilla(
    old_log_prob,
    log_prob,
    advantages,
    response_mask,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: torch.Tensor | None = None,
) -> LossResult:
    """PPO's clipped surrogate (arXiv:1707.06347) with separate bounds (clip-higher, DAPO,
    arXiv:2503.14476) and the dual clip for negative advantages (arXiv:1912.09729)::

        L = max(-A r, -A clip(r, 1 - clip_ratio_low, 1 + clip_ratio_high))
        L = min(L, -A c)  where A < 0,  c = clip_ratio_c > 1 (default 3)
    """
    low, high = clip_range(config)
    c = config_value(config, "clip_ratio_c", 3.0)
    loss, clipped, clipped_lower, log_ratio = _clipped_surrogate(old_log_prob, log_prob, advantages, response_mask, low, high, c)
    return (
        weighted_agg(loss, response_mask, loss_agg_mode, config, rollout_is_weights),
        loss_metrics(response_mask, log_ratio, clipped, clipped_lower),
    )


def _clipped_surrogate(old_log_prob, log_prob, advantages, response_mask, low: float, high: float, c: float):
    if c <= 1.0:
        raise ValueError(f"clip_ratio_c bounds the ratio of the dual clip and must be greater than 1, got {c}")
    log_ratio = masked_log_ratio(log_prob, old_log_prob, response_mask)
    ratio = log_ratio.exp()
    surrogate, bounded = -advantages * ratio, -advantages * ratio.clamp(1 - low, 1 + high)
    ppo = torch.maximum(surrogate, bounded)
    floor = -advantages * c
    loss = torch.where(advantages < 0, torch.minimum(ppo, floor), ppo)
    return loss, bounded > surrogate, (ppo > floor) & (advantages < 0), log_ratio


def compute_policy_loss(
    old_log_prob,
    log_prob,
    advantages,
    response_mask,
    cliprange: float | None = None,
    cliprange_low: float | None = None,
    cliprange_high: float | None = None,
    clip_ratio_c: float = 3.0,
    loss_agg_mode: str = "token-mean",
):
    """VeRL's older form of :func:`compute_policy_loss_vanilla` on a whole mini-batch:
    ``(loss, clipfrac, ppo_kl, clipfrac_lower)`` as tensors."""
    low = cliprange if cliprange_low is None else cliprange_low
    high = cliprange if cliprange_high is None else cliprange_high
    if low is None or high is None:
        raise ValueError("compute_policy_loss needs cliprange, or both cliprange_low and cliprange_high")
    loss, clipped, lower, log_ratio = _clipped_surrogate(
        old_log_prob, log_prob, advantages, response_mask, low, high, clip_ratio_c
    )
    return (
        agg_loss(loss, response_mask, loss_agg_mode),
        masked_mean(clipped.float(), response_mask),
        masked_mean(-log_ratio, response_mask),
        masked_mean(lower.float(), response_mask),
    )


@register_policy_loss("cispo")
def compute_policy_loss_cispo(
    old_log_prob,
    log_prob,
    advantages,
    response_mask,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: torch.Tensor | None = None,
) -> LossResult:
    """CISPO (MiniMax-M1, arXiv:2506.13585): the clipped ratio is a constant weight, so no token's
    gradient is cut off: ``L = -sg(clip(r, 1 - clip_ratio_low, 1 + clip_ratio_high)) A log pi``."""
    low, high = clip_range(config)
    log_ratio = masked_log_ratio(log_prob, old_log_prob, response_mask)
    ratio = log_ratio.exp()
    weight = ratio.clamp(1 - low, 1 + high).detach()
    loss = -weight * advantages * masked_fill_zero(log_prob, response_mask)
    return (
        weighted_agg(loss, response_mask, loss_agg_mode, config, rollout_is_weights),
        loss_metrics(response_mask, log_ratio, ratio != weight),
    )


@register_policy_loss("gpg")
def compute_policy_loss_gpg(
    old_log_prob,
    log_prob,
    advantages,
    response_mask,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: torch.Tensor | None = None,
) -> LossResult:
    """Group policy gradient (arXiv:2504.02546), REINFORCE without ratio or clip: ``L = -A log pi``."""
    loss = -masked_fill_zero(log_prob, response_mask) * advantages
    log_ratio = masked_log_ratio(log_prob, old_log_prob, response_mask)
    return (weighted_agg(loss, response_mask, loss_agg_mode, config, rollout_is_weights), loss_metrics(response_mask, log_ratio))


@register_policy_loss("dro")
def compute_policy_loss_dro(
    old_log_prob,
    log_prob,
    advantages,
    response_mask,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: torch.Tensor | None = None,
) -> LossResult:
    """Direct reward optimisation with a quadratic penalty (after arXiv:2405.19107)::

        L = -(A log pi - dro_beta / 2 (log pi - log pi_old)^2)

    Raises ``ValueError`` unless ``config.policy_loss.dro_beta`` is positive.
    """
    beta = config_value(config, "policy_loss.dro_beta")
    if beta is None or beta <= 0:
        raise ValueError(f"policy loss 'dro' needs actor.policy_loss.dro_beta > 0, got {beta}")
    log_ratio = masked_log_ratio(log_prob, old_log_prob, response_mask, bound=None)
    loss = -(masked_fill_zero(log_prob, response_mask) * advantages - 0.5 * beta * log_ratio.square())
    return (weighted_agg(loss, response_mask, loss_agg_mode, config, rollout_is_weights), loss_metrics(response_mask, log_ratio))
