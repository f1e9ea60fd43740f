"""Who's the spy as pure functions, without a word of English.

Four seats; one, the undercover, holds another word than the three civilians. In each round every
seat describes its word, in one order drawn for the game; then all vote at once. The undercover's
side wins unless the vote removes it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ragen.env.base import derived_rng

PLAYERS = 4
CIVILIAN, UNDERCOVER = "civilian", "undercover"


class Deal(NamedTuple):
    """``words``: one a seat. ``undercover``, ``trained``: seats. ``order``: seats as they speak."""

    words: tuple[str, ...]
    undercover: int
    order: tuple[int, ...]
    trained: int

    def role(self, seat: int) -> str:
        return UNDERCOVER if seat == self.undercover else CIVILIAN


def deal(rng: random.Random, pairs: Sequence[tuple[str, str]], first_word: str, trained_role: str) -> Deal:
    """Words, roles and order of a game; ``first_word`` and ``trained_role`` as in
    :class:`~ragen.env.undercover.config.UndercoverConfig`. Every draw is made whatever the knobs
    say, so that a knob changes nothing else about the game of a seed."""
    odd, common = rng.choice(pairs)
    swap = rng.random() < 0.5
    if first_word == CIVILIAN or (first_word == "random" and swap):
        odd, common = common, odd
    undercover = rng.randrange(PLAYERS)
    order = tuple(rng.sample(range(PLAYERS), PLAYERS))
    anyone, some_civilian = rng.randrange(PLAYERS), rng.choice([s for s in range(PLAYERS) if s != undercover])
    trained = {"random": anyone, CIVILIAN: some_civilian, UNDERCOVER: undercover}[trained_role]
    words = tuple(odd if seat == undercover else common for seat in range(PLAYERS))
    return Deal(words, undercover, order, trained)


def removed(votes: Mapping[int, int], seed: int) -> int:
    """The seat with most votes (``voter -> seat voted for``); a tie is broken by the seed."""
    counts = Counter(votes.values())
    most = max(counts.values())
    tied = sorted(seat for seat, n in counts.items() if n == most)
    return derived_rng("undercover", seed, "tie", tuple(sorted(votes.items()))).choice(tied)
