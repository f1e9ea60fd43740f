"""Asking a player to tell a long record in short."""

from __future__ import annotations

from ragen.env.base import SummaryRequest
from ragen.players.base import SeatView

INSTRUCTION = (
    "Below is what the players of a game said. Tell in at most {max_chars} characters what each of them said: "
    "one line a player, starting with the player's name, facts only, nothing added and nobody judged.\n"
)


def summary_view(request: SummaryRequest, env_type: str, seat: int, seed: int) -> SeatView:
    """The request as any player reads one. It holds the public record alone, so a summary can tell a
    seat nothing it has not heard."""
    return SeatView(env_type, seat, seed, INSTRUCTION.format(max_chars=request.max_chars), request.text)
