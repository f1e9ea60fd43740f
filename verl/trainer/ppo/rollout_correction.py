"""The engine that sampled and the trainer that learns disagree a little about every log-probability
(kernels, precision, stale weights). Importance weights make up for it, rejection leaves out what is
beyond repair. With ``d_t = log pi_old - log pi_rollout`` of a sampled token, the ratio is

    token       exp(d_t)
    sequence    exp(sum_t d_t)        unbiased for the sequence, of high variance
    geometric   exp(mean_t d_t)       rejection only: does not grow with the length

Truncated importance sampling (Yao et al. 2025, "Your efficient RL framework secretly brings you
off-policy RL training") weighs each token's loss by ``min(ratio, threshold)``; rejection takes tokens or
whole sequences with a ratio outside ``[lower, upper]`` out of the mask. Everything here runs on the whole
batch before it is cut, and the counts for ``agg_loss`` are taken from the mask it returns, so that a
rejected token is never counted.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from verl.trainer.ppo.config_access import config_value
from verl.utils.torch_functional import masked_fill_zero, masked_mean, masked_sum

BOUND = 20.0  # log-ratios are clamped to +-20 before exp


def _ratios(log_ratio: torch.Tensor, mask: torch.Tensor, level: str) -> torch.Tensor:
    if level == "token":
        value = log_ratio
    else:
        value = masked_sum(log_ratio, mask, -1).unsqueeze(-1)
        if level == "geometric":
            value = value / mask.sum(-1, keepdim=True).clamp(min=1)
    return value.clamp(-BOUND, BOUND).exp().expand_as(log_ratio)


@torch.no_grad()
def compute_rollout_correction_weights(
    log_ratio: torch.Tensor,
    response_mask: torch.Tensor,
    rollout_is: str = "token",
    rollout_is_threshold: float = 2.0,
    rollout_is_batch_normalize: bool = False,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Truncated weights (B, T) of ``log_ratio`` (B, T), 0 outside the mask, and their metrics.

    ``rollout_is``: token or sequence. ``rollout_is_batch_normalize`` divides by their mean (over tokens,
    or over sequences). Raises ``ValueError`` for another level or a threshold that is not positive.
    """
    if rollout_is not in ("token", "sequence"):
        raise ValueError(f"rollout_correction.rollout_is is {rollout_is!r}; known: token, sequence (or null for no weights)")
    if rollout_is_threshold <= 0:
        raise ValueError(f"rollout_correction.rollout_is_threshold must be positive, got {rollout_is_threshold}")
    mask = response_mask.bool()
    raw = _ratios(masked_fill_zero(log_ratio, mask), mask, rollout_is)
    weights = masked_fill_zero(raw.clamp(max=rollout_is_threshold), mask)
    mean = masked_mean(weights, mask)
    metrics = {
        "rollout_is_mean": mean.item(),
        "rollout_is_max": masked_fill_zero(raw, mask).max().item() if mask.any() else 0.0,
        "rollout_is_truncated_fraction": masked_mean((raw > rollout_is_threshold).float(), mask).item(),
        # Kish: (sum w)^2 / (n sum w^2), 1 when all weights are equal
        "rollout_is_eff_sample_size": (mean.square() / masked_mean(weights.square(), mask).clamp(min=1e-12)).item(),
    }
    if rollout_is_batch_normalize and mask.any():
        rows = mask.any(-1)
        norm = mean if rollout_is == "token" else weights[rows].amax(-1).mean()
        weights = weights / norm.clamp(min=1e-8)
    return weights, metrics


