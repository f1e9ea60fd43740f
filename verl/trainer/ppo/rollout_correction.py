"""The engine that sampled and the trainer that learns disagree a little about every log-probability
(kernels, precision, stale weights). Importance weights make up for it, rejection leaves out what is
beyond repair. With ``d_t = log pi_old - log pi_rollout`` of a sampled token, the ratio is

    token       exp(d_t)
    sequence    exp(sum_t d_t)        unbiased for the sequence, of high variance
    geometric   exp(mean_t d_t)       rejection only: does not grow with the length

Truncated importance sampling (Yao et al. 2025, "Your efficient RL framework secretly brings you
off-policy RL training") weighs each token's loss by ``min(ratio, threshold)``; rejection takes tokens or
whole sequences out of the mask, by these ratios or VeRL's other options (``rollout_thresholds``). Everything
here runs on the whole batch before it is cut, and the counts for ``agg_loss`` are taken from the mask it
returns, so that a rejected token is never counted. A sequence is a row of the tensors that are given.
"""

from __future__ import annotations

from typing import Any

import torch

from verl.trainer.ppo.config_access import config_value
from verl.trainer.ppo.rollout_thresholds import Criterion, parse_rejection, parse_weights
from verl.utils.torch_functional import masked_fill_zero, masked_mean, masked_sum

BOUND = 20.0  # log-ratios are clamped to +-20 before exp


def log_ratio_of(log_ratio: torch.Tensor, mask: torch.Tensor, level: str) -> torch.Tensor:
    """``log_ratio`` (B, T) of each token, or its sum over each row's tokens (level ``sequence``)."""
    if level == "token":
        return log_ratio
    return masked_sum(log_ratio, mask, -1).unsqueeze(-1).expand_as(log_ratio)


def raw_weights(log_ratio: torch.Tensor, mask: torch.Tensor, level: str) -> torch.Tensor:
    """exp of :func:`log_ratio_of` clamped to +-20, (B, T), 0 outside the mask."""
    return masked_fill_zero(log_ratio_of(masked_fill_zero(log_ratio, mask), mask, level).clamp(-BOUND, BOUND).exp(), mask)


def bounded_weights(raw: torch.Tensor, upper: float, lower: float | None) -> torch.Tensor:
    """Weights above ``upper`` cut to it; with ``lower`` those outside the two are 0 (IcePop, arXiv:2510.18855)."""
    return raw.clamp(max=upper) if lower is None else torch.where((raw >= lower) & (raw <= upper), raw, 0.0)


def mean_weight(weights: torch.Tensor, mask: torch.Tensor, level: str) -> torch.Tensor:
    """Mean over tokens, or over the rows that have one (level ``sequence``)."""
    if level == "token":
        return masked_mean(weights, mask)
    return masked_mean(masked_mean(weights, mask, -1), mask.any(-1))


@torch.no_grad()
def compute_rollout_correction_weights(
    log_ratio: torch.Tensor,
    response_mask: torch.Tensor,
    rollout_is: str = "token",
    rollout_is_threshold: str | float = 2.0,
    rollout_is_batch_normalize: bool = False,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Truncated weights (B, T) of ``log_ratio`` (B, T), 0 outside the mask, and their metrics.

    ``rollout_is``: token or sequence. ``rollout_is_threshold``: a number to cut weights at, or "LOWER_UPPER" outside
    which they are 0. ``rollout_is_batch_normalize`` divides by their mean (over tokens, or over sequences).
    Raises ``ValueError`` for another level or a threshold that is not positive.
    """
    if rollout_is not in ("token", "sequence"):
        raise ValueError(f"rollout_correction.rollout_is is {rollout_is!r}; known: token, sequence (or null for no weights)")
    upper, lower = parse_weights(rollout_is_threshold)
    mask = response_mask.bool()
    raw = raw_weights(log_ratio, mask, rollout_is)
    weights = bounded_weights(raw, upper, lower)
    mean = masked_mean(weights, mask)
    outside = (raw > upper) if lower is None else (raw > upper) | (raw < lower)
    metrics = {
        "rollout_is_mean": mean.item(),
        "rollout_is_max": raw.max().item() if mask.any() else 0.0,
        "rollout_is_truncated_fraction": masked_mean(outside.float(), mask).item(),
        # Kish: (sum w)^2 / (n sum w^2), 1 when all weights are equal
        "rollout_is_eff_sample_size": (mean.square() / masked_mean(weights.square(), mask).clamp(min=1e-12)).item(),
    }
    if rollout_is_batch_normalize and mask.any():
        weights = weights / mean_weight(weights, mask, rollout_is).clamp(min=1e-8)
    return weights, metrics


def rejection_statistic(log_ratio: torch.Tensor, mask: torch.Tensor, criterion: Criterion) -> torch.Tensor:
    """What ``criterion`` bounds, of ``log_ratio`` (B, T) under the bool ``mask``: (B, T), or (B, 1) for a whole sequence
    (0 for a row without a token)."""
    d = masked_fill_zero(log_ratio, mask).clamp(-BOUND, BOUND)
    value = {"ratio": lambda: d, "k1": lambda: -d, "k2": lambda: 0.5 * d.square(), "k3": lambda: d.exp() - 1 - d}[criterion.form]()
    if criterion.level == "token":
        return value
    if criterion.level == "max":  # k2 and k3 are never below 0, which is what unsampled positions hold
        return value.amax(-1, keepdim=True)
    reduce = masked_sum if criterion.level == "sum" else masked_mean
    return reduce(value, mask, -1).unsqueeze(-1)


def kept_by(statistic: torch.Tensor, criterion: Criterion) -> torch.Tensor:
    return (statistic >= criterion.low) & (statistic <= criterion.high)


@torch.no_grad()
def compute_rollout_rejection_mask(
    log_ratio: torch.Tensor,
    response_mask: torch.Tensor,
    rollout_rs: str = "token",
    rollout_rs_threshold: str | float | None = 2.0,
    rollout_rs_threshold_lower: float | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """``response_mask`` without what fails any option of ``rollout_rs``, and metrics.

    Options and thresholds: see ``rollout_thresholds``, whose ``ValueError`` this raises. Each option judges the whole
    ``response_mask``, whatever the others reject. Where there are several, the share each rejects is told by its name.
    """
    criteria = parse_rejection(rollout_rs, rollout_rs_threshold, rollout_rs_threshold_lower)
    mask = response_mask.bool()
    kept, metrics = mask, {}
    for criterion in criteria:
        keeps = kept_by(rejection_statistic(log_ratio, mask, criterion), criterion).expand_as(mask)
        kept = kept & keeps
        if len(criteria) > 1:
            metrics[f"rollout_rs_{criterion.option}_masked_fraction"] = masked_mean((~keeps).float(), mask).item()
    rows = mask.any(-1)
    metrics |= {
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
    rollout_is_threshold: str | float = 2.0,
    rollout_is_batch_normalize: bool = False,
    rollout_rs: str | None = None,
    rollout_rs_threshold: str | float | None = 2.0,
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
