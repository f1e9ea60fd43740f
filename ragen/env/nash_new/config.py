"""Knobs of the matrix games, and the payoffs of the paper's nine (arXiv 2601.05633, appendix B)."""

from __future__ import annotations

from dataclasses import dataclass

#: name -> (row player's payoffs, column player's payoffs), [row action][column action]
PAPER_GAMES: dict[str, tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]] = {
    "prison_dilemma": (((3, 0), (5, 1)), ((3, 5), (0, 1))),
    "battle_of_sex": (((2, 0), (0, 1)), ((1, 0), (0, 2))),
    "game_of_chicken": (((-10, 1), (-1, 0)), ((-10, -1), (1, 0))),
    "stag_hunt": (((3, 0), (1, 1)), ((3, 1), (0, 1))),
    "radio_station": (
        ((25, 50, 50), (30, 15, 30), (20, 20, 10)),
        ((25, 30, 20), (50, 15, 20), (50, 30, 10)),
    ),
    "iesds": (((13, 1, 7), (4, 3, 6), (-1, 2, 8)), ((3, 4, 3), (1, 3, 2), (2, 3, -1))),
    "duo_polistic": (
        ((0, 0, 0, 0, 0, 0), (9, 7, 5, 3, 1, -1), (14, 10, 6, 2, -2, -2),
         (15, 9, 3, -3, -3, -3), (12, 4, -4, -4, -4, -4), (5, -5, -5, -5, -5, -5)),
        ((0, 9, 14, 15, 12, 5), (0, 7, 10, 9, 4, -5), (0, 5, 6, 3, -4, -5),
         (0, 3, 2, -3, -4, -5), (0, 1, -2, -3, -4, -5), (0, -1, -2, -3, -4, -5)),
    ),
    "game": (((1, -1, 5, 1), (2, 1, 3, 5), (1, 0, 1, 0)), ((1, 2, 0, 1), (3, 2, 0, 1), (1, 5, 7, 1))),
    "weakly_dominated_game": (((5, 4), (6, 3), (6, 4)), ((1, 0), (0, 1), (4, 1))),
}

#: games whose payoffs may be negated (a different game, with equilibria of its own)
SIGN_FLIPPED = tuple(PAPER_GAMES)[:7]

_CHOICES = {
    "source": ("paper", "generated"),
    "equilibrium": ("paper", "any"),
    "role": ("random", "row", "column"),
    "labels": ("random", "numbers", "letters"),
}


@dataclass(frozen=True)
class NashConfig:
    """``source``: the ``paper``'s nine games or newly ``generated`` ones with a known equilibrium.
    ``games``: names out of :data:`PAPER_GAMES` to play (``None``: all nine).
    ``size``: actions of each player in a generated game, 2-6; several sizes: the seed picks.
    ``role``: who the trained seat is, ``random`` (by the seed), ``row`` or ``column``.
    ``sign_flip``: negate all payoffs in half of the seeds (paper: the first seven games).
    ``offsets``: one of these is added to every payoff (equilibria stay as they are).
    ``presentations``: names out of :data:`ragen.env.nash_new.wording.PRESENTATIONS` (``None``: all).
    ``labels``: how actions are called, ``numbers``, ``letters`` or as the seed has it (``random``).
    ``equilibrium``: what counts as right: ``paper``, the likeliest action of the last equilibrium
    that support enumeration lists (the first such action where several are equally likely), or
    ``any`` action that some equilibrium plays.
    Rewards: ``success_reward``, ``failure_reward``; ``invalid_penalty`` for a reply that names no
    action, which may be tried again if turns are left."""

    source: str = "paper"
    games: tuple[str, ...] | None = None
    size: int | tuple[int, ...] = (2, 3)
    role: str = "random"
    sign_flip: bool = True
    offsets: tuple[int, ...] = (0, 100, -100)
    presentations: tuple[str, ...] | None = None
    labels: str = "random"
    equilibrium: str = "paper"
    success_reward: float = 1.0
    failure_reward: float = 0.0
    invalid_penalty: float = -0.1

    def __post_init__(self) -> None:
        from ragen.env.nash_new.wording import PRESENTATIONS

        for key, choices in _CHOICES.items():
            if getattr(self, key) not in choices:
                raise ValueError(f"nash_new: {key} must be one of {choices}, got {getattr(self, key)!r}")
        sizes = (self.size,) if isinstance(self.size, int) else tuple(self.size)
        if not sizes or any(isinstance(n, bool) or not isinstance(n, int) or not 2 <= n <= 6 for n in sizes):
            raise ValueError(f"nash_new: size must be 2-6 or a list of such, got {self.size!r}")
        object.__setattr__(self, "size", sizes)
        if not self.offsets:
            raise ValueError("nash_new: offsets is empty; use [0] for none")
        object.__setattr__(self, "offsets", tuple(int(x) for x in self.offsets))
        for key, known in (("games", PAPER_GAMES), ("presentations", PRESENTATIONS)):
            names = tuple(known) if getattr(self, key) is None else tuple(getattr(self, key))
            unknown = [name for name in names if name not in known]
            if unknown or not names:
                raise ValueError(f"nash_new: {key} holds {unknown or 'nothing'}; known: {', '.join(known)}")
            object.__setattr__(self, key, names)
