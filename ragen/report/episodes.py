"""The episodes of a run: a light index of all of them, and which of them a page carries.

A run of 200 steps writes tens of thousands of trajectories. :func:`index_file` reads a file once and
keeps a :class:`Card` of each; :func:`choose` picks the ones worth reading; :func:`read_rows` fetches
those alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ragen.report.outcome import outcome
from ragen.report.runs import ReportError, Run

log = logging.getLogger(__name__)

#: a page cuts longer texts and token lists, and says so
MAX_TEXT, MAX_TOKENS = 8_000, 2_000


@dataclass(frozen=True)
class Card:
    """What a list shows of one episode, and where the rest lies (``offset`` in bytes)."""

    path: Path
    offset: int
    step: int
    phase: str
    tag: str
    opponent: str
    role: str
    group: int
    member: int
    outcome: str
    reward: float
    turns: int
    refused: int
    tokens: bool
    kept: bool
    agent: int

    @property
    def family(self) -> tuple:
        """Episodes of one family met the same start, in the same part of the game."""
        return (self.path, self.group, self.agent)


def index_run(run: Run) -> list[Card]:
    """Cards of every trajectory of the run, by step."""
    ordered = sorted(run.files.items(), key=lambda item: (item[0][1], item[0][0]))
    return [card for _, path in ordered for card in index_file(path)]


def index_file(path: Path) -> tuple[Card, ...]:
    stat = path.stat()
    return _index_file(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _index_file(path: Path, size: int, mtime: int) -> tuple[Card, ...]:
    """``size`` and ``mtime`` make a file that grew be read again (``watch``)."""
    cards, offset = [], 0
    with path.open("rb") as lines:
        for i, line in enumerate(lines):
            if line.strip():
                try:
                    cards.append(_card(path, offset, json.loads(line)))
                except (ValueError, TypeError, KeyError, AttributeError) as fault:
                    if not line.endswith(b"\n"):  # still being written
                        break
                    raise ReportError(f"{path}, line {i + 1}: not a trajectory ({fault!r}); remove the line to report on the rest") from fault
            offset += len(line)
    return tuple(cards)


def _card(path: Path, offset: int, row: dict) -> Card:
    replies = [m for m in row.get("messages") or () if m.get("role") == "assistant"]
    return Card(
        path, offset, int(row["step"]), str(row["phase"]), str(row["tag"]), str(row.get("opponent") or ""), str(row.get("role") or ""),
        int(row.get("group") or 0), int(row.get("member") or 0), outcome(row), float(row.get("reward") or 0.0), len(replies),
        sum(m.get("valid") is False for m in replies), bool((row.get("tokens") or {}).get("text")), bool(row.get("kept", True)), int(row.get("agent") or 0),
    )  # fmt: skip


def read_rows(cards: Sequence[Card]) -> list[dict]:
    """The trajectories of ``cards``, in their order."""
    rows: dict[Card, dict] = {}
    for path in dict.fromkeys(card.path for card in cards):
        with path.open("rb") as file:
            for card in (c for c in cards if c.path == path):
                file.seek(card.offset)
                rows[card] = json.loads(file.readline())
    return [rows[card] for card in cards]


def choose(cards: Iterable[Card], limit: int, keep: Iterable[Card] = ()) -> list[Card]:
    """At most about ``limit`` episodes, in the order of ``cards``: all of ``keep``, and of every
    file an equal number: one with tokens, the best and worst of the group that differs most, the
    best and worst of each task, one of each outcome, then a draw that is the same every time."""
    cards, kept = list(cards), set(keep)
    by_file: dict[Path, list[Card]] = {}
    for card in cards:
        by_file.setdefault(card.path, []).append(card)
    if len(cards) <= limit:
        return cards
    each = max(2, limit // max(1, len(by_file)))
    chosen = set(kept)
    for members in by_file.values():
        chosen.update(list(dict.fromkeys(_worth_reading(members)))[:each])
    return [card for card in cards if card in chosen]


def _worth_reading(cards: list[Card]) -> Iterable[Card]:
    yield from [c for c in cards if c.tokens][:1]
    if pair := widest_pair(cards):
        yield from pair
    for tag in dict.fromkeys(c.tag for c in cards):
        mine = sorted((c for c in cards if c.tag == tag), key=lambda c: c.reward)
        yield from (mine[0], mine[-1])
    yield from {(c.tag, c.outcome): c for c in reversed(cards)}.values()
    yield from [c for c in cards if c.tokens]
    yield from sorted(cards, key=lambda c: hashlib.md5(f"{c.step}/{c.group}/{c.member}".encode(), usedforsecurity=False).digest())


def widest_pair(cards: Iterable[Card]) -> tuple[Card, Card] | None:
    """(best, worst) of the group whose rewards differ most; ``None`` where no group differs."""
    groups: dict[tuple, list[Card]] = {}
    for card in cards:
        if card.outcome != "aborted":
            groups.setdefault(card.family, []).append(card)
    pairs = [(max(g, key=lambda c: c.reward), min(g, key=lambda c: c.reward)) for g in groups.values()]
    best = max(pairs, key=lambda p: p[0].reward - p[1].reward, default=None)
    return best if best and best[0].reward > best[1].reward else None


def page_row(row: dict) -> dict:
    """The part of a trajectory that a page shows, long texts and token lists cut."""
    keys = ("step", "phase", "tag", "group", "member", "seed", "seat", "role", "opponent", "status", "kept", "reward", "success", "turn_rewards", "public")
    out = {key: row.get(key) for key in keys} | {"error": cut(row.get("error"))}
    out["metrics"] = row.get("metrics") or {}
    out["messages"] = [{**m, "content": cut(m.get("content")), "feedback": cut(m.get("feedback"))} for m in row.get("messages") or ()]
    tokens = row.get("tokens") or {}
    if tokens.get("text"):
        n = len(tokens["text"])
        out["tokens"] = {name: list(tokens.get(name) or [])[:MAX_TOKENS] for name in ("text", "trained", "logprob", "advantage")}
        for name in ("logprob", "advantage"):
            out["tokens"][name] = [None if v is None else round(float(v), 4) for v in out["tokens"][name]]
        out["tokens"]["left_out"] = max(0, n - MAX_TOKENS)
    return out


def cut(text: object, limit: int = MAX_TEXT) -> str:
    text = "" if text is None else str(text)
    if len(text) <= limit:
        return text
    return f"{text[: limit * 2 // 3]}\n… {len(text) - limit:,} characters left out …\n{text[-limit // 3 :]}"


def mask_faults(row: dict) -> tuple[int, int]:
    """(tokens trained that were not sampled, tokens sampled that are not trained) of a trajectory
    with tokens: a sampled token is one with a log-probability of the engine."""
    tokens = row.get("tokens") or {}
    pairs = list(zip(tokens.get("trained") or (), tokens.get("logprob") or (), strict=False))
    return sum(bool(t) and p is None for t, p in pairs), sum(not t and p is not None for t, p in pairs)
