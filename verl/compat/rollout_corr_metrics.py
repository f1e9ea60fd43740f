"""Metrics of rollout correction as VeRL defines and names them (``verl.trainer.ppo.rollout_corr_helper``).

The trainer here logs fewer, over tokens where VeRL averages rows: ``verl.trainer.ppo.rollout_correction``.
"""

from __future__ import annotations

import torch

from verl.trainer.ppo.rollout_correction import BOUND
from verl.utils.torch_functional import masked_mean, masked_sum


def _check_tokens(response_mask: torch.Tensor) -> torch.Tensor:
    mask = response_mask.bool()
    if not mask.any():
        raise ValueError("response_mask must contain at least one valid token: nothing was sampled, so there is nothing to measure")
    return mask


def _spread(values: torch.Tensor, mask: torch.Tensor, low: float, high: float) -> float:
    """Population deviation of the values under ``mask`` cut to [low, high]; 0 for fewer than two."""
    if int(mask.sum()) < 2:
        return 0.0
    values = values.clamp(min=low, max=high)
    return (masked_mean(values.square(), mask) - masked_mean(values, mask).square()).clamp(min=0).sqrt().item()


def _sample_std(values: torch.Tensor) -> float:
    return values.std().item() if values.numel() > 1 else 0.0


def _share(condition: torch.Tensor) -> float:
    return condition.float().mean().item() if condition.numel() else 0.0


def compute_rs_metrics(
    option_name: str,
    rs_statistic: torch.Tensor,
    response_mask: torch.Tensor,
    seq_valid_mask: torch.Tensor,
    *,
    level: str,
    per_sequence_values: torch.Tensor | None,
    rollout_rs_threshold: float,
    rollout_rs_threshold_lower: float,
    apply_lower_threshold: bool,
) -> dict[str, float]:
    """``rollout_rs_OPTION_{mean, max, min, std, fraction_high, fraction_low, seq_*}`` of one option of rejection.

    Args:
        rs_statistic: (B, T) what is bounded, for every token; ``per_sequence_values``: (B,) for whole sequences, None: means.
        seq_valid_mask: (B,) rows with a token. ``level``: token or sequence.
        rollout_rs_threshold, rollout_rs_threshold_lower: bounds of the statistic, the lower only with ``apply_lower_threshold``.

    Raises:
        ValueError: the mask is empty.
    """
    mask, prefix = _check_tokens(response_mask), f"rollout_rs_{option_name}"
    whole = masked_mean(rs_statistic, mask, -1) if per_sequence_values is None else per_sequence_values
    whole = whole.reshape(len(rs_statistic))[seq_valid_mask.bool()]
    judged = whole if level == "sequence" and whole.numel() else rs_statistic[mask]
    high, low = rollout_rs_threshold, rollout_rs_threshold_lower

    def below(values: torch.Tensor) -> float:
        return _share(values < low) if apply_lower_threshold else 0.0

    metrics = {
        "mean": masked_mean(rs_statistic, mask).item(),
        "max": judged.max().item(),
        "min": judged.min().item(),
        "fraction_high": _share(judged > high),
        "fraction_low": below(judged),
        "std": _spread(rs_statistic, mask, low if apply_lower_threshold else 0.0, high),
    }
    some = whole if whole.numel() else whole.new_zeros(1)
    metrics |= {
        "seq_mean": some.mean().item(),
        "seq_std": _sample_std(some),
        "seq_max": some.max().item(),
        "seq_min": some.min().item(),
        "seq_max_deviation": some.abs().max().item(),
        "seq_fraction_high": _share(whole > high),
    }
    if apply_lower_threshold:
        metrics["seq_fraction_low"] = below(whole)
    return {f"{prefix}_{name}": value for name, value in metrics.items()}


