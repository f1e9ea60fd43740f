"""Rollout correction with VeRL's arguments and results (``verl.trainer.ppo.rollout_corr_helper``).

The same weights and masks as ``verl.trainer.ppo.rollout_correction``, whose options ``token``, ``sequence`` and ``geometric``
are taken as well. As in VeRL, weights are those of the whole mask and stay on rejected tokens, whose mask is 0; the trainer
here takes weights of what rejection left.
"""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig, open_dict

from verl.compat.rollout_corr_metrics import compute_is_metrics, compute_offpolicy_metrics, compute_rs_metrics
from verl.protocol import DataProto
from verl.trainer.ppo.config_access import config_value
from verl.trainer.ppo.rollout_correction import BOUND, bounded_weights, kept_by, log_ratio_of, mean_weight, raw_weights, rejection_statistic
from verl.trainer.ppo.rollout_thresholds import RS_OPTIONS, parse_rejection, parse_weights
from verl.utils.torch_functional import masked_mean

SAFETY_BOUND = BOUND
SUPPORTED_ROLLOUT_RS_OPTIONS = {name for name, (_, form) in RS_OPTIONS.items() if form != "ratio"}
TOKEN_LEVEL_ROLLOUT_RS_OPTIONS = {name for name in SUPPORTED_ROLLOUT_RS_OPTIONS if RS_OPTIONS[name][0] == "token"}

_SETTINGS = ("rollout_is", "rollout_is_threshold", "rollout_is_batch_normalize", "rollout_rs", "rollout_rs_threshold")


