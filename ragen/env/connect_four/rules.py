"""Connect four as pure functions, without a word of English."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

OTHER = {"X": "O", "O": "X"}


class Board(NamedTuple):
    """``cells``: rows from top to bottom, ``.`` empty, ``X`` (moves first) or ``O``."""

    cells: str
    rows: int
    columns: int
    connect: int


def empty_board(rows: int = 6, columns: int = 7, connect: int = 4) -> Board:
    return Board("." * (rows * columns), rows, columns, connect)


def to_move(board: Board) -> str:
    """The mark whose turn it is: X when both have played equally often."""
    return "X" if board.cells.count("X") == board.cells.count("O") else "O"


def open_columns(board: Board) -> tuple[int, ...]:
    """Columns (from 0) that are not full; none once the game is over."""
    if winner(board):
        return ()
    return tuple(c for c in range(board.columns) if board.cells[c] == ".")


def is_over(board: Board) -> bool:
    return not open_columns(board)


def drop(board: Board, column: int, mark: str | None = None) -> Board:
    """The board after a disc (of the mark to move, unless told) falls into ``column``.
    Raises ``ValueError`` if it cannot."""
    if column not in open_columns(board):
        raise ValueError(f"column {column} is full, absent, or the game is over")
    row = max(r for r in range(board.rows) if board.cells[r * board.columns + column] == ".")
    at = row * board.columns + column
    return board._replace(cells=board.cells[:at] + (mark or to_move(board)) + board.cells[at + 1 :])


@lru_cache(maxsize=64)
def lines(rows: int, columns: int, connect: int) -> tuple[tuple[int, ...], ...]:
    """Cell indices of every line of ``connect`` cells."""
    found = []
    for r in range(rows):
        for c in range(columns):
            for dr, dc in ((0, 1), (1, 0), (1, 1), (1, -1)):
                end_r, end_c = r + dr * (connect - 1), c + dc * (connect - 1)
                if end_r < rows and 0 <= end_c < columns:
                    found.append(tuple((r + dr * k) * columns + c + dc * k for k in range(connect)))
    return tuple(found)


@lru_cache(maxsize=65536)
def winner(board: Board) -> str | None:
    """The mark that owns a line, if any."""
    for line in lines(board.rows, board.columns, board.connect):
        mark = board.cells[line[0]]
        if mark != "." and all(board.cells[i] == mark for i in line):
            return mark
    return None


def winning_columns(board: Board, mark: str) -> tuple[int, ...]:
    """Columns where a disc of ``mark`` would complete a line, whoever is to move."""
    return tuple(c for c in open_columns(board) if winner(drop(board, c, mark)) == mark)
