"""Episodes as readable JSON lines: ``RUN/trajectories/{train,val}_step_000040.jsonl``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ragen.env.base import derived_rng
from ragen.llm_agent.trajectory import Sample, Trajectory


class TrajectoryLog:
    """Writes the episodes of a step. ``tokens_of``: how many episodes a file carry their tokens
    (text, trained or not, log-probability, advantage) besides their messages."""

    def __init__(self, folder: str | os.PathLike, decode_token, *, tokens_of: int = 8):
        self.folder, self.decode_token, self.tokens_of = Path(folder) / "trajectories", decode_token, tokens_of

    def write(
        self, step: int, phase: str, trajectories: Sequence[Trajectory], *, kept: set[int] | None = None,
        advantages: Mapping[int, list[list[float]]] | None = None,
    ) -> None:  # fmt: skip
        """``kept``: positions that the update uses (``None``: all); ``advantages``: position -> for each
        sample one value a token after the first, (T-1)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / f"{phase}_step_{step:06d}.jsonl"
        beside = target.with_suffix(".tmp")
        shown = sorted(kept)[: self.tokens_of] if kept else range(self.tokens_of)
        with beside.open("w", encoding="utf-8") as file:
            for i, t in enumerate(trajectories):
                row = {"step": step, "phase": phase, **self._row(t), "kept": kept is None or i in kept}
                row["tokens"] = self._tokens(t, (advantages or {}).get(i)) if i in shown else None
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        beside.replace(target)

    def cut_after(self, step: int) -> None:
        """Remove files of steps after ``step`` (a resumed run plays them anew)."""
        for path in self.folder.glob("*_step_*.jsonl"):
            if int(path.stem.rsplit("_", 1)[1]) > step:
                path.unlink()

    def _row(self, t: Trajectory) -> dict:
        turns = t.turns
        return {
            "tag": t.tag, "group": t.group, "member": t.member, "agent": t.agent, "seed": t.seed, "seat": t.seat,
            "role": t.role, "opponent": t.opponent, "status": t.status, "error": t.error, "reward": round(t.reward, 6),
            "success": t.success, "metrics": t.metrics, "turn_rewards": [round(turn.reward, 6) for turn in turns],
            "messages": _messages(t), "public": [turn.public for turn in turns],
        }  # fmt: skip

    def _tokens(self, t: Trajectory, advantages: list[list[float]] | None) -> dict:
        merged: dict[str, list] = {"text": [], "trained": [], "logprob": [], "advantage": []}
        for k, sample in enumerate(t.samples):
            per_token = [None, *advantages[k]] if advantages else [None] * len(sample.ids)
            self._add_sample(merged, sample, per_token)
        return merged

    def _add_sample(self, merged: dict[str, list], sample: Sample, per_token: Sequence) -> None:
        columns = zip(sample.ids, sample.mask, sample.trained(), sample.logprobs, per_token, strict=False)
        for token, sampled, trained, logprob, advantage in columns:
            merged["text"].append(self.decode_token(token))
            merged["trained"].append(int(trained))
            merged["logprob"].append(round(logprob, 4) if sampled else None)
            merged["advantage"].append(round(advantage, 4) if trained and advantage is not None else None)


def sample_generations(trajectories: Sequence[Trajectory], count: int, seed: int) -> list[tuple[str, str, float]]:
    """``(input, output, score)`` of at most ``count`` episodes, for ``trainer.log_val_generations``: what the
    policy was given first, all that was said from its first reply on, and the reward. A validation plays the same
    games each time, and the same of them are chosen."""
    places = range(len(trajectories))
    chosen = sorted(derived_rng(seed, "val_generations").sample(places, count)) if count < len(trajectories) else places
    return [(*_given_and_said(trajectories[i].messages), float(trajectories[i].reward)) for i in chosen]


def _given_and_said(messages: Sequence[Mapping]) -> tuple[str, str]:
    first = next((i for i, m in enumerate(messages) if m["role"] == "assistant"), len(messages))
    texts = [f"{m['role']}: {m['content']}" for m in messages]
    return "\n".join(texts[:first]), "\n".join(texts[first:])


def _messages(t: Trajectory) -> list[dict]:
    out, turn = [], 0
    turns = t.turns
    for message in t.messages:
        row = {"role": message["role"], "content": message["content"], "turn": turn, "valid": None, "feedback": "", "reward": None}
        if message["role"] == "assistant" and turn < len(turns):
            row.update(valid=turns[turn].valid, feedback=turns[turn].feedback, reward=round(turns[turn].reward, 6))
            turn += 1
        out.append(row)
    return out
