"""Games evaluated as they are trained: the same proxy, episodes and prompts, on seeds of their own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ragen.env import Env
from ragen.eval import stats
from ragen.eval.cli import Settings
from ragen.eval.progress import Progress
from ragen.eval.protocol import GIFT
from ragen.eval.results import ResultFiles, digest, versions
from ragen.eval.samples import pick, tell_game
from ragen.llm_agent.episode import EpisodeSpec, Sampling
from ragen.llm_agent.es_manager import Tag, build_env, deal_groups
from ragen.llm_agent.trajectory import ABORTED, Trajectory

logger = logging.getLogger(__name__)

#: training seeds are keyed "train", validation seeds "val" (ragen.llm_agent.es_manager): these meet neither
EVAL = "eval"

#: of each game: ran out of turns, no longer fitted the model
_ENDINGS = ("unfinished", "truncated")
#: where an invalid reply ends a game: that one did
_FORFEIT = "forfeit"


@dataclass(frozen=True)
class GameBenchmark:
    """``scores``: name of a score -> key of a row (0 or 1 each). ``primary`` is the one to compare by.
    ``categories``: of a game, from its freshly reset env and the role of the model. ``protocol`` and ``limits``:
    whose rules of evaluation, and the fields of ``EpisodeLimits`` that they set."""

    name: str
    tag: Tag
    max_turn: int
    scores: Mapping[str, str]
    primary: str
    categories: Callable[[Env, str], dict[str, str]]
    protocol: str = GIFT
    limits: Mapping[str, Any] = field(default_factory=dict)


def evaluate_games(bench: GameBenchmark, games: int, settings: Settings, replier, seats) -> dict[str, Any]:
    """Play ``games`` games and write the result; returns it. ``seats``: the players of the other seats.
    A killed run goes on after its last whole chunk; a finished one is returned as it is."""
    run = _describe(bench, games, settings, replier)
    files = ResultFiles(settings.output, bench.name)
    if known := files.finished(run):
        logger.info("%s: already evaluated, nothing to do (%s)", bench.name, files.result)
        return known
    chunks = files.open_chunks(run)
    specs = _deal(bench.tag, games, settings.seed)
    proxy = replier.proxy(_limits(bench, settings), seats)
    sampling = Sampling(
        (settings.seed, EVAL, bench.name), settings.max_tokens, settings.temperature, settings.top_p, settings.top_k
    )
    size = settings.chunk_size
    progress = Progress(bench.name, games, done=min(games, len(chunks.done) * size))
    for start in range(len(chunks.done) * size, games, size):
        replier.new_chunk()
        started, before = time.perf_counter(), replier.tokens()
        trajectories = proxy.play(
            specs[start : start + size], {bench.tag.name: bench.tag}, sampling, on_done=lambda _: progress.add()
        )
        rows = [_row(bench, t, replier.counts_tokens) for t in trajectories if t.agent == 0]  # in self-play the other seats are opponents
        used = [after - known for after, known in zip(replier.tokens(), before, strict=True)]
        chunks.add({"rows": rows, "tokens": used, "seconds": time.perf_counter() - started})
    progress.close()
    rows = [row for chunk in chunks.done for row in chunk["rows"]]
    result = _summarise(bench, rows, sum(chunk["seconds"] for chunk in chunks.done))
    for place, side in enumerate(("prompt", "reply")):
        result["tokens"][side] += sum(chunk["tokens"][place] for chunk in chunks.done)
    return files.write(run, result, rows, _samples(rows))


def _limits(bench: GameBenchmark, settings: Settings) -> dict[str, Any]:
    """Fields of ``EpisodeLimits``."""
    return {
        "max_turn": settings.max_turn or bench.max_turn, "enable_think": settings.think, "window": settings.window,
        "forfeit_on_invalid": settings.forfeit_on_invalid, **bench.limits,
    }  # fmt: skip


def _describe(bench: GameBenchmark, games: int, settings: Settings, replier) -> dict[str, Any]:
    tag, limits = bench.tag, _limits(bench, settings)
    return {
        "benchmark": bench.name,
        "protocol": bench.protocol,
        "model": replier.identity,
        "data": {"games": games, "env_type": tag.env_type, "env_config": tag.env_config, "opponents": tag.player_info,
                 "hash": digest([tag.env_type, tag.env_config, tag.player_info, settings.seed])},
        "prompt": {"template": "game", "think": settings.think, "system_prompt": settings.system_prompt,
                   **{key: limits[key] for key in ("max_turn", "window", "forfeit_on_invalid")}},
        "sampling": settings.sampling,
        "seed": settings.seed,
        "chunk_size": settings.chunk_size,
        "versions": versions(),
    }  # fmt: skip


def _deal(tag: Tag, games: int, seed: int) -> list[EpisodeSpec]:
    groups = deal_groups(base_seed=seed, phase=EVAL, step=0, tags={tag.name: tag}, plays=[(tag.name, games)], group_size=1)
    return [group[0] for group in groups]


def _row(bench: GameBenchmark, trajectory: Trajectory, counts_tokens: bool) -> dict[str, Any]:
    env = build_env(bench.tag)
    env.reset(seed=trajectory.seed)
    turns, aborted = trajectory.turns, trajectory.status == ABORTED
    row: dict[str, Any] = {
        "id": trajectory.group,
        "seed": trajectory.seed,
        "categories": bench.categories(env, trajectory.role),
        "role": trajectory.role,
        "opponent": trajectory.opponent,
        "status": trajectory.status,
        "success": None if aborted else int(trajectory.success),
        "reward": trajectory.reward,
        "turns": len(turns),
        "refused": sum(not turn.valid for turn in turns),
        "cut": sum(turn.cut_at_limit for turn in turns),
        "prompt_tokens": sum(turn.start for turn in turns) if counts_tokens else None,
        "reply_tokens": sum(turn.sampled_tokens for turn in turns) if counts_tokens else None,
    }
    names = {*bench.scores.values(), *_ENDINGS, _FORFEIT}
    row |= {
        name: None if aborted else int(trajectory.metrics[name])
        for name in sorted(names - {"success"})
        if name in trajectory.metrics
    }
    if trajectory.error:
        row["error"] = trajectory.error
    row["replies"] = [{"text": turn.reply, "valid": turn.valid, "feedback": turn.feedback} for turn in turns]
    row["messages"] = trajectory.messages
    return row


def _summarise(bench: GameBenchmark, rows: Sequence[Mapping[str, Any]], seconds: float) -> dict[str, Any]:
    played = [row for row in rows if row["status"] != ABORTED]
    kinds = sorted({kind for row in rows for kind in row["categories"]})
    return {
        "primary": bench.primary,
        "counts": {"games": len(rows), "played": len(played), "aborted": len(rows) - len(played),
                   "turns": sum(row["turns"] for row in played), "refused_turns": sum(row["refused"] for row in played),
                   "cut_replies": sum(row["cut"] for row in played)},
        "scores": _scores(bench, played),
        "by_category": {kind: _by_category(bench, played, kind) for kind in kinds},
        "reward": stats.mean([row["reward"] for row in played]),
        "tokens": {key: sum(row[f"{key}_tokens"] or 0 for row in rows) for key in ("prompt", "reply")},
        "seconds": seconds,
    }  # fmt: skip


def _scores(bench: GameBenchmark, played: Sequence[Mapping[str, Any]]) -> dict[str, dict]:
    """``invalid`` is the share of turns refused; its interval takes turns as independent, which turns of
    one game are not quite. A game that has not ended well counts in its ending and as no success."""
    scores = {name: stats.share(sum(row.get(key, 0) for row in played), len(played)) for name, key in bench.scores.items()}
    scores["invalid"] = stats.share(sum(row["refused"] for row in played), sum(row["turns"] for row in played))
    for name in (*_ENDINGS, *([_FORFEIT] if any(_FORFEIT in row for row in played) else [])):
        scores[name] = stats.share(sum(row.get(name, 0) for row in played), len(played))
    return scores


def _by_category(bench: GameBenchmark, played: Sequence[Mapping[str, Any]], kind: str) -> dict[str, dict]:
    names = sorted({row["categories"][kind] for row in played})
    return {name: _scores(bench, [row for row in played if row["categories"][kind] == name]) for name in names}


def _samples(rows: Sequence[Mapping[str, Any]]) -> str:
    kinds = {
        "success": [row for row in rows if row["success"]],
        "no success": [row for row in rows if row["success"] == 0 and not row["refused"]],
        "with refused replies": [row for row in rows if row["refused"]],
        "aborted": [row for row in rows if row["status"] == ABORTED],
    }
    return pick(kinds, tell_game)
