"""Knobs of the bandit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BanditConfig:
    """``arms``: how many levers, 2-9. ``pulls``: pulls in one task. ``gap``: how much likelier the
    best lever pays than any other, in (0, 1]. ``invalid_penalty``: for a reply that names no lever.
    The reward of a pull is its payment (0 or 1) divided by ``pulls``."""

    arms: int = 3
    pulls: int = 6
    gap: float = 0.3
    invalid_penalty: float = -0.1

    def __post_init__(self) -> None:
        if not 2 <= self.arms <= 9:
            raise ValueError(f"bandit: arms must be 2 to 9, got {self.arms}")
        if self.pulls < 1:
            raise ValueError(f"bandit: pulls must be at least 1, got {self.pulls}")
        if not 0 < self.gap <= 1:
            raise ValueError(f"bandit: gap must be in (0, 1], got {self.gap}")
