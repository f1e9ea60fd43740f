"""KL divergence between the policy and its reference: estimators, controllers, the reward penalty.

For a token sampled from the policy pi, with ``d = log pi - log pi_ref`` (Schulman, "Approximating
KL divergence", joschu.net/blog/kl-approx.html)::

    k1, kl           d                      unbiased, high variance
    abs              |d|
    k2, mse          d^2 / 2                biased, its gradient is the KL's
    k3, low_var_kl   exp(-d) - 1 + d        unbiased, low variance, never negative

As a loss, k1 has zero expected gradient and k3's is that of the reverse divergence. A trailing
``+`` (``k1+``, ``k3+``, ...) keeps the value and takes the gradient of k2, which is the KL's.
"""

from __future__ import annotations

from typing import Any

import torch

from verl.trainer.ppo.config_access import config_value
from verl.utils.torch_functional import masked_mean

_FORMS = {"kl": "k1", "k1": "k1", "abs": "abs", "mse": "k2", "k2": "k2", "low_var_kl": "k3", "k3": "k3"}


def kl_penalty_forward(logprob: torch.Tensor, ref_logprob: torch.Tensor, kl_penalty: str) -> torch.Tensor:
    """The estimator's value a token, with its own gradient (a trailing ``+`` is not read here).

    Inputs and output have one shape. k3 is computed with ``d`` clamped to [-20, 20] and its value to
    at most 10, as VeRL does. Raises ``ValueError`` for ``full`` and for an unknown form.
    """
    if kl_penalty in ("full", "full+"):
        raise ValueError(
            "kl_penalty 'full' sums over the whole vocabulary and needs the logits of both policies; only the "
            "log-probabilities of the sampled tokens are kept here: use 'low_var_kl' (k3), the closest in variance"
        )
    form = _FORMS.get(kl_penalty.removesuffix("+"))
    d = logprob - ref_logprob
    if form == "k1":
        return d
    if form == "abs":
        return d.abs()
    if form == "k2":
        return 0.5 * d.square()
    if form == "k3":
        neg = (-d).clamp(min=-20, max=20)
        return (neg.exp() - neg - 1).clamp(min=-10, max=10)
    raise ValueError(f"unknown kl_penalty {kl_penalty!r} (known: {', '.join(_FORMS)}, each also with a trailing '+')")


def kl_penalty(logprob: torch.Tensor, ref_logprob: torch.Tensor, kl_penalty: str) -> torch.Tensor:
    """KL estimate a token; see the module docstring. ``+`` forms are straight-through: the value of
    the form, the gradient of k2."""
    value = kl_penalty_forward(logprob, ref_logprob, kl_penalty)
    if not kl_penalty.endswith("+"):
        return value
    k2 = 0.5 * (logprob - ref_logprob).square()
    return value.detach() + (k2 - k2.detach())


class FixedKLController:
    """A constant coefficient in ``value``."""

    def __init__(self, kl_coef: float):
        self.value = kl_coef

    def update(self, current_kl: float, n_steps: int) -> None:
        """The coefficient is fixed: nothing to update."""

    def state_dict(self) -> dict[str, float]:
        return {"value": float(self.value)}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """A fixed coefficient is the config's, so that it can be changed on resume: ignores ``state``."""


class AdaptiveKLController:
    """Coefficient steered towards a target KL (Ziegler et al., arXiv:1909.08593, section 2.2)::

        value *= 1 + clip(kl / target - 1, -0.2, 0.2) * n_steps / horizon

    ``n_steps`` counts trajectories, as ``horizon`` does.
    """

    def __init__(self, init_kl_coef: float, target_kl: float, horizon: float):
        if target_kl <= 0 or horizon <= 0:
            raise ValueError(
                f"adaptive KL needs target_kl > 0 and horizon > 0, got {target_kl} and {horizon} (algorithm.kl_ctrl)"
            )
        self.value, self.target, self.horizon = init_kl_coef, target_kl, horizon

    def update(self, current_kl: float, n_steps: int) -> None:
        error = min(max(current_kl / self.target - 1, -0.2), 0.2)
        self.value *= 1 + error * n_steps / self.horizon

    def state_dict(self) -> dict[str, float]:
        return {"value": float(self.value)}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.value = float(state["value"])


def get_kl_controller(kl_ctrl: Any) -> FixedKLController | AdaptiveKLController:
    """The controller that ``algorithm.kl_ctrl`` names: ``type`` fixed or adaptive, ``kl_coef``,
    ``target_kl``, ``horizon``. Raises ``ValueError`` for another type."""
    kind = config_value(kl_ctrl, "type", "fixed")
    coef = config_value(kl_ctrl, "kl_coef", 0.001)
    if kind == "fixed":
        return FixedKLController(coef)
    if kind == "adaptive":
        return AdaptiveKLController(coef, config_value(kl_ctrl, "target_kl", 0.1), config_value(kl_ctrl, "horizon", 10_000))
    raise ValueError(f"algorithm.kl_ctrl.type is {kind!r}; known: fixed, adaptive")


def compute_rewards(
    token_level_scores: torch.Tensor, old_log_prob: torch.Tensor, ref_log_prob: torch.Tensor, kl_ratio: float
) -> torch.Tensor:
    """``scores - kl_ratio * (log pi_old - log pi_ref)``, all (B, T)."""
    return token_level_scores - (old_log_prob - ref_log_prob) * kl_ratio


def apply_kl_penalty(
    data: Any, kl_ctrl: FixedKLController | AdaptiveKLController, kl_penalty: str = "kl"
) -> tuple[Any, dict[str, float]]:
    """KL in the reward: sets ``data.batch["token_level_rewards"]`` to scores less ``kl_ctrl.value``
    times the KL of each sampled token, and updates the controller with the batch's mean KL.

    ``data.batch`` holds ``token_level_scores``, ``old_log_probs``, ``ref_log_prob`` and
    ``response_mask`` (B, T). Returns data and metrics under VeRL's keys.
    """
    mask = data.batch["response_mask"].bool()
    kl = kl_penalty_forward(data.batch["old_log_probs"], data.batch["ref_log_prob"], kl_penalty)
    kl = torch.where(mask, kl, torch.zeros_like(kl))
    coef = kl_ctrl.value
    data.batch["token_level_rewards"] = data.batch["token_level_scores"] - coef * kl
    current = masked_mean(kl, mask, axis=-1)[mask.any(-1)]
    current_kl = float(current.mean()) if len(current) else 0.0
    kl_ctrl.update(current_kl=current_kl, n_steps=len(mask))
    return data, {"actor/reward_kl_penalty": current_kl, "actor/reward_kl_penalty_coeff": coef}
