"""Checks of rollout workers of their own (``actor_rollout_ref.hybrid_engine: false``) and of playing ahead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ragen.trainer.plan import bypasses_old_log_probs, is_split
from verl.utils.config_check import show

Config = Mapping[str, Any]

_HYBRID = "actor_rollout_ref.hybrid_engine"


def check_split(config: Config) -> Iterator[str]:
    """Sizes are given where they are used, and nowhere else."""
    pool = config["rollout"]
    if is_split(config):
        if pool["n_gpus_per_node"] is None:
            yield f"rollout.n_gpus_per_node = null, but {_HYBRID} = false: say how many workers of a machine only play"
        return
    for key, usual in (("nnodes", 1), ("n_gpus_per_node", None)):
        if pool[key] != usual:
            yield (
                f"rollout.{key} = {show(pool[key])} is for workers that only play: set {_HYBRID}=false, or leave it at {show(usual)}"
            )


def check_ahead(config: Config) -> Iterator[str]:
    """Playing ahead needs workers that are free to, and a loss that knows which policy played."""
    algorithm, correction = config["algorithm"], config["algorithm"]["rollout_correction"]
    path = "algorithm.rollout_correction"
    bypass = bypasses_old_log_probs(config)
    if not config["trainer"]["rollout_ahead"]:
        return
    ahead = "trainer.rollout_ahead = 1"
    if not is_split(config):
        yield (
            f"{ahead}: ranks that play and train in one process cannot do both at once; "
            f"set {_HYBRID}=false and rollout.n_gpus_per_node"
        )
    if algorithm["adv_estimator"] == "remax":
        yield f"{ahead}: remax's greedy episodes would be played by another policy than the sampled ones; use rollout_ahead=0"
    if not bypass and not correction["rollout_is"]:
        # with rollout_rs, null would mean false
        bypassing = "" if correction["rollout_rs"] else f"leave {path}.bypass_mode at null (ratios against the policy that played), or "
        yield f"{ahead}: episodes are an update old, and nothing makes up for that; {bypassing}set {path}.rollout_is=token"
    loss = config["actor_rollout_ref"]["actor"]["policy_loss"]["loss_mode"]
    if bypass and loss in ("gpg", "reinforce"):
        yield f"{ahead}: policy_loss.loss_mode = {loss} has no ratio to the policy that played; set {path}.rollout_is=token"
    if loss == "bypass_mode" and correction["loss_type"] == "reinforce" and not correction["rollout_is"]:
        yield f"{ahead}: {path}.loss_type = reinforce weighs nothing by the policy that played; set {path}.rollout_is=token"


CHECKS = (check_split, check_ahead)
