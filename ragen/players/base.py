"""Who sits in the seats of a game: the same contract for scripted, remote and policy players."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SeatView:
    """What a player is handed when it must move. Nothing in it may tell what the seat may not know.

    ``rules`` and ``observation``: the texts of the env for this seat; ``feedback``: what was said
    of its last reply. ``public``: the structured form of the observation (``Env.public``).
    ``legal``: legal answers where they can be listed. ``seed``: the episode's seed, the same for
    all members of a group: with it and ``public`` a scripted player's reply is a pure function, so
    members of a group in the same position meet the same reply. ``env_type`` names the game.
    ``attempt`` counts refused replies in this position (0 first).
    """

    env_type: str
    seat: int
    seed: int
    rules: str
    observation: str
    feedback: str = ""
    public: Any = None
    legal: tuple[str, ...] | None = None
    attempt: int = 0


class Pending:
    """Awaitable around a ``concurrent.futures.Future``: how a player whose answer comes from
    another thread waits. The episode runner resumes it when the future is done."""

    def __init__(self, future):
        self.future = future

    def __await__(self):
        return (yield self)


class PlayerError(RuntimeError):
    """A player that failed after its retries. The episode is aborted: left out of the loss,
    counted, never scored as a loss of either side."""


class Player(ABC):
    """One seat's player. ``reply`` returns the answer as text (thoughts and tags allowed: the
    episode takes what stands in the last ``<answer>...</answer>`` if there is one)."""

    name: str = "player"

    @abstractmethod
    async def reply(self, view: SeatView) -> str:
        """The reply to ``view``. Raises :class:`PlayerError` when it cannot."""
