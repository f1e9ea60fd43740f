"""What a player of mixed skill replies in each game: when it looks (thought ``look``) and when it guesses.

Looking is right, or as good as a short rule makes it; guessing is any answer of the right kind. A reply
is (thought, answer, choices): ``choices`` are all answers that it might have given with that thought,
equally likely, and empty where there is no telling them.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from ragen.env.base import Env
from ragen.env.math_lv3to5.rules import Exercise, solve
from ragen.env.tictactoe import rules as ttt
from ragen.env.undercover.spoken import says_word
from ragen.players.undercover import VAGUE, UndercoverSpeaker
from scripts.starter.tictactoe_transcripts import choose

LOOK, GUESS = "look", "guess"


class Said(NamedTuple):
    thought: str
    answer: str
    choices: tuple[str, ...] = ()


def teach(env_type: str, env: Env, seat: int, look: bool, rng: random.Random) -> Said:
    """The reply of the player in ``seat``. ``env``: the game itself, not a nest around it."""
    return _TEACHERS[env_type](env, seat, look, rng)


def refused_reply(env_type: str, env: Env, seat: int, rng: random.Random) -> Said | None:
    """A reply that the game refuses, to show what follows one; ``None`` where there is none at hand."""
    if env_type == "tictactoe":
        board = env.public(seat)[0]
        taken = [ttt.cell_name(i) for i in range(9) if board[i] != "."]
        return Said(GUESS, rng.choice(taken)) if taken else None
    if env_type == "undercover":
        seen = env.public(seat)
        return Said(GUESS, str(seat + 1) if seen.phase == "vote" else f"It is {seen.word}.")
    return Said(GUESS, "Z") if env_type == "nash_new" else None


def _tictactoe(env, seat: int, look: bool, rng: random.Random) -> Said:
    board, mark = env.public(seat)
    thought, cells = choose(board, mark, float(look), rng)
    choices = tuple(ttt.cell_name(c) for c in cells)
    return Said(thought, rng.choice(choices), choices)


def _nash(env, seat: int, look: bool, rng: random.Random) -> Said:
    names = env.public(seat).names
    choices = tuple(names[i] for i in sorted(env.right)) if look else names
    return Said(LOOK if look else GUESS, rng.choice(choices), choices)


def _undercover(env, seat: int, look: bool, rng: random.Random) -> Said:
    seen, speaker = env.public(seat), UndercoverSpeaker()
    if seen.phase == "vote":  # the bare number is a vote too, and one token
        others = tuple(option.split()[-1] for option in seen.options)
        if not look:
            return Said(GUESS, rng.choice(others), others)
        worst = speaker.suspects(seen)
        return Said(LOOK, rng.choice(worst).split()[-1], tuple(option.split()[-1] for option in worst))
    if look:
        return Said(LOOK, speaker.describe(seen, rng))
    return Said(GUESS, rng.choice([phrase for phrase in VAGUE if not says_word(phrase, seen.word)]))


def _math(env, seat: int, look: bool, rng: random.Random) -> Said:
    exercise = env.exercise
    if look:
        return Said(f"{LOOK} {working(exercise)}", str(solve(exercise)))
    off = rng.choice([d for d in range(-9, 10) if d])
    return Said(GUESS, str(int(solve(exercise)) + off))


def working(exercise: Exercise) -> str:
    """How an exercise of level 1 to 3 is worked out, in a line. Raises ``ValueError`` for a harder one."""
    n = exercise.numbers
    if exercise.kind == "sum":
        return add_by_digits(n[0], n[1])
    if exercise.kind == "product":
        return f"{n[0]}*{n[1]}={n[0] * n[1]} {add_by_digits(n[0] * n[1], n[2])}"
    if exercise.kind == "linear":
        moved = n[2] - n[1]
        return f"{n[2]}{-n[1]:+d}={moved} {moved}/{n[0]}={moved // n[0]}"
    raise ValueError(f"no working for an exercise of kind {exercise.kind!r} (levels 1 to 3 have one)")


def add_by_digits(a: int, b: int) -> str:
    """``a + b``, ``a`` not negative, by units and tens: ``58 + 53``: ``8+3=11 5+5+1=11``; ``53 - 58``:
    ``58-53 8-3=5 5-5=0`` (the larger less the smaller; a borrowed ten stands in the units)."""
    if b >= 0:
        units = a % 10 + b % 10
        return f"{a % 10}+{b % 10}={units} {a // 10}+{b // 10}+{units // 10}={a // 10 + b // 10 + units // 10}"
    high, low = max(a, -b), min(a, -b)
    borrow = int(high % 10 < low % 10)
    units, tens = high % 10 + 10 * borrow, high // 10 - borrow
    return f"{high}-{low} {units}-{low % 10}={units - low % 10} {tens}-{low // 10}={tens - low // 10}"


_TEACHERS = {"tictactoe": _tictactoe, "nash_new": _nash, "undercover": _undercover, "math_lv3to5": _math}
