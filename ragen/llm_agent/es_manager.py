"""Which games a step plays: groups of episodes over one seed, dealt to the ranks.

The seed of a group is a pure function of (base seed, phase, step, tag, place), so a resumed run
plays what the run would have played, and nothing has to be saved. Validation leaves the step out:
the same games every time.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ragen.env import Env, make_env
from ragen.env.base import derived_rng
from ragen.llm_agent.episode import EpisodeSpec

TRAIN, VAL = "train", "val"


@dataclass(frozen=True)
class Tag:
    """One entry of ``custom_envs``, split into what builds the env and who sits in its other seats."""

    name: str
    env_type: str
    env_config: dict
    player_info: list[dict]
    max_tokens: int | None = None


def read_tags(custom_envs: Mapping, phase: str) -> dict[str, Tag]:
    """``custom_envs`` of the config as :class:`Tag` objects. ``val_env_config`` is laid over
    ``env_config`` in validation; the sub-tasks of a nest may name tags in ``base_env_list``."""
    tags: dict[str, Tag] = {}

    def read(name: str) -> Tag:
        if name not in tags:
            entry = custom_envs[name]
            config = copy.deepcopy(dict(entry.get("env_config") or {}))
            if phase == VAL:
                config.update(copy.deepcopy(dict(entry.get("val_env_config") or {})))
            players = config.pop("player_info", None) or []
            if "base_env_list" in config:
                config["base_env_list"] = [_sub_task(sub) for sub in config["base_env_list"]]
            tags[name] = Tag(name, entry["env_type"], config, [dict(p) for p in players], entry.get("max_tokens"))
        return tags[name]

    def _sub_task(sub) -> dict:
        if not isinstance(sub, str):
            inner = dict(sub.get("env_config") or {})
            if inner.get("base_env_list"):  # a nest written out within a nest may name tags too
                inner["base_env_list"] = [_sub_task(one) for one in inner["base_env_list"]]
            return {**sub, "env_config": inner} if inner else dict(sub)
        tag = read(sub)
        return {"tag": tag.name, "env_type": tag.env_type, "env_config": {**tag.env_config, "player_info": tag.player_info}}

    for name in custom_envs:
        read(name)
    return tags


def deal_groups(
    *, base_seed: int, phase: str, step: int, tags: Mapping[str, Tag], plays: Sequence[tuple[str, int]], group_size: int
) -> list[list[EpisodeSpec]]:
    """The groups of one step, in order: ``plays`` is a list of (tag, number of groups); a group is
    ``group_size`` episodes with one seed."""
    groups: list[list[EpisodeSpec]] = []
    for name, count in plays:
        for place in range(count):
            key = (base_seed, phase, name, place) if phase == VAL else (base_seed, phase, name, step, place)
            seed = derived_rng(*key).getrandbits(40)
            index = len(groups)
            groups.append([EpisodeSpec(name, tags[name].env_type, index, m, seed) for m in range(group_size)])
    return groups


def deal_to_ranks(groups: Sequence[list[EpisodeSpec]], world_size: int) -> list[list[EpisodeSpec]]:
    """Whole groups, round robin: a group's members share a rank (and so their prefix in its cache),
    and every rank gets some of every tag."""
    return [[spec for group in groups[rank::world_size] for spec in group] for rank in range(world_size)]


def build_env(tag: Tag, success_rates: Mapping[str, float] | None = None) -> Env:
    """A fresh env of ``tag``. ``success_rates``: what the driver remembers of past episodes, frozen
    for the step, for envs that weigh by difficulty."""
    env = make_env(tag.env_type, tag.env_config)
    if success_rates is not None and hasattr(env, "success_rates"):
        env.success_rates = dict(success_rates)
    return env
