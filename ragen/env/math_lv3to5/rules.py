"""The embedded set: arithmetic and linear equations from a seed, as numbers without words."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import NamedTuple

from ragen.env.base import derived_rng

LEVELS = (1, 2, 3, 4, 5)
_TEST_SHARE = 0.2


class Exercise(NamedTuple):
    """``kind`` and ``numbers`` say what is asked (see :func:`solve`); ``level`` is 1 to 5."""

    kind: str
    numbers: tuple[int, ...]
    level: int


def solve(exercise: Exercise) -> Fraction:
    """The answer, from the numbers alone.

    ``sum`` (a, b): a + b. ``product`` (a, b, c): a * b + c. ``linear`` (a, b, c): x in ax + b = c.
    ``both_sides`` (a, b, c, d): x in ax + b = cx + d. ``system`` (a, b, r, c, d, s): x in
    ax + by = r, cx + dy = s.
    """
    kind, n = exercise.kind, exercise.numbers
    if kind == "sum":
        return Fraction(n[0] + n[1])
    if kind == "product":
        return Fraction(n[0] * n[1] + n[2])
    if kind == "linear":
        return Fraction(n[2] - n[1], n[0])
    if kind == "both_sides":
        return Fraction(n[3] - n[1], n[0] - n[2])
    a, b, r, c, d, s = n
    return Fraction(r * d - b * s, a * d - b * c)


def draw(rng: random.Random, level: int) -> Exercise:
    """An exercise of ``level``: 1 sums, 2 products, 3 linear equations with a whole solution, 4 with
    the unknown on both sides (fractions arise), 5 two equations in two unknowns."""

    def nonzero(limit: int) -> int:
        return rng.choice((1, -1)) * rng.randint(1, limit)

    if level == 1:
        return Exercise("sum", (rng.randint(2, 99), nonzero(99)), 1)
    if level == 2:
        return Exercise("product", (rng.randint(2, 12), rng.randint(2, 12), nonzero(20)), 2)
    if level == 3:
        a, b, x = rng.randint(2, 9), nonzero(20), nonzero(12)
        return Exercise("linear", (a, b, a * x + b), 3)
    if level == 4:
        a = rng.randint(2, 9)
        c = rng.choice([k for k in range(1, 10) if k != a])
        return Exercise("both_sides", (a, nonzero(20), c, nonzero(20)), 4)
    a, b, d, x, y = rng.randint(1, 6), nonzero(6), nonzero(6), nonzero(9), nonzero(9)
    c = rng.choice([k for k in range(1, 7) if a * d != b * k])
    return Exercise("system", (a, b, a * x + b * y, c, d, c * x + d * y), 5)


def split_of(exercise: Exercise) -> str:
    """``train`` or ``test``: a fixed share of all exercises is kept for testing, by their numbers."""
    held_out = derived_rng("math split", exercise.kind, exercise.numbers).random() < _TEST_SHARE
    return "test" if held_out else "train"


def draw_from_split(rng: random.Random, level: int, split: str) -> Exercise:
    """As :func:`draw`, from one split."""
    while True:
        exercise = draw(rng, level)
        if split_of(exercise) == split:
            return exercise
