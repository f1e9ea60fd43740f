"""Scripted players of who's the spy: a speaker and voter good enough for a real game offline.

They see what any player sees (``SeatView.public``): their own word and what was said. What they
know of words is the project's own list, pairs dissolved, so neither the other word nor a role can
be looked up in it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

from ragen.env.undercover.env import UndercoverView
from ragen.env.undercover.spoken import says_word, tokens
from ragen.env.undercover.words import knowledge
from ragen.players.base import SeatView
from ragen.players.scripted import ScriptedPlayer

#: for words nothing is known of; true of nearly everything
VAGUE = (
    "Most people have heard of it.",
    "You may have met with it before.",
    "There is more than one kind of it.",
    "Children learn what it is.",
    "Some people care about it more than others.",
    "You can find it in more than one place.",
    "It is not rare.",
    "People talk about it now and then.",
    "It is easy to recognise.",
    "You would not mistake it for a number.",
    "There are stories in which it appears.",
    "I have thought of it this year.",
)

_FILLERS = frozenset(
    "a an the it its is are was be been of to in on at by for with from and or not no you your can may must has have "
    "this that one person people some many most very often there they them do does more than".split()
)


@lru_cache(maxsize=8192)
def features(text: str) -> frozenset[str]:
    """What a statement is about: its words without fillers, plurals as singulars."""
    return frozenset(t[:-1] if len(t) > 3 and t.endswith("s") else t for t in tokens(text) if t not in _FILLERS)


def similarity(a: frozenset[str], b: frozenset[str]) -> float:
    """Share of common features, 0 to 1 (Jaccard)."""
    return len(a & b) / len(a | b) if a and b else 0.0


def fit(text: str, known: Sequence[str]) -> float:
    """How well a statement fits the best matching of the known phrases, 0 to 1."""
    said = features(text)
    return max((similarity(said, features(phrase)) for phrase in known), default=0.0)


class UndercoverSpeaker(ScriptedPlayer):
    """Says something true of its word that nobody has said yet (a vague sentence if it knows
    nothing), and votes for the player whose statements fit its own word worst; where they fit
    equally, for the one who has least in common with everybody else; then by lot."""

    name = "speaker"

    def choose(self, view: SeatView, rng: random.Random) -> str:
        seen: UndercoverView = view.public
        return self.describe(seen, rng) if seen.phase == "describe" else self.vote(seen, rng)

    def describe(self, seen: UndercoverView, rng: random.Random) -> str:
        said = {text for _, text in seen.statements}
        usable = [p for p in knowledge().get(seen.word.lower(), ()) if not says_word(p, seen.word)]
        fresh = [p for p in usable if p not in said]
        if not fresh:
            vague = [p for p in VAGUE if not says_word(p, seen.word)]
            fresh = [p for p in vague if p not in said] or vague
        return rng.choice(fresh)

    def vote(self, seen: UndercoverView, rng: random.Random) -> str:
        return rng.choice(self.suspects(seen))

    def suspects(self, seen: UndercoverView) -> list[str]:
        """The players that this speaker would vote for, equally likely."""
        known = knowledge().get(seen.word.lower(), ())
        scores = {option: (self._fit(seen, option, known), self._company(seen, option)) for option in seen.options}
        worst = min(scores.values())
        return [option for option, score in scores.items() if score == worst]

    def _fit(self, seen: UndercoverView, option: str, known: Sequence[str]) -> float:
        fits = [fit(text, known) for player, text in seen.statements if f"Player {player}" == option]
        return round(sum(fits) / len(fits), 6) if fits else 0.0

    def _company(self, seen: UndercoverView, option: str) -> float:
        own = [features(text) for player, text in seen.statements if f"Player {player}" == option]
        others = [features(text) for player, text in seen.statements if f"Player {player}" != option]
        pairs = [similarity(a, b) for a in own for b in others]
        return round(sum(pairs) / len(pairs), 6) if pairs else 0.0


class RandomUndercover(ScriptedPlayer):
    """Says any vague sentence and votes for anybody else: the floor to compare with."""

    name = "random"

    def choose(self, view: SeatView, rng: random.Random) -> str:
        seen: UndercoverView = view.public
        return rng.choice(seen.options) if seen.phase == "vote" else rng.choice([p for p in VAGUE if not says_word(p, seen.word)])
