"""How a nest's reward follows from its sub-tasks'."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def combine(rewards: Sequence[float], mode: str) -> float:
    """``mean`` (paper), ``min`` or ``product``. In a product a negative reward counts as 0: two
    lost games must not multiply to a win."""
    if mode == "mean":
        return sum(rewards) / len(rewards)
    return min(rewards) if mode == "min" else math.prod(max(r, 0.0) for r in rewards)


def difficulty_weights(names: Sequence[str], success_rates: Mapping[str, float]) -> dict[str, float]:
    """Weight of a success in each sub-task, in [0, 1]: its difficulty ``1 - rate`` over that of the
    hardest. A sub-task without a rate yet counts as never solved; where all are always solved,
    every weight is 1."""
    difficulty = {name: 1.0 - float(success_rates.get(name, 0.0)) for name in names}
    hardest = max(difficulty.values())
    return {name: value / hardest if hardest > 0 else 1.0 for name, value in difficulty.items()}
