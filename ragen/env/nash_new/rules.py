"""Matrix games as pure data: what a game is, what is right in it, and new games from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

from ragen.env.nash_new.equilibria import solve

Matrix = tuple[tuple[int, ...], ...]
ROLES = ("row", "column")


class MatrixGame(NamedTuple):
    """Payoffs of the row and the column player, ``payoffs[row action][column action]``."""

    row: Matrix
    column: Matrix

    def actions(self, role: str) -> int:
        """How many actions this role has."""
        return len(self.row) if role == "row" else len(self.row[0])

    def transformed(self, sign: int, offset: int) -> MatrixGame:
        """Every payoff times ``sign`` (1 or -1) plus ``offset``."""
        return MatrixGame(*(tuple(tuple(sign * v + offset for v in line) for line in m) for m in self))


def right_actions(game: MatrixGame, role: str, equilibrium: str) -> frozenset[int]:
    """Indices of the actions that count as right for ``role``.

    ``equilibrium="paper"``: the likeliest action of the last listed equilibrium (the first of equals).
    ``"any"``: every action that some Nash equilibrium plays with positive probability.
    """
    side = ROLES.index(role)
    solution = solve(game.row, game.column)
    if equilibrium == "paper":
        strategy = solution.listed[-1][side]
        return frozenset({strategy.index(max(strategy))})
    return frozenset(i for pair in solution.extreme for i, p in enumerate(pair[side]) if p > 0)


@dataclass(frozen=True)
class PlantedGame:
    """A generated game and the mixed equilibrium it was built around (integer weights a player;
    divided by their sum they are probabilities)."""

    game: MatrixGame
    row_weights: tuple[int, ...]
    column_weights: tuple[int, ...]


def generate_game(rng: random.Random, size: int, limit: int = 20) -> PlantedGame:
    """A new ``size`` x ``size`` game with integer payoffs within ``+-limit`` and a known equilibrium.

    Supports of one size k (1 to ``size``) are drawn for both players, and weights on them. Each
    player's payoffs are then fixed so that the other's mixture makes all of the support equally good
    and everything else strictly worse, which is the definition of an equilibrium. Degenerate
    games are drawn again, so that support enumeration lists every equilibrium of what is returned.
    """
    k = rng.randint(1, size)
    while True:
        rows, columns = (sorted(rng.sample(range(size), k)) for _ in range(2))
        x, y = _weights(rng, size, rows), _weights(rng, size, columns)
        row = _indifferent(rng, rows, y, limit)
        column = _indifferent(rng, columns, x, limit)
        if row is None or column is None:
            continue
        game = MatrixGame(row, tuple(zip(*column, strict=True)))
        if not solve(*game).degenerate:
            return PlantedGame(game, x, y)


def _weights(rng: random.Random, size: int, support: list[int]) -> tuple[int, ...]:
    """Integer weights, positive exactly on ``support``, at least one of them 1."""
    weights = [rng.randint(1, 3) if i in support else 0 for i in range(size)]
    weights[rng.choice(support)] = 1
    return tuple(weights)


def _indifferent(rng: random.Random, support: list[int], other: tuple[int, ...], limit: int) -> Matrix | None:
    """Payoffs ``[own action][other's action]`` whose expectation under the weights ``other`` is the
    same on ``support`` and lower elsewhere. ``None`` if an entry falls outside ``+-limit``."""
    pivot = other.index(1)  # the entry with weight 1 can absorb any difference and stay an integer
    lines = [[rng.randint(0, 9) for _ in other] for _ in other]
    level = sum(w * v for w, v in zip(other, lines[support[0]], strict=True))
    for i, line in enumerate(lines):
        target = level if i in support else level - rng.randint(1, 2 * sum(other))
        line[pivot] += target - sum(w * v for w, v in zip(other, line, strict=True))
        if abs(line[pivot]) > limit:
            return None
    return tuple(map(tuple, lines))
