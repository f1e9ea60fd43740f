"""Connect four as an :class:`~ragen.env.base.Env`: seat 0 is X and moves first, seat 1 is O.

``python -m ragen.env.connect_four.env`` plays it in the terminal.
"""

from __future__ import annotations

import random
import re

from ragen.env.base import Env, Outcome, SeatOutcome, Verdict, derived_rng
from ragen.env.connect_four import rules as c4
from ragen.env.connect_four.config import SEATS, ConnectFourConfig

MARKS = ("X", "O")
_MOVE = re.compile(r"(?:column\s+)?\(?(\d)\)?", re.IGNORECASE)

#: {me}, {other}: marks; {columns}: number of columns; {connect}: length of a winning line
TELLINGS = (
    "This is connect {connect}. You drop {me} discs, your opponent {other}; X moves first. A move is a column from 1 to {columns}; the disc falls to the lowest free cell. {connect} in a line win.",
    "Let's play connect {connect} on a standing board. You are {me}, the other player is {other}, and X begins. Name the column, 1 to {columns}, that takes your disc. Whoever has {connect} in a row, column or diagonal wins.",
    "You and an opponent drop discs into {columns} columns. Yours are {me}, the opponent's {other}; X starts. Answer with the number of a column that is not full. The first line of {connect} wins.",
    "Connect {connect}: {me} is your mark and {other} your opponent's, X has the first move. Choose a column by its number (1 to {columns}). {connect} of your discs in one line win the game.",
)


class ConnectFourEnv(Env):
    seats = 2

    def __init__(self, config: ConnectFourConfig | None = None):
        self.config = config or ConnectFourConfig()
        self.board, self._rules = c4.empty_board(self.config.rows, self.config.columns, self.config.connect), ("", "")

    def reset(self, *, seed: int) -> None:
        rng, cfg = derived_rng("connect_four", seed), self.config
        drawn = rng.randrange(2)
        self.trained_seats = (drawn if cfg.trained_seat == "random" else SEATS.index(cfg.trained_seat) - 1,)
        telling = rng.choice(TELLINGS)
        self._rules = tuple(
            telling.format(me=MARKS[s], other=MARKS[1 - s], columns=cfg.columns, connect=cfg.connect) + "\n" for s in (0, 1)
        )
        self.board = self._opening(rng)

    def _opening(self, rng: random.Random) -> c4.Board:
        board = c4.empty_board(self.config.rows, self.config.columns, self.config.connect)
        for _ in range(2 * rng.randint(0, self.config.opening_moves)):
            board = c4.drop(board, rng.choice(c4.open_columns(board)))
        return board

    def acting(self) -> tuple[int, ...]:
        return () if c4.is_over(self.board) else (MARKS.index(c4.to_move(self.board)),)

    def rules(self, seat: int) -> str:
        return self._rules[seat]

    def observe(self, seat: int) -> str:
        columns = self.config.columns
        lines = [" ".join(self.board.cells[r * columns : (r + 1) * columns]) for r in range(self.config.rows)]
        turn = f"Your move, {MARKS[seat]}." if self.acting() == (seat,) else ""
        return "\n".join((*lines, " ".join(str(c + 1) for c in range(columns)), turn)).rstrip("\n")

    def public(self, seat: int) -> tuple[c4.Board, str]:
        return self.board, MARKS[seat]

    def legal(self, seat: int) -> tuple[str, ...]:
        return tuple(str(c + 1) for c in c4.open_columns(self.board))

    def act(self, seat: int, text: str) -> Verdict:
        self._require_acting(seat)
        match = _MOVE.fullmatch(text.strip())
        column = int(match[1]) - 1 if match else -1
        if not 0 <= column < self.config.columns:
            return Verdict(False, False, f"That is not a column from 1 to {self.config.columns}. Try again.", self.config.invalid_penalty)
        if column not in c4.open_columns(self.board):
            return Verdict(False, False, "That column is full. Try again.", self.config.invalid_penalty)
        self.board = c4.drop(self.board, column)
        return Verdict(True, True)

    def outcome(self) -> Outcome:
        return Outcome(tuple(self._seat_outcome(mark) for mark in MARKS))

    def _seat_outcome(self, mark: str) -> SeatOutcome:
        won = c4.winner(self.board)
        win, loss, draw = won == mark, won == c4.OTHER[mark], won is None and c4.is_over(self.board)
        reward = 0.0  # an unfinished game earns nothing
        for happened, paid in ((win, self.config.win_reward), (loss, self.config.loss_reward), (draw, self.config.draw_reward)):
            reward = paid if happened else reward
        return SeatOutcome(reward, win, {"draw": float(draw), "loss": float(loss)})


if __name__ == "__main__":
    from ragen.env.terminal import play_in_terminal

    play_in_terminal("connect_four")
