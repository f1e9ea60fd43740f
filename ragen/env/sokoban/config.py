"""Knobs of sokoban."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SokobanConfig:
    """``size``: side of the square room, its outer wall included, 5-10. ``boxes``: 1-3.
    ``walls``: share of inner cells that are wall, below 0.4. ``scramble``: how many steps backwards
    from the solved room a level lies; it can be solved in so many. ``max_steps``: the task ends,
    unsolved, after so many. Rewards: ``success_reward`` when every box stands on a target;
    ``invalid_penalty`` for a reply that is no direction."""

    size: int = 6
    boxes: int = 1
    walls: float = 0.1
    scramble: int = 15
    max_steps: int = 30
    success_reward: float = 1.0
    invalid_penalty: float = -0.1

    def __post_init__(self) -> None:
        if not 5 <= self.size <= 10:
            raise ValueError(f"sokoban: size must be 5 to 10, got {self.size}")
        if not 1 <= self.boxes <= 3:
            raise ValueError(f"sokoban: boxes must be 1 to 3, got {self.boxes}")
        if not 0 <= self.walls < 0.4:
            raise ValueError(f"sokoban: walls must be at least 0 and below 0.4, got {self.walls}")
        if self.scramble < 5 * self.boxes:
            raise ValueError(f"sokoban: scramble must be at least 5 a box ({5 * self.boxes}), got {self.scramble}")
        if self.max_steps < self.scramble:
            raise ValueError(f"sokoban: max_steps ({self.max_steps}) is below scramble ({self.scramble}): levels could not be solved")
