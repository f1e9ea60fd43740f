"""Losses against the engine's own log-probabilities, with importance weights and rejection inside the loss.

Under ``algorithm.rollout_correction.bypass_mode`` the old log-probabilities are the engine's, so what ``rollout_correction`` does
before the update (``verl.trainer.ppo.rollout_correction``) can only be done here, with the current policy in the ratio.
Arguments and results are those of ``policy_losses``; a sequence is a row of the micro-batch.
"""

from __future__ import annotations

from typing import Any

import torch

from verl.trainer.ppo.config_access import batch_info, config_value
from verl.trainer.ppo.policy_losses import LossResult, compute_policy_loss_vanilla, masked_log_ratio, weighted_agg
from verl.trainer.ppo.registry import register_policy_loss
from verl.trainer.ppo.rollout_correction import compute_rollout_correction_weights, compute_rollout_rejection_mask
from verl.utils.torch_functional import masked_fill_zero, masked_mean

LOSS_TYPES = ("ppo_clip", "reinforce")


def compute_policy_loss_reinforce(
    rollout_log_prob: torch.Tensor,
    log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    loss_agg_mode: str = "seq-mean-token-sum",
    config: Any = None,
    rollout_is_weights: torch.Tensor | None = None,
) -> LossResult:
    """REINFORCE with importance weights: ``L = -w A log pi``, ``w`` constant (1 where there are none).

    ``rollout_log_prob`` is read for the metric ``actor/ppo_kl`` alone.
    """
    loss = -masked_fill_zero(log_prob, response_mask) * advantages
    kl = masked_mean(-masked_log_ratio(log_prob, rollout_log_prob, response_mask, bound=None).detach(), response_mask)
    return weighted_agg(loss, response_mask, loss_agg_mode, config, rollout_is_weights), {"actor/ppo_kl": kl.item()}


@register_policy_loss("reinforce")
def _reinforce(
    old_log_prob, log_prob, advantages, response_mask, loss_agg_mode="token-mean", config=None, rollout_is_weights=None
) -> LossResult:
    """:func:`compute_policy_loss_reinforce` under the names every registered loss has."""
    return compute_policy_loss_reinforce(old_log_prob, log_prob, advantages, response_mask, loss_agg_mode, config, rollout_is_weights)


@register_policy_loss("bypass_mode")
def compute_policy_loss_bypass_mode(
    old_log_prob: torch.Tensor,
    log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: torch.Tensor | None = None,
) -> LossResult:
    """VeRL's loss for ``bypass_mode``; ``old_log_prob`` are the engine's log-probabilities, ``rollout_is_weights`` is not read.

    ``config.policy_loss.rollout_correction`` says what is done with the ratio of the current policy to the engine:

    - ``loss_type=ppo_clip`` (default): the clipped surrogate, whose ratio it is; ``rollout_is`` weighs nothing
    - ``loss_type=reinforce``: ``-w A log pi`` with weights by ``rollout_is``, ``rollout_is_threshold``
    - ``rollout_rs``, ``rollout_rs_threshold``: tokens or rows that are rejected weigh 0. They stay in the counts by which the loss
      is divided, since what the whole mini-batch rejects is not known while a piece of it is computed.

    Metrics are means over the tokens: ``rollout_corr/rollout_is_mean``, ``rollout_corr/rollout_rs_masked_fraction``,
    ``rollout_corr/kl`` beside the loss's own. Raises ``ValueError`` without that section, for an unknown ``loss_type``, and for
    ``rollout_is_batch_normalize`` on a piece of a mini-batch, whose mean would be another than the whole's.
    """
    section = config_value(config, "policy_loss.rollout_correction")
    if section is None:
        raise ValueError("the loss bypass_mode reads config.policy_loss.rollout_correction, which is missing; give it algorithm.rollout_correction")
    kind = config_value(section, "loss_type", "ppo_clip")
    if kind not in LOSS_TYPES:
        raise ValueError(f"rollout_correction.loss_type is {kind!r}; known: {', '.join(LOSS_TYPES)}")
    normalize = bool(config_value(section, "rollout_is_batch_normalize", False))
    if normalize and any(batch_info(config).get(count) is not None for count in ("batch_num_tokens", "global_batch_size")):
        raise ValueError("rollout_is_batch_normalize needs the whole mini-batch, and the loss bypass_mode sees a micro-batch; set it to false")
    log_ratio = masked_fill_zero((log_prob - old_log_prob).detach(), response_mask)
    metrics = {"rollout_corr/kl": masked_mean(-log_ratio, response_mask).item()}
    weights = None
    if (level := config_value(section, "rollout_is")) is not None:
        threshold = config_value(section, "rollout_is_threshold", 2.0)
        weights, _ = compute_rollout_correction_weights(log_ratio, response_mask, level, threshold, normalize)
        metrics["rollout_corr/rollout_is_mean"] = masked_mean(weights, response_mask).item()
        weights = weights if kind == "reinforce" else None
    if (options := config_value(section, "rollout_rs")) is not None:
        bounds = [config_value(section, f"rollout_rs_threshold{end}") for end in ("", "_lower")]
        kept, found = compute_rollout_rejection_mask(log_ratio, response_mask, options, *bounds)
        metrics["rollout_corr/rollout_rs_masked_fraction"] = found["rollout_rs_masked_fraction"]
        weights = kept.to(log_prob.dtype) if weights is None else weights * kept
    loss_fn = compute_policy_loss_reinforce if kind == "reinforce" else compute_policy_loss_vanilla
    loss, of_loss = loss_fn(old_log_prob, log_prob, advantages, response_mask, loss_agg_mode, config, weights)
    return loss, metrics | of_loss
