"""Tic-tac-toe as pure functions, without a word of English.

A board is a string of nine characters in reading order, ``.`` empty, ``O`` (moves first) or ``X``.
"""

from __future__ import annotations

from functools import cache

EMPTY_BOARD = "." * 9
LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))
OTHER = {"O": "X", "X": "O"}


def to_move(board: str) -> str:
    """The mark whose turn it is: O when both have played equally often."""
    return "O" if board.count("O") == board.count("X") else "X"


def winner(board: str) -> str | None:
    """The mark that owns a line, if any."""
    for a, b, c in LINES:
        if board[a] != "." and board[a] == board[b] == board[c]:
            return board[a]
    return None


def is_over(board: str) -> bool:
    return "." not in board or winner(board) is not None


def empty_cells(board: str) -> tuple[int, ...]:
    return tuple(i for i, mark in enumerate(board) if mark == ".")


def play(board: str, cell: int) -> str:
    """The board after the mark to move takes ``cell`` (0-8). Raises ``ValueError`` if it cannot."""
    if is_over(board):
        raise ValueError(f"the game on {board!r} is over")
    if board[cell] != ".":
        raise ValueError(f"cell {cell} of {board!r} is taken")
    return board[:cell] + to_move(board) + board[cell + 1 :]


@cache
def value(board: str) -> int:
    """Result under perfect play from here on: 1 if O wins, -1 if X wins, 0 a draw."""
    won = winner(board)
    if won is not None:
        return 1 if won == "O" else -1
    if "." not in board:
        return 0
    values = [value(play(board, cell)) for cell in empty_cells(board)]
    return max(values) if to_move(board) == "O" else min(values)


@cache
def best_cells(board: str) -> tuple[int, ...]:
    """Cells that keep the value of the position (all perfect moves)."""
    target = value(board)
    return tuple(cell for cell in empty_cells(board) if value(play(board, cell)) == target)


def winning_cells(board: str, mark: str) -> tuple[int, ...]:
    """Empty cells that complete a line of ``mark``, whoever is to move."""
    return tuple(c for c in empty_cells(board) if winner(board[:c] + mark + board[c + 1 :]) == mark)


def cell_name(cell: int) -> str:
    """``0`` -> ``(1,1)``: row and column counted from 1."""
    return f"({cell // 3 + 1},{cell % 3 + 1})"
