"""A bandit with 0/1 payments whose every result is fixed by the seed."""

from __future__ import annotations

import random
from typing import NamedTuple

from ragen.env.base import derived_rng


class Bandit(NamedTuple):
    """``chances[arm]``: probability that the lever pays; ``seed`` fixes the payments."""

    chances: tuple[float, ...]
    seed: int

    @property
    def best(self) -> int:
        return self.chances.index(max(self.chances))


def draw_bandit(rng: random.Random, arms: int, gap: float) -> Bandit:
    """One lever that pays at least ``gap`` more often than every other, at a random place."""
    top = rng.uniform(gap, 1.0)
    best = rng.randrange(arms)
    chances = tuple(top if arm == best else rng.uniform(0.0, top - gap) for arm in range(arms))
    return Bandit(chances, rng.getrandbits(62))


def pull(bandit: Bandit, arm: int, earlier: int) -> int:
    """Payment (0 or 1) of ``arm`` when it was pulled ``earlier`` times before. Two players who pull
    a lever for the n-th time are paid the same, whatever they did in between."""
    return int(derived_rng("bandit", bandit.seed, arm, earlier).random() < bandit.chances[arm])
