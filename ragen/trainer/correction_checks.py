"""Checks of ``algorithm.rollout_correction`` together with the loss and the estimator that read what it gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ragen.trainer.plan import bypasses_old_log_probs
from verl.trainer.ppo.rollout_thresholds import parse_rejection
from verl.utils.verl_keys import TOKEN_BASELINE_ESTIMATORS

Config = Mapping[str, Any]

_PATH = "algorithm.rollout_correction"
_LOSS = "actor_rollout_ref.actor.policy_loss.loss_mode"


def check(config: Config) -> Iterator[str]:
    """One sentence for each fault, with key, value and remedy."""
    correction = config["algorithm"]["rollout_correction"]
    policy_loss = config["actor_rollout_ref"]["actor"]["policy_loss"]
    loss = policy_loss["loss_mode"]
    if policy_loss["rollout_correction"] != correction:
        yield f"actor_rollout_ref.actor.policy_loss.rollout_correction differs from {_PATH}: set that, and leave this as it is"
    if correction["rollout_rs"]:
        try:
            parse_rejection(correction["rollout_rs"], correction["rollout_rs_threshold"], correction["rollout_rs_threshold_lower"])
        except ValueError as error:
            yield f"algorithm.{error}"
    bypass, wanted = bypasses_old_log_probs(config), [key for key in ("rollout_is", "rollout_rs") if correction[key]]
    if loss == "bypass_mode":
        yield from _check_bypass_loss(correction, bypass)
    elif correction["loss_type"] != "ppo_clip":
        yield f"{_PATH}.loss_type = {correction['loss_type']} is read by {_LOSS}=bypass_mode alone, but it is {loss}; set it to bypass_mode"
    elif bypass and wanted:
        yield (
            f"{_PATH}.bypass_mode = true with {wanted[0]} = {correction[wanted[0]]}: the ratio is then against the engine already, "
            f"nothing is left to correct before the update; set one of them to null, or {_LOSS}=bypass_mode to do it in the loss"
        )
    estimator = config["algorithm"]["adv_estimator"]
    if estimator in TOKEN_BASELINE_ESTIMATORS and bypass:
        yield (
            f"algorithm.adv_estimator = {estimator} weighs tokens by the trainer's own probabilities, which bypass_mode does not compute; "
            f"set {_PATH}.bypass_mode=false" + (f" and {_PATH}.rollout_is=token" if config["trainer"]["rollout_ahead"] else "")
        )


def _check_bypass_loss(correction: Mapping[str, Any], bypass: bool) -> Iterator[str]:
    if not bypass:
        yield f"{_LOSS} = bypass_mode takes the engine's log-probabilities for the old ones: set {_PATH}.bypass_mode=true, or another loss"
    if correction["rollout_is_batch_normalize"]:
        yield f"{_PATH}.rollout_is_batch_normalize = true: the loss bypass_mode sees a micro-batch, not the batch; set it to false"
    if correction["loss_type"] == "ppo_clip" and correction["rollout_is"]:
        yield (
            f"{_PATH}.rollout_is = {correction['rollout_is']}: ppo_clip clips the ratio that it would weigh by; set it to null, or "
            f"{_PATH}.loss_type=reinforce"
        )
