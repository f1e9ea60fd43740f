"""Knobs of connect four."""

from __future__ import annotations

from dataclasses import dataclass

SEATS = ("random", "first", "second")


@dataclass(frozen=True)
class ConnectFourConfig:
    """``rows``, ``columns``: size of the board, 2-9 each. ``connect``: how many in a line win.
    ``opening_moves``: up to this many random opening pairs of moves; how many is drawn from the seed.
    ``trained_seat``: who is trained, ``random`` (by the seed), ``first`` (X) or ``second`` (O).
    Rewards are of the whole game; ``invalid_penalty`` is paid for each move that cannot be made."""

    rows: int = 6
    columns: int = 7
    connect: int = 4
    opening_moves: int = 1
    trained_seat: str = "random"
    invalid_penalty: float = -0.1
    win_reward: float = 1.0
    draw_reward: float = 0.5
    loss_reward: float = 0.0

    def __post_init__(self) -> None:
        for key in ("rows", "columns"):
            if not 2 <= getattr(self, key) <= 9:
                raise ValueError(f"connect_four: {key} must be 2 to 9, got {getattr(self, key)}")
        if not 3 <= self.connect <= max(self.rows, self.columns):
            raise ValueError(f"connect_four: connect must be 3 to the longer side ({max(self.rows, self.columns)}), got {self.connect}")
        if not 0 <= self.opening_moves < self.connect - 1:
            raise ValueError(f"connect_four: opening_moves must be 0 to {self.connect - 2} pairs (more could end the game), got {self.opening_moves}")
        if 2 * self.opening_moves >= self.rows * self.columns:
            raise ValueError(f"connect_four: opening_moves {self.opening_moves} fill the board")
        if self.trained_seat not in SEATS:
            raise ValueError(f"connect_four: trained_seat must be one of {SEATS}, got {self.trained_seat!r}")
