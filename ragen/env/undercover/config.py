"""Knobs of who's the spy (Undercover)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_CHOICES = {
    "first_word": ("undercover", "civilian", "random"),
    "trained_role": ("random", "civilian", "undercover"),
}


@dataclass(frozen=True)
class UndercoverConfig:
    """``rounds``: rounds of descriptions before the vote.
    ``word_list``: path of a JSON list of ``[word, word]`` pairs; ``None``: the project's own list;
    ``described``: the pairs of it that the scripted players can describe, for games against them.
    ``first_word``: who gets the first word of a pair. ``undercover`` is what the reference
    implementation plays; ``civilian`` suits lists whose columns are named the other way round. With
    either, a model that sees a list long enough can learn its role from the word itself: ``random``
    (by the seed) shuts that door.
    ``trained_role``: role of the trained seat, ``random`` by the seed (then undercover once in four).
    ``reveal_role``: tell a voter what to aim at in its role, as the reference implementation does;
    otherwise nobody is told a role.
    ``refuse_own_word``: a description that contains the seat's own word is refused; false: the rules forbid it, and
    nothing is checked (reference implementation).
    ``max_statement_chars``: what is beyond it of a description nobody hears, so that one player cannot
    flood the record; the speaker is told. By default two rounds fit the record whole.
    ``max_history_chars``: longest record of descriptions an observation shows; the oldest are left
    out first (:mod:`ragen.env.undercover.history`). ``summariser``: a ``player_info`` entry of a
    remote model that shortens a longer record instead.
    Rewards: ``win_reward`` where the trained seat's side wins, else ``loss_reward``;
    ``invalid_penalty`` for each refused reply, which may be tried again."""

    rounds: int = 2
    word_list: str | None = None
    first_word: str = "undercover"
    trained_role: str = "random"
    reveal_role: bool = False
    refuse_own_word: bool = True
    max_statement_chars: int = 200
    max_history_chars: int = 2000
    summariser: dict[str, Any] | None = None
    win_reward: float = 1.0
    loss_reward: float = 0.0
    invalid_penalty: float = -0.1

    def __post_init__(self) -> None:
        for key, choices in _CHOICES.items():
            if getattr(self, key) not in choices:
                raise ValueError(f"undercover: {key} must be one of {choices}, got {getattr(self, key)!r}")
        if self.rounds < 1:
            raise ValueError(f"undercover: rounds must be at least 1, got {self.rounds!r}")
        if self.max_statement_chars < 20:
            raise ValueError(f"undercover: max_statement_chars must be at least 20, got {self.max_statement_chars!r}")
        if self.max_history_chars < 100:
            raise ValueError(f"undercover: max_history_chars must be at least 100, got {self.max_history_chars!r}")
        if self.summariser is not None and not isinstance(self.summariser, dict):
            object.__setattr__(self, "summariser", dict(self.summariser))