@torch.no_grad()
def compute_rollout_rejection_mask(
    log_ratio: torch.Tensor,
    response_mask: torch.Tensor,
    rollout_rs: str = "token_k1",
    rollout_rs_threshold: str | float | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """``response_mask`` (B, T) without what fails any option of ``rollout_rs``, and VeRL's metrics of each option.

    Raises ``ValueError`` for what ``rollout_thresholds.parse_rejection`` refuses.
    """
    if not isinstance(rollout_rs, str):
        raise ValueError(f"rollout_rs must be a string, one option or several with commas between, got {rollout_rs!r}")
    criteria = parse_rejection(rollout_rs, rollout_rs_threshold)
    mask, metrics = response_mask.bool(), {}
    if not len(mask):
        return response_mask, {}
    rows, kept = mask.any(-1), mask
    for criterion in criteria:
        statistic = rejection_statistic(log_ratio, mask, criterion)
        keeps = kept_by(statistic, criterion).expand_as(mask)
        whole = None if criterion.level == "token" else statistic.squeeze(-1)
        two_sided = criterion.form in ("ratio", "k1")
        metrics |= compute_rs_metrics(
            criterion.option, statistic.expand_as(log_ratio), mask, rows, level="token" if whole is None else "sequence",
            per_sequence_values=whole, rollout_rs_threshold=criterion.high, apply_lower_threshold=two_sided,
            rollout_rs_threshold_lower=criterion.low if two_sided else 0.0,
        )  # fmt: skip
        name, hit = f"rollout_rs_{criterion.option}", (mask & ~keeps).any(-1)
        metrics[f"{name}_masked_fraction"] = masked_mean((~keeps).float(), mask).item()
        metrics[f"{name}_seq_masked_fraction"] = hit[rows].float().mean().item()
        kept = kept & keeps
    metrics["rollout_rs_masked_fraction"] = masked_mean((~kept).float(), mask).item()
    metrics["rollout_rs_seq_masked_fraction"] = (mask & ~kept).any(-1).float().mean().item()
    return kept.to(response_mask.dtype), metrics


@torch.no_grad()
def compute_rollout_correction_weights(
    log_ratio: torch.Tensor,
    response_mask: torch.Tensor,
    rollout_is: str = "token",
    rollout_is_threshold: str | float = 2.0,
    rollout_is_batch_normalize: bool = False,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Importance weights (B, T), 0 outside the mask, and VeRL's metrics of them before they are normalised.

    Their mean, for ``rollout_is_batch_normalize``, is taken over all ranks where a process group is up.
    Raises ``ValueError`` for an unknown level or a wrong threshold, ``TypeError`` for a boolean one.
    """
    if rollout_is not in ("token", "sequence"):
        raise ValueError(f"rollout_is is {rollout_is!r}; known: token, sequence")
    upper, lower = parse_weights(rollout_is_threshold)
    mask = response_mask.bool()
    raw = raw_weights(log_ratio, mask, rollout_is)
    weights = bounded_weights(raw, upper, lower)
    ratio = log_ratio_of(log_ratio, mask, rollout_is)
    metrics = compute_is_metrics(
        weights, raw, ratio if rollout_is == "token" else ratio[:, :1], mask, rollout_is, upper, lower
    )
    if lower is not None:
        metrics["rollout_is_oob_ratio"] = masked_mean(((raw < lower) | (raw > upper)).float(), mask).item()
    if rollout_is_batch_normalize:
        mean = _mean_over_ranks(weights, mask, rollout_is)
        usable = bool(mean > 1e-8)
        weights = weights / mean if usable else weights
        metrics["rollout_is_batch_norm_factor"] = mean.item() if usable else 1.0
    return weights, metrics


def _mean_over_ranks(weights: torch.Tensor, mask: torch.Tensor, level: str) -> torch.Tensor:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return mean_weight(weights, mask, level)
    from verl.compat.tensors import distributed_masked_mean

    if level == "token":
        return distributed_masked_mean(weights, mask)
    return distributed_masked_mean(masked_mean(weights, mask, -1), mask.any(-1))


def compute_rollout_correction_and_rejection_mask(
    old_log_prob: torch.Tensor,
    rollout_log_prob: torch.Tensor,
    response_mask: torch.Tensor,
    rollout_is: str | None = None,
    rollout_is_threshold: str | float | None = 2.0,
    rollout_is_batch_normalize: bool = False,
    rollout_rs: str | None = None,
    rollout_rs_threshold: str | float | None = None,
) -> tuple[DataProto | None, torch.Tensor, dict[str, float]]:
    """A DataProto with ``rollout_is_weights`` (None without ``rollout_is``), the mask after rejection and metrics under
    ``rollout_corr/``; inputs are (B, T).

    Raises ``ValueError`` for shapes that differ, an empty mask and wrong settings.
    """
    shapes = [tuple(tensor.shape) for tensor in (old_log_prob, rollout_log_prob, response_mask)]
    if len(set(shapes)) != 1:
        raise ValueError(f"old_log_prob, rollout_log_prob and response_mask must have one shape (B, T), got {shapes}")
    if not response_mask.any():
        raise ValueError("response_mask must contain at least one valid token")
    log_ratio, weights, mask, metrics = old_log_prob - rollout_log_prob, None, response_mask.clone(), {}
    if rollout_is is not None and rollout_is_threshold is not None:
        weights, metrics = compute_rollout_correction_weights(
            log_ratio, response_mask, rollout_is, rollout_is_threshold, rollout_is_batch_normalize
        )
    if rollout_rs is not None:
        mask, found = compute_rollout_rejection_mask(log_ratio, response_mask, rollout_rs, rollout_rs_threshold)
        metrics |= found
    metrics |= compute_offpolicy_metrics(old_log_prob, rollout_log_prob, response_mask)
    proto = None if weights is None else DataProto.from_dict(tensors={"rollout_is_weights": weights})
    return proto, mask, {f"rollout_corr/{name}": value for name, value in metrics.items()}


def compute_rollout_correction_and_add_to_batch(batch: DataProto, rollout_corr_config: Any) -> tuple[DataProto, dict[str, float]]:
    """The above with the settings of a config section: sets ``response_mask`` of ``batch`` and, where asked for, ``rollout_is_weights``."""
    settings = {name: value for name in _SETTINGS if (value := config_value(rollout_corr_config, name)) is not None}
    tensors = batch.batch
    proto, mask, metrics = compute_rollout_correction_and_rejection_mask(
        tensors["old_log_probs"], tensors["rollout_log_probs"], tensors["response_mask"], **settings
    )
    batch.batch["response_mask"] = mask
    return batch if proto is None else batch.union(proto), metrics


def compute_rollout_corr_metrics_from_logprobs(
    log_prob: torch.Tensor, rollout_log_prob: torch.Tensor, response_mask: torch.Tensor
) -> dict[str, float]:
    """:func:`compute_offpolicy_metrics` of the current policy, under ``rollout_corr/``."""
    found = compute_offpolicy_metrics(log_prob, rollout_log_prob, response_mask)
    return {f"rollout_corr/{name}": value for name, value in found.items()}


def apply_bypass_mode(batch: DataProto, rollout_corr_config: Any = None, policy_loss_config: Any = None) -> None:
    """Take the engine's log-probabilities for the old ones, and set ``policy_loss_config`` to the loss ``bypass_mode``.

    Raises ``ValueError`` where the batch has no ``rollout_log_probs``.
    """
    if "rollout_log_probs" not in batch.batch.keys():
        raise ValueError("bypass_mode needs rollout_log_probs in the batch: keep the engine's (rollout.calculate_log_probs=true in VeRL)")
    batch.batch["old_log_probs"] = batch.batch["rollout_log_probs"]
    settings = {"rollout_correction": rollout_corr_config, "loss_mode": "bypass_mode"}
    if isinstance(policy_loss_config, DictConfig):
        with open_dict(policy_loss_config):
            policy_loss_config.update(settings)
    elif isinstance(policy_loss_config, dict):
        policy_loss_config.update(settings)
    else:
        for name, value in settings.items():
            setattr(policy_loss_config, name, value)
