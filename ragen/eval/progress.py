"""How far an evaluation is and how long it will still take."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class Progress:
    """``update(done)`` as often as you like; a line is written at most every ``every_s`` seconds (a
    terminal's line is rewritten). ``done`` starts at what an earlier, killed run had finished."""

    def __init__(self, what: str, total: int, done: int = 0, *, stream: TextIO | None = None, every_s: float | None = None):
        self.what, self.total, self.done = what, total, done
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._every = every_s if every_s is not None else (0.2 if self._terminal else 15.0)
        self._first, self._started = done, time.monotonic()
        self._shown = self._started

    def update(self, done: int) -> None:
        self.done = done
        now = time.monotonic()
        if now - self._shown >= self._every:
            self._shown = now
            self._write(now)

    def add(self, count: int = 1) -> None:
        self.update(self.done + count)

    def close(self) -> None:
        self._write(time.monotonic())
        if self._terminal:
            self._stream.write("\n")

    def _write(self, now: float) -> None:
        spent, new = now - self._started, self.done - self._first
        left = spent / new * (self.total - self.done) if new else None
        text = f"{self.what}: {self.done}/{self.total}, {_clock(spent)} spent, {_clock(left) if left is not None else '?'} left"
        self._stream.write(f"\r{text:<78}" if self._terminal else text + "\n")
        self._stream.flush()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