@torch.no_grad()
def compute_rollout_rejection_mask(
    log_ratio: torch.Tensor,
    response_mask: torch.Tensor,
    rollout_rs: str = "token",
    rollout_rs_threshold: float | None = 2.0,
    rollout_rs_threshold_lower: float | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """``response_mask`` without what has a ratio outside ``[lower, upper]`` (lower: 1 / upper), and metrics.

    ``rollout_rs``: token rejects tokens, sequence and geometric whole sequences. Raises ``ValueError`` for
    another level and for bounds that are missing, not positive or crossed.
    """
    if rollout_rs not in ("token", "sequence", "geometric"):
        raise ValueError(f"rollout_correction.rollout_rs is {rollout_rs!r}; known: token, sequence, geometric (or null for none)")
    upper, lower = rollout_rs_threshold, rollout_rs_threshold_lower
    if upper is None or upper <= 0:
        raise ValueError(f"rollout_correction.rollout_rs={rollout_rs} needs rollout_rs_threshold > 0, got {upper}")
    lower = 1.0 / upper if lower is None else lower
    if not 0 < lower <= upper:
        raise ValueError(f"rollout_rs_threshold_lower must lie in (0, {upper}], got {lower}")
    mask = response_mask.bool()
    log_bounds = math.log(lower), math.log(upper)
    ratio = _ratios(masked_fill_zero(log_ratio, mask), mask, rollout_rs).log()
    kept = mask & (ratio >= log_bounds[0]) & (ratio <= log_bounds[1])
    rows = mask.any(-1)
    metrics = {
        "rollout_rs_masked_fraction": 1.0 - masked_mean(kept.float(), mask).item() if mask.any() else 0.0,
        "rollout_rs_seq_masked_fraction": ((kept != mask).any(-1) & rows).sum().item() / max(1, int(rows.sum())),
    }
    return kept.to(response_mask.dtype), metrics


@torch.no_grad()
def compute_offpolicy_metrics(
    old_log_prob: torch.Tensor, rollout_log_prob: torch.Tensor, response_mask: torch.Tensor
) -> dict[str, float]:
    """How far trainer and engine are apart: mean and worst difference of log-probability, ``kl`` of the
    rollout policy from the trainer's (k1) and ``k3_kl``, perplexities of both."""
    mask = response_mask.bool()
    difference = masked_fill_zero(old_log_prob, mask) - masked_fill_zero(rollout_log_prob, mask)
    clamped = difference.clamp(-BOUND, BOUND)
    return {
        "logprob_diff_mean": masked_mean(difference.abs(), mask).item(),
        "logprob_diff_max": difference.abs().max().item() if difference.numel() else 0.0,
        "kl": masked_mean(-difference, mask).item(),
        "k3_kl": masked_mean(clamped.exp() - clamped - 1, mask).item(),
        "training_ppl": masked_mean(-old_log_prob, mask).exp().item(),
        "rollout_ppl": masked_mean(-rollout_log_prob, mask).exp().item(),
    }


def compute_rollout_correction_and_rejection_mask(
    old_log_prob: torch.Tensor,
    rollout_log_prob: torch.Tensor,
    response_mask: torch.Tensor,
    rollout_is: str | None = None,
    rollout_is_threshold: float = 2.0,
    rollout_is_batch_normalize: bool = False,
    rollout_rs: str | None = None,
    rollout_rs_threshold: float | None = 2.0,
    rollout_rs_threshold_lower: float | None = None,
) -> tuple[torch.Tensor | None, torch.Tensor, dict[str, float]]:
    """Weights (B, T) or None, the mask to train with, and metrics under ``rollout_corr/``; inputs (B, T).

    Rejection comes first and the weights are of what it left, so that a batch normalisation does not
    see rejected tokens. Put the mask in place of ``response_mask`` before counts are taken.
    """
    log_ratio = (old_log_prob - rollout_log_prob).detach()
    metrics = compute_offpolicy_metrics(old_log_prob, rollout_log_prob, response_mask)
    weights, mask = None, response_mask
    if rollout_rs is not None:
        mask, found = compute_rollout_rejection_mask(
            log_ratio, mask, rollout_rs, rollout_rs_threshold, rollout_rs_threshold_lower
        )
        metrics |= found
    if rollout_is is not None:
        # a sequence's ratio is that of all its tokens, rejected ones included: they were sampled too
        of = response_mask if rollout_is == "sequence" else mask
        weights, found = compute_rollout_correction_weights(
            log_ratio, of, rollout_is, rollout_is_threshold, rollout_is_batch_normalize
        )
        weights = masked_fill_zero(weights, mask)
        metrics |= found
    return weights, mask, {f"rollout_corr/{key}": value for key, value in metrics.items()}


def compute_rollout_correction_and_add_to_batch(data: Any, rollout_corr_config: Any) -> tuple[Any, dict[str, float]]:
    """The above on a DataProto with ``algorithm.rollout_correction``: sets ``rollout_is_weights`` (if asked
    for) and ``response_mask`` of ``data.batch``, from its ``old_log_probs`` and ``rollout_log_probs``.

    A row can lose all its tokens; it stays in the batch and counts as no sequence.
    """
    keys = (
        "rollout_is",
        "rollout_is_threshold",
        "rollout_is_batch_normalize",
        "rollout_rs",
        "rollout_rs_threshold",
        "rollout_rs_threshold_lower",
    )
    given = {key: value for key in keys if (value := config_value(rollout_corr_config, key)) is not None}
    weights, mask, metrics = compute_rollout_correction_and_rejection_mask(
        data.batch["old_log_probs"], data.batch["rollout_log_probs"], data.batch["response_mask"], **given
    )
    if weights is not None:
        data.batch["rollout_is_weights"] = weights
    data.batch["response_mask"] = mask
    return data, metrics
