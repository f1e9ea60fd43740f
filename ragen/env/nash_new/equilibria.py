"""Nash equilibria of two-player matrix games.

Two lists, which differ in degenerate games only:

- ``extreme``: all extreme equilibria, by pairing the vertices of the two best-response polytopes
  (Lemke and Howson 1964; Avis et al. 2010). There is always one, and every equilibrium is a
  mixture of extreme ones, so an action is played by some equilibrium exactly if by an extreme one.
- ``listed``: what support enumeration lists, in its order, which is what the paper's success rule
  reads. A game that is not degenerate has no equilibria but the extreme ones, in that same order;
  for a degenerate one nashpy enumerates supports, and misses some.

nashpy is not asked about the others because it compares floats exactly and so drops an equilibrium
now and then; the tests compare the two where it drops none.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np

Strategy = tuple[float, ...]
Pair = tuple[Strategy, Strategy]
_TIGHT = 1e-9  # payoffs are integers: a slack is either 0 or far above this
_DIGITS = 9  # probabilities are rounded, so that equal ones compare equal


class Solution(NamedTuple):
    """``listed`` and ``extreme`` as in the module docstring, each a tuple of (row mixture, column
    mixture); ``degenerate``: some mixture of k actions has more than k best replies."""

    listed: tuple[Pair, ...]
    extreme: tuple[Pair, ...]
    degenerate: bool


@lru_cache(maxsize=4096)
def solve(row: tuple[tuple[int, ...], ...], column: tuple[tuple[int, ...], ...]) -> Solution:
    """Equilibria of the game with integer payoffs ``row[i][j]`` and ``column[i][j]``.

    Where support enumeration of a degenerate game finds none, ``listed`` is ``extreme``.
    """
    a, b = (np.array(m, dtype=float) for m in (row, column))
    a, b = a - a.min(), b - b.min()  # a constant changes no equilibrium, and small numbers round less
    extreme, degenerate = extreme_equilibria(a, b)
    listed = (degenerate and support_equilibria(a, b)) or extreme
    return Solution(listed, extreme, degenerate)


def support_equilibria(a: np.ndarray, b: np.ndarray) -> tuple[Pair, ...]:
    """Equilibria with supports of equal size, in nashpy's order; incomplete in degenerate games."""
    import nashpy  # here: it brings scipy, which games without matrices do not need

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nashpy warns of an even number; `degenerate` says it exactly
        found = list(nashpy.Game(a, b).support_enumeration())
    return tuple((_clean(x), _clean(y)) for x, y in found)


def extreme_equilibria(a: np.ndarray, b: np.ndarray) -> tuple[tuple[Pair, ...], bool]:
    """All extreme equilibria, by row support (size, then indices), then column support; and whether
    the game is degenerate. ``a``, ``b``: (m, n) integer-valued payoffs. Cost: C(m+n, m) solves."""
    m, n = a.shape
    a, b = a - a.min() + 1, b - b.min() + 1  # positive payoffs make both polytopes bounded
    everything = frozenset(range(m + n))
    # a label is an action: tight where it is unplayed (own) or a best reply (the other's)
    own = list(_vertices(b.T, list(range(m)), list(range(m, m + n))).items())
    other = list(_vertices(a, list(range(m, m + n)), list(range(m))).items())
    pairs = [
        (_clean(x / x.sum()), _clean(y / y.sum()))
        for labels_x, x in own
        for labels_y, y in other
        if x.any() and y.any() and labels_x | labels_y == everything
    ]
    degenerate = any(len(labels) > m for labels, _ in own) or any(len(labels) > n for labels, _ in other)
    return tuple(sorted(pairs, key=lambda pair: (_support_key(pair[0]), _support_key(pair[1])))), degenerate


def _vertices(payoffs: np.ndarray, own: list[int], replies: list[int]) -> dict[frozenset[int], np.ndarray]:
    """Vertices of ``{z >= 0, payoffs @ z <= 1}`` keyed by the labels of their tight constraints:
    ``own[i]`` for ``z[i] = 0``, ``replies[j]`` for row j of ``payoffs``."""
    size = payoffs.shape[1]
    planes = np.vstack([-np.eye(size), payoffs])
    bounds = np.concatenate([np.zeros(size), np.ones(len(payoffs))])
    labels = own + replies
    chosen = np.array(list(combinations(range(len(planes)), size)))
    chosen = chosen[np.abs(np.linalg.det(planes[chosen])) > 0.5]  # integers: a determinant is 0 or at least 1
    points = np.linalg.solve(planes[chosen], bounds[chosen][..., None])[..., 0]
    slack = bounds - points @ planes.T
    return {
        frozenset(labels[i] for i in np.flatnonzero(np.abs(s) < _TIGHT)): np.where(np.abs(z) < _TIGHT, 0.0, z)
        for z, s in zip(points, slack, strict=True)
        if s.min() > -_TIGHT
    }


def _clean(strategy: np.ndarray) -> Strategy:
    return tuple(abs(round(float(p), _DIGITS)) for p in strategy)


def _support_key(strategy: Strategy) -> tuple[int, tuple[int, ...]]:
    support = tuple(i for i, p in enumerate(strategy) if p > 0)
    return len(support), support
