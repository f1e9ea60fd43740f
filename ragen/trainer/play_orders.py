"""What each rank is told to play in a step, and what all of them bring back."""

from __future__ import annotations

from collections.abc import Mapping

from omegaconf import OmegaConf

from ragen.llm_agent.episode import Sampling
from ragen.llm_agent.es_manager import TRAIN, VAL, Tag, deal_groups, deal_to_ranks
from ragen.llm_agent.trajectory import Trajectory
from ragen.trainer.schedule import plays_of_step, plays_of_validation
from ragen.workers.playing import PlayOrder

#: of each rank: its trajectories, and what its players counted
Played = list[tuple[list[Trajectory], dict[str, float]]]


def play_orders(
    config, phase: str, step: int, *, tags: Mapping[str, Tag], ranks: int, success_rates: Mapping[str, Mapping[str, float]], greedy: bool = False
) -> list[PlayOrder]:
    """One order a rank: whole groups in turn. ``greedy``: one episode a group, at temperature 0 (ReMax's baseline)."""
    rollout, section, seed = config.actor_rollout_ref.rollout, config.es_manager[phase], int(config.seed[phase])
    plain = OmegaConf.to_container(config, resolve=True)
    plays = plays_of_step(plain, step) if phase == TRAIN else plays_of_validation(plain)
    groups = deal_groups(
        base_seed=seed, phase=phase, step=step, tags=tags, plays=plays, group_size=1 if greedy else section.group_size
    )
    source = rollout if phase == TRAIN else rollout.val_kwargs
    greedy = greedy or (phase == VAL and not rollout.val_kwargs.do_sample)
    sampling = Sampling(
        run_key=(seed if rollout.seed is None else int(rollout.seed), phase, step if phase == TRAIN else 0), max_tokens=rollout.response_length,
        temperature=0.0 if greedy else source.temperature, top_p=source.top_p, top_k=source.top_k,
    )  # fmt: skip
    tp = int(rollout.tensor_model_parallel_size)
    shares = deal_to_ranks(groups, ranks // tp)
    return [PlayOrder(shares[rank // tp] if rank % tp == 0 else [], tags, sampling, success_rates) for rank in range(ranks)]


def collect(played: Played) -> tuple[list[Trajectory], dict[str, float]]:
    """All trajectories in (group, member) order, and what players counted, added up."""
    trajectories = sorted((t for share, _ in played for t in share), key=lambda t: t.key)
    counters: dict[str, float] = {}
    for _, counted in played:
        for name, value in counted.items():
            if name != "seconds":
                counters[f"players/{name}"] = counters.get(f"players/{name}", 0.0) + value
    return trajectories, counters
