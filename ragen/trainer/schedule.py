"""Which tags a training step plays.

``single`` and ``mixed`` play the same (tag, groups) list every step. ``cst`` (coordinated subtask
training) picks one tag by the step number alone: with ``k_list = [k1, k2, ...]`` the first k1 steps
play task 1, the next k2 task 2, and so on, then from the start again. Rewards and loss know nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ragen.trainer.plan import groups_per_tag


def cst_position(step: int, k_list: Sequence[int]) -> int:
    """Index of the sub-task of training step ``step`` (counted from 1)."""
    place = (step - 1) % sum(k_list)
    for index, k in enumerate(k_list):
        if place < k:
            return index
        place -= k
    raise AssertionError("place is below sum(k_list)")


def plays_of_step(config: Mapping, step: int) -> list[tuple[str, int]]:
    """(tag, number of groups) of training step ``step``, counted from 1."""
    train, schedule = config["es_manager"]["train"], config["schedule"]
    if schedule["type"] == "cst":
        tag = schedule["tags"][cst_position(step, schedule["k_list"])]
        return [(tag, train["env_groups"])]
    return list(groups_per_tag(train).items())


def plays_of_validation(config: Mapping) -> list[tuple[str, int]]:
    """(tag, number of groups) of every validation."""
    return list(groups_per_tag(config["es_manager"]["val"]).items())
