"""Named algorithms: advantage estimators and policy losses, as the config selects them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from enum import Enum, StrEnum
from typing import Any


class AdvantageEstimator(StrEnum):
    """Names for ``algorithm.adv_estimator``. A registered estimator need not be listed here."""

    GAE = "gae"
    BI_LEVEL_GAE = "bi_level_gae"
    GRPO = "grpo"
    REINFORCE_PLUS_PLUS = "reinforce_plus_plus"
    REINFORCE_PLUS_PLUS_BASELINE = "reinforce_plus_plus_baseline"
    REMAX = "remax"
    RLOO = "rloo"
    OPO = "opo"
    GRPO_PASSK = "grpo_passk"
    GPG = "gpg"
    GDPO = "gdpo"
    RAE = "rae"
    GRPO_VECTORIZED = "grpo_vectorized"
    RLOO_VECTORIZED = "rloo_vectorized"
    OPTIMAL_TOKEN_BASELINE = "optimal_token_baseline"
    TIR_OPTIMAL_TOKEN_BASELINE = "tir_optimal_token_baseline"


ADV_ESTIMATOR_REGISTRY: dict[str, Callable[..., Any]] = {}
POLICY_LOSS_REGISTRY: dict[str, Callable[..., Any]] = {}


def _name(name_or_enum: str | Enum) -> str:
    return name_or_enum.value if isinstance(name_or_enum, Enum) else name_or_enum


def _find(registry: dict[str, Callable[..., Any]], name: str, what: str) -> Callable[..., Any]:
    if name not in registry:
        near = difflib.get_close_matches(str(name), registry, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{what} is {name!r}, which is not registered{hint} (known: {', '.join(sorted(registry))})")
    return registry[name]


def register_adv_est(name_or_enum: str | AdvantageEstimator) -> Callable[[Callable], Callable]:
    """Decorator: register an advantage estimator. Another function under a taken name is a ``ValueError``."""

    def decorator(fn: Callable) -> Callable:
        name = _name(name_or_enum)
        if ADV_ESTIMATOR_REGISTRY.get(name, fn) is not fn:
            raise ValueError(f"advantage estimator {name!r} is already registered as {ADV_ESTIMATOR_REGISTRY[name]}")
        ADV_ESTIMATOR_REGISTRY[name] = fn
        return fn

    return decorator


def get_adv_estimator_fn(name_or_enum: str | AdvantageEstimator) -> Callable[..., Any]:
    """The estimator of that name: ``fn(token_level_rewards, response_mask, ...) -> (advantages, returns)``,
    all (B, T). Raises ``ValueError`` naming the nearest known one."""
    return _find(ADV_ESTIMATOR_REGISTRY, _name(name_or_enum), "algorithm.adv_estimator")


def register_policy_loss(name: str) -> Callable[[Callable], Callable]:
    """Decorator: register a policy loss; a later one of the same name replaces it, as in VeRL."""

    def decorator(fn: Callable) -> Callable:
        POLICY_LOSS_REGISTRY[name] = fn
        return fn

    return decorator


def get_policy_loss_fn(name: str) -> Callable[..., Any]:
    """The loss of that name: ``fn(old_log_prob, log_prob, advantages, response_mask, loss_agg_mode,
    config, rollout_is_weights) -> (loss, metrics)``. Raises ``ValueError`` naming the nearest known one."""
    return _find(POLICY_LOSS_REGISTRY, name, "actor.policy_loss.loss_mode")
