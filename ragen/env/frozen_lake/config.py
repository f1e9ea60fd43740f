"""Knobs of the frozen lake."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FrozenLakeConfig:
    """``size``: side of the square map, 3-10. ``frozen``: share of cells that carry, in (0, 1]; maps
    without a way to the goal are drawn again. ``slippery``: a step goes where it was aimed in one
    third of the cases and to either side in the others. ``max_steps``: the task ends, unsolved,
    after so many. Rewards: ``success_reward`` at the goal; ``invalid_penalty`` for a reply that is
    no direction."""

    size: int = 4
    frozen: float = 0.8
    slippery: bool = False
    max_steps: int = 20
    success_reward: float = 1.0
    invalid_penalty: float = -0.1

    def __post_init__(self) -> None:
        if not 3 <= self.size <= 10:
            raise ValueError(f"frozen_lake: size must be 3 to 10, got {self.size}")
        if not 0.3 <= self.frozen <= 1.0:
            raise ValueError(f"frozen_lake: frozen must be 0.3 to 1 (fewer cells leave hardly a way), got {self.frozen}")
        if self.max_steps < 1:
            raise ValueError(f"frozen_lake: max_steps must be at least 1, got {self.max_steps}")