def compute_is_metrics(
    rollout_is_weights: torch.Tensor,
    raw_rollout_is_weights: torch.Tensor,
    log_ratio_for_metrics: torch.Tensor,
    response_mask: torch.Tensor,
    rollout_is: str,
    rollout_is_threshold: float,
    rollout_is_threshold_lower: float | None = None,
) -> dict[str, float]:
    """``rollout_is_{mean, max, min, std, eff_sample_size, ratio_fraction_*, seq_*}`` of importance weights.

    Args:
        rollout_is_weights: (B, T) as applied; ``raw_rollout_is_weights``: (B, T) before they are cut, 0 outside the mask.
        log_ratio_for_metrics: (B, T) of tokens, or (B, 1) of sequences, where max, min and fractions of level ``sequence`` come from.
        rollout_is_threshold_lower: default: the reciprocal of the upper.

    Raises:
        ValueError: the mask is empty.
    """
    mask = _check_tokens(response_mask)
    upper, lower = rollout_is_threshold, rollout_is_threshold_lower
    lower = 1.0 / upper if lower is None else lower
    applied = rollout_is_weights.clamp(min=0.0, max=upper)
    if rollout_is == "sequence":
        ratio = log_ratio_for_metrics
        bounds = torch.tensor([lower, upper], device=ratio.device).log()
        metrics = {
            "max": ratio.max().clamp(max=BOUND).exp().item(),
            "min": ratio.min().exp().item(),
            "ratio_fraction_high": _share(ratio > bounds[1]),
            "ratio_fraction_low": _share(ratio < bounds[0]),
        }
    else:
        metrics = {
            "max": rollout_is_weights[mask].max().item(),
            "min": rollout_is_weights[mask].min().item(),
            "ratio_fraction_high": _share(raw_rollout_is_weights[mask] > upper),
            "ratio_fraction_low": _share(raw_rollout_is_weights[mask] < lower),
        }
    metrics["mean"] = masked_mean(rollout_is_weights, mask).item()
    metrics["std"] = _spread(rollout_is_weights, mask, 0.0, upper)
    relative = applied / (masked_mean(applied, mask) + 1e-8)
    metrics["eff_sample_size"] = 1.0 / masked_mean(relative.square(), mask).item()
    if rollout_is_weights.dim() > 1:
        rows, raw_rows = masked_mean(rollout_is_weights, mask, -1), masked_mean(raw_rollout_is_weights, mask, -1)
        metrics |= {
            "seq_mean": rows.mean().item(),
            "seq_std": _sample_std(rows),
            "seq_max": rows.max().item(),
            "seq_min": rows.min().item(),
            "seq_max_deviation": (rows - 1.0).abs().max().item(),
            "seq_fraction_high": _share(raw_rows > upper),
            "seq_fraction_low": _share(raw_rows < lower),
        }
    return {f"rollout_is_{name}": value for name, value in metrics.items()}


def compute_offpolicy_metrics(
    old_log_prob: torch.Tensor, rollout_log_prob: torch.Tensor | None, response_mask: torch.Tensor
) -> dict[str, float]:
    """Perplexities as means over rows, KL over tokens, chi^2 of tokens and rows: how far trainer and engine are apart.

    Without ``rollout_log_prob`` the trainer's perplexity alone. Raises ``AssertionError`` for an empty mask, as VeRL does.
    """
    mask = response_mask.bool()
    if not mask.any():
        raise AssertionError("response_mask holds no token: nothing was sampled, so there is nothing to measure")
    training = -masked_mean(old_log_prob, mask, -1)
    metrics = {"training_ppl": training.exp().mean(), "training_log_ppl": training.mean()}
    if rollout_log_prob is not None:
        engine = -masked_mean(rollout_log_prob, mask, -1)
        ratio = old_log_prob - rollout_log_prob
        gap = training - engine
        metrics |= {
            "kl": masked_mean(-ratio, mask),
            "k3_kl": masked_mean(ratio.exp() - ratio - 1, mask),
            "rollout_ppl": engine.exp().mean(),
            "rollout_log_ppl": engine.mean(),
            "log_ppl_diff": gap.mean(),
            "log_ppl_abs_diff": gap.abs().mean(),
            "log_ppl_diff_max": gap.max(),
            "log_ppl_diff_min": gap.min(),
            "ppl_ratio": gap.exp().mean(),
            "chi2_token": masked_mean(ratio.clamp(-BOUND, BOUND).exp().square(), mask) - 1,
            "chi2_seq": (2 * masked_sum(ratio, mask, -1).clamp(-BOUND, BOUND)).exp().mean() - 1,
        }
    return {name: value.item() for name, value in metrics.items()}
