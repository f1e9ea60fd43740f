"""What remote calls used: counts, tokens, money."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Usage:
    """Counters of one player, added to from any thread. ``price_in`` and ``price_out``: money per
    million prompt and answer tokens; ``None``: not known, and then no cost is reported."""

    price_in: float | None = None
    price_out: float | None = None
    counts: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, **amounts: float) -> None:
        with self._lock:
            for name, amount in amounts.items():
                self.counts[name] = self.counts.get(name, 0.0) + amount

    def add_tokens(self, usage: Any) -> None:
        """The ``usage`` object of an OpenAI-style answer; what a server leaves out counts as 0."""
        usage = usage if isinstance(usage, Mapping) else {}
        self.add(prompt_tokens=_number(usage.get("prompt_tokens")), completion_tokens=_number(usage.get("completion_tokens")))

    def metrics(self, prefix: str) -> dict[str, float]:
        """Totals so far, e.g. ``remote/MODEL/calls``: ``calls`` answered, ``retries``, ``failures``
        after all retries, ``cached`` answers, ``wait_s`` spent waiting, tokens and ``cost``."""
        names = ("calls", "retries", "failures", "cached", "wait_s", "prompt_tokens", "completion_tokens")
        with self._lock:
            totals = {name: float(self.counts.get(name, 0.0)) for name in names}
        if self.price_in is not None and self.price_out is not None:
            totals["cost"] = (totals["prompt_tokens"] * self.price_in + totals["completion_tokens"] * self.price_out) / 1e6
        return {f"{prefix}/{name}": value for name, value in totals.items()}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and value >= 0 else 0.0
