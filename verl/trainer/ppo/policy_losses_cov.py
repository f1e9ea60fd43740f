"""Clip-Cov and KL-Cov (arXiv:2505.22617): restrain the few tokens that drive the entropy down, those
whose log-probability and advantage co-vary most::

    cov_t = (A_t - mean A) (log pi_t - mean log pi)      means over the trained tokens of a batch

Which tokens those are depends on the batch the means and ranks are taken over. For a result that
does not depend on the cut, :func:`add_cov_selected` chooses them once in the whole batch of a step,
before it is cut, and each piece is handed its part as ``cov_selected`` (B, T). The policy of that
covariance is the one that sampled (before a forward pass no other is known): the current one in the
first update of a step, some updates old in later ones. Without ``cov_selected`` the tokens are chosen
within the piece at hand and by its current policy, as VeRL does; the loss then depends on the cut.
Other arguments and results as in ``policy_losses``.
"""

from __future__ import annotations

from typing import Any

import torch

from verl.trainer.ppo.config_access import config_value
from verl.trainer.ppo.policy_losses import LossResult, clip_range, loss_metrics, masked_log_ratio, weighted_agg
from verl.trainer.ppo.registry import register_policy_loss
from verl.utils.torch_functional import masked_fill_zero, masked_mean


def _positive(config: Any, key: str, default: float) -> float:
    value = config_value(config, f"policy_loss.{key}", default)
    if value <= 0:
        raise ValueError(f"actor.policy_loss.{key} must be positive, got {value}")
    return value


def _covariance(log_prob, advantages, mask) -> torch.Tensor:
    log_prob = masked_fill_zero(log_prob.detach(), mask)
    return (advantages - masked_mean(advantages, mask)) * (log_prob - masked_mean(log_prob, mask))


def _clipped_by_ppo(log_ratio, advantages, config: Any) -> torch.Tensor:
    low, high = clip_range(config)
    ratio = log_ratio.exp()
    return -advantages * ratio.clamp(1 - low, 1 + high) > -advantages * ratio


@torch.no_grad()
def select_clip_cov_tokens(
    old_log_prob, log_prob, advantages, response_mask, config: Any = None, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Bool (B, T): ``clip_cov_ratio`` (0.0002) of the trained tokens, at least one, drawn at random from
    those with a covariance between ``clip_cov_lb`` (1) and ``clip_cov_ub`` (5) that PPO's clip leaves alone."""
    mask = response_mask.bool()
    count = max(1, int(_positive(config, "clip_cov_ratio", 0.0002) * int(mask.sum())))
    lower, upper = config_value(config, "policy_loss.clip_cov_lb", 1.0), config_value(config, "policy_loss.clip_cov_ub", 5.0)
    cov = _covariance(log_prob, advantages, mask)
    clipped = _clipped_by_ppo(masked_log_ratio(log_prob, old_log_prob, mask), advantages, config)
    candidates = (mask & ~clipped & (cov > lower) & (cov < upper)).reshape(-1).nonzero().reshape(-1)
    drawn = candidates[torch.randperm(len(candidates), generator=generator).to(candidates.device)[:count]]
    selected = torch.zeros_like(mask).reshape(-1)
    selected[drawn] = True
    return selected.reshape(mask.shape)


@torch.no_grad()
def select_kl_cov_tokens(
    old_log_prob, log_prob, advantages, response_mask, config: Any = None, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Bool (B, T): the ``kl_cov_ratio`` (0.0002) of the trained tokens, at least one, with the largest
    covariance. Nothing is drawn: ``generator`` is there for :data:`COV_SELECTORS`' common form."""
    mask = response_mask.bool()
    trained = mask.reshape(-1).nonzero().reshape(-1)
    selected = torch.zeros_like(mask).reshape(-1)
    if len(trained):
        count = max(1, int(_positive(config, "kl_cov_ratio", 0.0002) * len(trained)))
        cov = _covariance(log_prob, advantages, mask).reshape(-1)[trained]
        selected[trained[cov.topk(min(count, len(trained))).indices]] = True
    return selected.reshape(mask.shape)


#: loss_mode -> fn(old_log_prob, log_prob, advantages, response_mask, config, generator) -> cov_selected
COV_SELECTORS = {"clip_cov": select_clip_cov_tokens, "kl_cov": select_kl_cov_tokens}


def add_cov_selected(data: Any, config: Any, seed: int | None = None) -> Any:
    """Put ``cov_selected`` (B, T) into ``data.batch`` where ``config.policy_loss.loss_mode`` needs it (else
    ``data`` comes back untouched); ``seed`` fixes clip_cov's draw.

    Reads ``advantages``, ``response_mask`` and ``old_log_probs``, or ``rollout_log_probs`` where an exactly
    on-policy update left those out. ``config`` is the actor's section.
    """
    select = COV_SELECTORS.get(config_value(config, "policy_loss.loss_mode", "vanilla"))
    if select is None:
        return data
    there = set(data.batch.keys())
    key = next((k for k in ("old_log_probs", "rollout_log_probs") if k in there), None)
    if key is None:
        raise KeyError("clip_cov and kl_cov choose tokens by old_log_probs or rollout_log_probs; the batch has neither")
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    log_prob = data.batch[key]
    data.batch["cov_selected"] = select(
        log_prob, log_prob, data.batch["advantages"], data.batch["response_mask"], config, generator
    )
    return data


@register_policy_loss("clip_cov")
def compute_policy_loss_clip_cov(
    old_log_prob,
    log_prob,
    advantages,
    response_mask,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: torch.Tensor | None = None,
    cov_selected: torch.Tensor | None = None,
) -> LossResult:
    """Clip-Cov: PPO's clipped surrogate, 0 on the selected tokens. ``pg_clipfrac`` is their share."""
    if cov_selected is None:
        cov_selected = select_clip_cov_tokens(old_log_prob, log_prob, advantages, response_mask, config)
    low, high = clip_range(config)
    log_ratio = masked_log_ratio(log_prob, old_log_prob, response_mask)
    ratio = log_ratio.exp()
    loss = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - low, 1 + high)) * ~cov_selected
    return (
        weighted_agg(loss, response_mask, loss_agg_mode, config, rollout_is_weights),
        loss_metrics(response_mask, log_ratio, cov_selected),
    )


@register_policy_loss("kl_cov")
def compute_policy_loss_kl_cov(
    old_log_prob,
    log_prob,
    advantages,
    response_mask,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: torch.Tensor | None = None,
    cov_selected: torch.Tensor | None = None,
) -> LossResult:
    """KL-Cov: ``-A r`` without a clip, plus ``ppo_kl_coef`` (1) ``|log r|`` on the selected tokens.
    ``actor/ppo_kl`` is the mean of ``|log r|``."""
    if cov_selected is None:
        cov_selected = select_kl_cov_tokens(old_log_prob, log_prob, advantages, response_mask, config)
    coef = config_value(config, "policy_loss.ppo_kl_coef", 1.0)
    log_ratio = masked_log_ratio(log_prob, old_log_prob, response_mask)
    loss = -advantages * log_ratio.exp() + coef * log_ratio.abs() * cov_selected
    return (
        weighted_agg(loss, response_mask, loss_agg_mode, config, rollout_is_weights),
        loss_metrics(response_mask, -log_ratio.abs()),
    )
