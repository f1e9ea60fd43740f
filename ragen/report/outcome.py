"""How an episode ended, in one word, and intervals for shares of episodes."""

from __future__ import annotations

import math
from collections.abc import Mapping

#: in the order lists show them
OUTCOMES = ("win", "draw", "loss", "forfeit", "unfinished", "truncated", "aborted")


def outcome(row: Mapping) -> str:
    """One of :data:`OUTCOMES` for a row of a trajectory file. A task without an opponent "wins" by
    a correct answer."""
    status = row.get("status") or "finished"
    if status != "finished":
        return status if status in OUTCOMES else "unfinished"
    if row.get("success"):
        return "win"
    return "draw" if (row.get("metrics") or {}).get("draw") else "loss"


def wilson(share: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """95% interval of a share seen in ``n`` episodes (Wilson 1927); (0, 1) without episodes."""
    if n <= 0:
        return 0.0, 1.0
    share = min(1.0, max(0.0, share))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def difference(first: float, last: float, n_first: float, n_last: float) -> tuple[float, float]:
    """95% interval of ``last - first`` for two independent shares (Newcombe 1998, method 10)."""
    lo1, hi1 = wilson(first, n_first)
    lo2, hi2 = wilson(last, n_last)
    gap = last - first
    return gap - math.hypot(last - lo2, hi1 - first), gap + math.hypot(hi2 - last, first - lo1)
