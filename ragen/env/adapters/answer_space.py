"""A space of answers whose samples are legal where the game can list them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ragen.env.base import AnyText


class AnswerSpace(AnyText):
    """Contains every text (a game refuses a wrong one itself); samples one of ``legal()``, or any
    text where that is ``None`` or empty."""

    def __init__(self, legal: Callable[[], tuple[str, ...] | None], max_length: int = 2_000):
        super().__init__(max_length=max_length)
        self._legal = legal

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        listed = self._legal()
        return str(self.np_random.choice(listed)) if listed else super().sample()
