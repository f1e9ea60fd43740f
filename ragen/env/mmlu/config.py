"""Knobs of the multiple-choice task."""

from __future__ import annotations

from dataclasses import dataclass

SOURCES = ("embedded", "file")


@dataclass(frozen=True)
class MmluConfig:
    """``source``: ``embedded`` (a small sample of the project's own) or ``file``.
    ``data_path``: a JSON-lines file with ``question``, ``choices`` (or ``options``) and ``answer`` (place
    from 0, or letter), ``subject`` or ``category`` if known; needed for ``file``.
    ``subjects``: only these (``None``: all). ``shuffle_choices``: order the choices by the seed.
    Rewards: ``success_reward``, ``failure_reward``; ``invalid_penalty`` for a reply that is no letter
    of a choice, which may be tried again."""

    source: str = "embedded"
    data_path: str | None = None
    subjects: tuple[str, ...] | None = None
    shuffle_choices: bool = True
    success_reward: float = 1.0
    failure_reward: float = 0.0
    invalid_penalty: float = -0.1

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ValueError(f"mmlu: source must be one of {SOURCES}, got {self.source!r}")
        if (self.source == "file") != (self.data_path is not None):
            raise ValueError(f"mmlu: data_path {self.data_path!r} does not go with source {self.source!r}; source: file needs one, embedded none")
        if self.subjects is not None:
            object.__setattr__(self, "subjects", tuple(self.subjects))
