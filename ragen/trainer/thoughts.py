"""Which tokens of a reply are its reasoning, and which of a step's are looked at.

As RAGEN cuts them: the prompt is all that stands before the thought, ``<think>`` included; the reasoning
is what stands between the tags, neither included. Tags are found in the text of the tokens, so any
tokenization of them will do; a token that holds a part of a tag counts as the tag. Where the generation prompt opens
the thought, it begins with the reply.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ragen.llm_agent.trajectory import Sample, Trajectory, Turn

_OPEN, _CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class Thought:
    """``tokens``: of one reasoning, at least one. ``prompt``: all tokens before it. ``asked``: those of them
    that the policy was given (not what it said before its thought): thoughts asked alike share a prompt."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    asked: tuple[int, ...]


def thought_of(sample: Sample, turn: Turn, decode_token: Callable[[int], str]) -> Thought | None:
    """The reasoning of one reply; ``None`` where it has none, or an empty one."""
    reply = sample.ids[turn.start : turn.end]
    text, ends = "", []
    for token in reply:
        text += decode_token(token)
        ends.append(len(text))
    opened = 0 if turn.opening else text.find(_OPEN)
    if opened < 0:
        return None
    closed = text.find(_CLOSE, opened)
    begin = 0 if turn.opening else next(i for i, end in enumerate(ends) if end >= opened + len(_OPEN)) + 1
    stop = len(reply) if closed < 0 else next(i for i, end in enumerate(ends) if end > closed)
    if stop <= begin:
        return None
    at = turn.start + begin
    return Thought(tuple(sample.ids[:at]), tuple(reply[begin:stop]), tuple(sample.ids[: turn.start]))


def all_thoughts(trajectories: Sequence[Trajectory], decode_token: Callable[[int], str]) -> list[list[Thought | None]]:
    """One list a trajectory, one entry a turn."""
    return [[thought_of(s, turn, decode_token) for s in t.samples for turn in s.turns] for t in trajectories]


def first_turns(thoughts: Sequence[Sequence[Thought | None]], count: int, rng: random.Random) -> list[Thought]:
    """At most ``count`` first thoughts, each trajectory as likely as any other."""
    found = [turns[0] for turns in thoughts if turns and turns[0] is not None]
    return rng.sample(found, count) if len(found) > count else found


def any_turns(thoughts: Sequence[Sequence[Thought | None]], count: int, rng: random.Random) -> list[Thought]:
    """``count`` draws of a trajectory and a turn of it, both uniform (RAGEN's trajectory-uniform sampling);
    what is drawn twice is there once."""
    having = [kept for turns in thoughts if (kept := [t for t in turns if t is not None])]
    return list(dict.fromkeys(rng.choice(rng.choice(having)) for _ in range(count))) if having else []
