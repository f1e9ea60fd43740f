"""Knobs of countdown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CountdownConfig:
    """``numbers``: how many are given, 2-6; each from 1 to ``largest``. ``max_target``: targets are
    whole numbers from 1 to this. ``use_all``: the expression must use every number (otherwise any
    of them, each at most once). Rewards: ``success_reward``, ``failure_reward``;
    ``invalid_penalty`` for a reply that is no expression of the given numbers, which may be tried
    again. A well-formed expression of another value ends the task."""

    numbers: int = 4
    largest: int = 25
    max_target: int = 100
    use_all: bool = True
    success_reward: float = 1.0
    failure_reward: float = 0.0
    invalid_penalty: float = -0.1

    def __post_init__(self) -> None:
        if not 2 <= self.numbers <= 6:
            raise ValueError(f"countdown: numbers must be 2 to 6, got {self.numbers}")
        if self.largest < 4 or self.max_target < 10:
            raise ValueError(f"countdown: largest must be at least 4 and max_target at least 10, got {self.largest} and {self.max_target}")
