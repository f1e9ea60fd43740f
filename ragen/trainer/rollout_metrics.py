"""Numbers of a set of trajectories: success by task and opponent, reward, length, how episodes ended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ragen.llm_agent.trajectory import ABORTED, Trajectory


def task_metrics(trajectories: Sequence[Trajectory], prefix: str) -> dict[str, float]:
    """``prefix/TAG/...``: success, reward, turns, unfinished, truncated, aborted, whatever the game
    reports, ``invalid`` (refused turns over all turns), and success by opponent. Aborted episodes
    count in ``aborted`` alone."""
    by_tag: dict[str, list[Trajectory]] = defaultdict(list)
    for t in trajectories:
        by_tag[t.tag].append(t)
    metrics: dict[str, float] = {}
    for tag, members in by_tag.items():
        base = f"{prefix}/{tag}"
        played = [t for t in members if t.status != ABORTED]
        metrics[f"{base}/aborted"] = 1.0 - len(played) / len(members)
        metrics[f"{base}/episodes"] = float(len({t.key[:2] for t in members}))  # self-play has several trajectories in one
        if not played:
            continue
        metrics[f"{base}/success"] = float(np.mean([t.success for t in played]))
        metrics[f"{base}/reward"] = float(np.mean([t.reward for t in played]))
        for name in sorted({name for t in played for name in t.metrics} - {"aborted", "invalid"}):
            metrics[f"{base}/{name}"] = float(np.mean([t.metrics[name] for t in played if name in t.metrics]))
        metrics[f"{base}/invalid"] = _refused_share(played)
        for opponent in sorted({t.opponent for t in played if t.opponent}):
            wins = [t.success for t in played if t.opponent == opponent]
            metrics[f"{base}/opponent/{opponent}/success"] = float(np.mean(wins))
    return metrics


def rollout_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """``rollout/...`` over all tasks of a training step."""
    played = [t for t in trajectories if t.status != ABORTED]
    turns = [turn for t in played for turn in t.turns]
    lengths = [turn.sampled_tokens for turn in turns]
    groups: dict[tuple, list[float]] = defaultdict(list)
    for t in played:
        groups[t.group, t.agent].append(t.reward)
    spread = [float(np.std(rewards)) for rewards in groups.values()]
    return {
        "rollout/episodes": float(len({t.key[:2] for t in trajectories})),
        "rollout/reward_mean": float(np.mean([t.reward for t in played])) if played else 0.0,
        "rollout/reward_std_in_group": float(np.mean(spread)) if spread else 0.0,
        "rollout/groups_with_signal": float(sum(s > 1e-10 for s in spread)),
        "rollout/groups_total": float(len(groups)),
        "rollout/response_length": float(np.mean(lengths)) if lengths else 0.0,
        "rollout/cut_at_limit": float(np.mean([turn.cut_at_limit for turn in turns])) if turns else 0.0,
        "rollout/thought_cut": float(np.mean([turn.given > 0 for turn in turns])) if turns else 0.0,
        "rollout/invalid": _refused_share(played),
        "rollout/truncated": float(np.mean([t.status == "truncated" for t in trajectories])) if trajectories else 0.0,
        "rollout/aborted": 1.0 - len(played) / len(trajectories) if trajectories else 0.0,
        "rollout/gen_tokens": float(sum(lengths)),
    }


def _refused_share(trajectories: Sequence[Trajectory]) -> float:
    turns = [turn.valid for t in trajectories for turn in t.turns]
    return 1.0 - float(np.mean(turns)) if turns else 0.0
