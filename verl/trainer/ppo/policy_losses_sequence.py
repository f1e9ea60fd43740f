"""Policy losses that give every sequence the same weight, whatever ``loss_agg_mode`` says (which is
then named once in the log). Arguments and results as in ``policy_losses``.

A ratio of a sequence is that of a row. Where the turns of a trajectory are rows, each has a ratio, and the rows share the
one weight of their trajectory (``agg_loss``'s ``sequence_tokens``).
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch

from verl.trainer.ppo.aggregation import agg_seq_loss
from verl.trainer.ppo.config_access import batch_info, config_value
from verl.trainer.ppo.policy_losses import LossResult, clip_range, loss_metrics, masked_log_ratio, weighted_agg
from verl.trainer.ppo.registry import register_policy_loss
from verl.utils.torch_functional import masked_fill_zero, masked_sum

logger = logging.getLogger(__name__)
SEQ_MODE = "seq-mean-token-mean"


@functools.cache
def _say_fixed_mode(loss: str, given: str) -> None:
    if given != SEQ_MODE:
        logger.warning("policy loss %r always averages by %s; loss_agg_mode=%s is not used for it", loss, SEQ_MODE, given)


@register_policy_loss("gspo")
def compute_policy_loss_gspo(
    old_log_prob,
    log_prob,
    advantages,
    response_mask,
    loss_agg_mode: str = SEQ_MODE,
    config: Any = None,
    rollout_is_weights: torch.Tensor | None = None,
) -> LossResult:
    """GSPO (arXiv:2507.18071), token form: one ratio a sequence, the geometric mean of its tokens' ::

    s_i = exp(mean_t log r_it)     s_it = sg(s_i) pi_it / sg(pi_it)
    L   = max(-A s_it, -A clip(s_it, 1 - clip_ratio_low, 1 + clip_ratio_high))
    """
    _say_fixed_mode("gspo", loss_agg_mode)
    low, high = clip_range(config)
    log_ratio = masked_log_ratio(log_prob, old_log_prob, response_mask, bound=None)
    mean = masked_sum(log_ratio, response_mask, -1) / response_mask.sum(-1).clamp(min=1)
    log_prob = masked_fill_zero(log_prob, response_mask)
    ratio = (log_prob - log_prob.detach() + mean.detach().unsqueeze(-1)).clamp(max=10.0).exp()
    surrogate, bounded = -advantages * ratio, -advantages * ratio.clamp(1 - low, 1 + high)
    loss = torch.maximum(surrogate, bounded)
    return (
        weighted_agg(loss, response_mask, SEQ_MODE, config, rollout_is_weights),
        loss_metrics(response_mask, log_ratio, bounded > surrogate),
    )


@register_policy_loss("sapo")
def compute_policy_loss_sapo(
    old_log_prob,
    log_prob,
    advantages,
    response_mask,
    loss_agg_mode: str = SEQ_MODE,
    config: Any = None,
    rollout_is_weights: torch.Tensor | None = None,
) -> LossResult:
    """SAPO (arXiv:2511.20347): a soft gate in place of the clip, narrower for negative advantages::

    L = -A (4 / tau) sigmoid(tau (r - 1)),  tau = tau_pos (1.0) where A > 0, else tau_neg (1.05)
    """
    _say_fixed_mode("sapo", loss_agg_mode)
    tau_pos, tau_neg = config_value(config, "tau_pos", 1.0), config_value(config, "tau_neg", 1.05)
    if tau_pos <= 0 or tau_neg <= 0:
        raise ValueError(f"policy loss 'sapo' needs actor.tau_pos and actor.tau_neg > 0, got {tau_pos} and {tau_neg}")
    log_ratio = masked_log_ratio(log_prob, old_log_prob, response_mask)
    tau = torch.full_like(log_ratio, tau_neg).masked_fill(advantages > 0, tau_pos)
    gate = torch.sigmoid(tau * (log_ratio.exp() - 1.0)) * (4.0 / tau)
    return (
        weighted_agg(-gate * advantages, response_mask, SEQ_MODE, config, rollout_is_weights),
        loss_metrics(response_mask, log_ratio),
    )


@register_policy_loss("geo_mean")
def compute_policy_loss_geo_mean(
    old_log_prob,
    log_prob,
    advantages,
    response_mask,
    loss_agg_mode: str = SEQ_MODE,
    config: Any = None,
    rollout_is_weights: torch.Tensor | None = None,
) -> LossResult:
    """GMPO (arXiv:2507.20673): PPO's surrogate with the geometric mean over a sequence's tokens, clipped
    in the log ratio of each token (on the side the advantage pushes to)::

        m_it = sgn(A) min(sgn(A) log r, sgn(A) clip(log r, -clip_ratio_low, clip_ratio_high))
        L_i  = -mean_t(A_it) exp(mean_t m_it),   averaged over the sequences of the whole mini-batch

    Rollout weights enter by their geometric mean over the sequence.
    """
    _say_fixed_mode("geo_mean", loss_agg_mode)
    low, high = clip_range(config)
    log_ratio = masked_log_ratio(log_prob, old_log_prob, response_mask, bound=None)
    bounded = log_ratio.clamp(-low, high)
    sign = torch.sign(advantages)
    kept = sign * torch.minimum(sign * log_ratio, sign * bounded)
    count = response_mask.sum(-1).clamp(min=1)
    loss = -(masked_sum(advantages, response_mask, -1) / count) * (masked_sum(kept, response_mask, -1) / count).exp()
    if rollout_is_weights is not None:
        loss = loss * (masked_sum(rollout_is_weights.clamp(min=1e-10).log(), response_mask, -1) / count).exp()
    clipped = log_ratio != bounded
    return (
        agg_seq_loss(loss, response_mask, **batch_info(config)),
        loss_metrics(response_mask, log_ratio, clipped & (advantages > 0), clipped & (advantages < 0)),
    )
