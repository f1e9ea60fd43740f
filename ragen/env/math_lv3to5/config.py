"""Knobs of the mathematics task."""

from __future__ import annotations

from dataclasses import dataclass

SOURCES = ("parquet", "embedded")
SPLITS = ("train", "test")


@dataclass(frozen=True)
class MathConfig:
    """``source``: ``parquet`` (SimpleRL-Zoo's files: ``extra_info.question``,
    ``extra_info.answer``, ``level``) or ``embedded`` (arithmetic and linear equations made from the
    seed, no data needed).
    ``data_path``: the folder that holds ``train.parquet`` and ``test.parquet``, or one such file;
    ``None``: ``$GIFT_DATA/math/simplelr_qwen_level3to5``.
    ``split``: ``train`` or ``test``; the embedded set keeps the two apart as well.
    ``levels``: difficulties to draw from, 1-5 (``None``: all there are).
    ``judge_timeout``: seconds of CPU time that one comparison may take before the answer counts as wrong.
    Rewards: ``success_reward``, ``failure_reward``; ``invalid_penalty`` for an empty answer, which
    may be tried again if turns are left. A wrong answer ends the task."""

    source: str = "parquet"
    data_path: str | None = None
    split: str = "train"
    levels: tuple[int, ...] | None = None
    judge_timeout: float = 3.0
    success_reward: float = 1.0
    failure_reward: float = 0.0
    invalid_penalty: float = -0.1

    def __post_init__(self) -> None:
        for key, choices in (("source", SOURCES), ("split", SPLITS)):
            if getattr(self, key) not in choices:
                raise ValueError(f"math_lv3to5: {key} must be one of {choices}, got {getattr(self, key)!r}")
        if self.judge_timeout <= 0:
            raise ValueError(f"math_lv3to5: judge_timeout must be above 0 seconds, got {self.judge_timeout}")
        if self.levels is not None:
            levels = tuple(sorted(self.levels))
            if not levels or any(level not in range(1, 6) for level in levels):
                raise ValueError(f"math_lv3to5: levels must be some of 1 to 5, got {self.levels!r}")
            object.__setattr__(self, "levels", levels)
