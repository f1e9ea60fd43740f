"""DPPO (arXiv:2602.04879): the trust region is a bound on a divergence of the two policies, estimated
from the sampled token alone, instead of a bound on its ratio. Arguments as in ``policy_losses``.

    L = -A sg(min(r, c)) log pi  where the token is inside the region or the step leads back into it, else 0

with ``c = clip_ratio_c`` (default 20, a guard against single huge weights) and, p = pi, q = pi_old:

    dppo_tv   |p - q|                                          binary total variation
    dppo_kl   q log(q / p) + (1 - q) log((1 - q) / (1 - p))    binary KL

bounded by ``clip_ratio_high`` where A > 0 (and p has risen), by ``clip_ratio_low`` otherwise (and p has fallen).
A rare token may thus move by a large ratio, a common one only by a small one.
"""

from __future__ import annotations

from typing import Any

import torch

from verl.trainer.ppo.config_access import config_value
from verl.trainer.ppo.policy_losses import LossResult, clip_range, loss_metrics, masked_log_ratio, weighted_agg
from verl.trainer.ppo.registry import register_policy_loss
from verl.utils.torch_functional import masked_fill_zero


def _masked_policy_gradient(
    outside: torch.Tensor, log_prob, log_ratio, advantages, response_mask, mode: str, config: Any, rollout_is_weights
) -> LossResult:
    cap = config_value(config, "clip_ratio_c", 20.0)
    ratio = log_ratio.exp().detach()
    loss = -advantages * ratio.clamp(max=cap) * log_prob * ~outside
    return (
        weighted_agg(loss, response_mask, mode, config, rollout_is_weights),
        loss_metrics(response_mask, log_ratio, outside, (ratio > cap) & ~outside),
    )


def _probabilities(old_log_prob, log_prob, response_mask):
    log_p, log_q = masked_fill_zero(log_prob, response_mask), masked_fill_zero(old_log_prob, response_mask)
    return log_p, log_q, log_p.detach().exp(), log_q.exp()


@register_policy_loss("dppo_tv")
def compute_policy_loss_dppo_tv(
    old_log_prob,
    log_prob,
    advantages,
    response_mask,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: torch.Tensor | None = None,
) -> LossResult:
    """DPPO with the binary total variation; see the module docstring."""
    low, high = clip_range(config)
    log_p, _, p, q = _probabilities(old_log_prob, log_prob, response_mask)
    outside = torch.where(advantages > 0, p - q > high, p - q < -low)
    return _masked_policy_gradient(
        outside,
        log_p,
        masked_log_ratio(log_prob, old_log_prob, response_mask),
        advantages,
        response_mask,
        loss_agg_mode,
        config,
        rollout_is_weights,
    )


@register_policy_loss("dppo_kl")
def compute_policy_loss_dppo_kl(
    old_log_prob,
    log_prob,
    advantages,
    response_mask,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: torch.Tensor | None = None,
) -> LossResult:
    """DPPO with the binary KL; see the module docstring."""
    low, high = clip_range(config)
    log_p, log_q, p, q = _probabilities(old_log_prob, log_prob, response_mask)
    kl = q * (log_q - log_p.detach()) + (1 - q) * ((1 - q + 1e-8) / (1 - p + 1e-8)).log()
    outside = torch.where(advantages > 0, (kl > high) & (p > q), (kl > low) & (p < q))
    return _masked_policy_gradient(
        outside,
        log_p,
        masked_log_ratio(log_prob, old_log_prob, response_mask),
        advantages,
        response_mask,
        loss_agg_mode,
        config,
        rollout_is_weights,
    )
