"""Knobs of tic-tac-toe."""

from __future__ import annotations

from dataclasses import dataclass

_SEATS = ("random", "first", "second")
_WIN_TEXT = ("auto", "always", "never")
_FIRST_MOVES = ("player", "uniform")


@dataclass(frozen=True)
class TicTacToeConfig:
    """``opening_moves``: up to this many random opening pairs (one O and one X each) stand on the
    board at the start; how many is drawn from the seed. 0 is the empty board (validation).
    ``trained_seat``: who is trained, ``random`` (by the seed), ``first`` (O) or ``second`` (X).
    ``first_move``: who opens where the trained seat is X: the ``player`` in seat O, or a free cell drawn ``uniform``
    from the seed, as the reference implementation does in training and evaluation.
    ``win_condition_text``: say how a game is won ``always``, ``never`` or as the seed has it
    (``auto``). Rewards are of the whole game; ``invalid_penalty`` is paid for each wrong move,
    which may then be tried again (paper, appendix B)."""

    opening_moves: int = 1
    trained_seat: str = "random"
    first_move: str = "player"
    win_condition_text: str = "auto"
    invalid_penalty: float = -0.1
    win_reward: float = 1.0
    draw_reward: float = 0.5
    loss_reward: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.opening_moves <= 2:
            raise ValueError(f"tictactoe: opening_moves must be 0, 1 or 2 (pairs; three could already be won), got {self.opening_moves}")
        if self.trained_seat not in _SEATS:
            raise ValueError(f"tictactoe: trained_seat must be one of {_SEATS}, got {self.trained_seat!r}")
        if self.first_move not in _FIRST_MOVES:
            raise ValueError(f"tictactoe: first_move must be one of {_FIRST_MOVES}, got {self.first_move!r}")
        if self.first_move == "uniform" and self.opening_moves > 1:
            raise ValueError(
                f"tictactoe: first_move uniform needs opening_moves 0 or 1, got {self.opening_moves}: the third O could already win"
            )
        if self.win_condition_text not in _WIN_TEXT:
            raise ValueError(f"tictactoe: win_condition_text must be one of {_WIN_TEXT}, got {self.win_condition_text!r}")
