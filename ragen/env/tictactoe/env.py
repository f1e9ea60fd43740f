"""Tic-tac-toe as an :class:`~ragen.env.base.Env`: seat 0 is O and moves first, seat 1 is X.

``python -m ragen.env.tictactoe.env`` plays it in the terminal.
"""

from __future__ import annotations

import re

from ragen.env.base import Env, Outcome, SeatOutcome, Verdict, derived_rng
from ragen.env.tictactoe import rules as ttt
from ragen.env.tictactoe.config import TicTacToeConfig
from ragen.env.tictactoe.wording import board_text, rules_text

MARKS = ("O", "X")
_MOVE = re.compile(r"\(?\s*(\d{1,9})(?:\s*[,;]\s*|\s+)(\d{1,9})\s*\)?")


def parse_move(text: str) -> int | None:
    """``"(2,3)"`` -> 5. ``None`` unless the text is exactly one cell within the board."""
    match = _MOVE.fullmatch(text.strip())
    if not match:
        return None
    row, column = int(match[1]), int(match[2])
    return (row - 1) * 3 + column - 1 if 1 <= row <= 3 and 1 <= column <= 3 else None


class TicTacToeEnv(Env):
    seats = 2

    def __init__(self, config: TicTacToeConfig | None = None):
        self.config = config or TicTacToeConfig()
        self.board, self._rules = ttt.EMPTY_BOARD, ("", "")

    def reset(self, *, seed: int) -> None:
        rng = derived_rng("tictactoe", seed)
        trained = rng.randrange(2)
        if self.config.trained_seat != "random":
            trained = _SEAT_NAMES[self.config.trained_seat]
        self.trained_seats = (trained,)
        self.board = ttt.EMPTY_BOARD
        for _ in range(2 * rng.randint(0, self.config.opening_moves)):
            self.board = ttt.play(self.board, rng.choice(ttt.empty_cells(self.board)))
        if self.config.first_move == "uniform" and trained == 1:
            self.board = ttt.play(self.board, derived_rng("tictactoe", seed, "first move").choice(ttt.empty_cells(self.board)))
        wording = rng.random()
        self._rules = tuple(
            rules_text(derived_rng(seed, wording), MARKS[s], MARKS[1 - s], self.config.win_condition_text) for s in (0, 1)
        )

    def acting(self) -> tuple[int, ...]:
        return () if ttt.is_over(self.board) else (MARKS.index(ttt.to_move(self.board)),)

    def rules(self, seat: int) -> str:
        return self._rules[seat]

    def observe(self, seat: int) -> str:
        board = board_text(self.board)
        return board if ttt.is_over(self.board) else f"{board}\nYour move, {MARKS[seat]}."

    def public(self, seat: int) -> tuple[str, str]:
        return self.board, MARKS[seat]

    def legal(self, seat: int) -> tuple[str, ...]:
        return () if ttt.is_over(self.board) else tuple(map(ttt.cell_name, ttt.empty_cells(self.board)))

    def role(self, seat: int) -> str:
        return MARKS[seat]

    def act(self, seat: int, text: str) -> Verdict:
        self._require_acting(seat)
        cell = parse_move(text)
        if cell is None:
            return Verdict(False, False, "That is not a cell of the board. Try again.", self.config.invalid_penalty)
        if self.board[cell] != ".":
            return Verdict(False, False, "That cell is taken. Try again.", self.config.invalid_penalty)
        self.board = ttt.play(self.board, cell)
        return Verdict(True, True)

    def outcome(self) -> Outcome:
        return Outcome((self._seat_outcome("O"), self._seat_outcome("X")))

    def _seat_outcome(self, mark: str) -> SeatOutcome:
        won, over = ttt.winner(self.board), ttt.is_over(self.board)
        win, loss = won == mark, won == ttt.OTHER[mark]
        draw = over and won is None
        reward = 0.0  # an unfinished game earns nothing
        if win:
            reward = self.config.win_reward
        elif draw:
            reward = self.config.draw_reward
        elif loss:
            reward = self.config.loss_reward
        return SeatOutcome(reward, win, {"draw": float(draw), "loss": float(loss)})


_SEAT_NAMES = {"first": 0, "second": 1}


if __name__ == "__main__":
    from ragen.env.terminal import play_in_terminal

    play_in_terminal("tictactoe")
