"""The words of tic-tac-toe: several tellings of the same rules; the seed picks one."""

from __future__ import annotations

import random

#: {me} is the seat's own mark, {other} its opponent's. O always moves first.
RULES = (
    "Let's play tic-tac-toe on a 3x3 board. You are {me}, your opponent is {other}, and O moves first. Name the cell you take as (row,column).",
    "This is a game of tic-tac-toe. You play {me} against {other}; O starts. Cells are written (row,column), counted from 1. Choose a free cell.",
    "Tic-tac-toe, 3 rows and 3 columns. Your mark is {me}, the other player's is {other}. O has the first move. Reply with a free cell (row,column).",
    "You and an opponent take turns to mark cells of a 3x3 grid. You write {me}, the opponent {other}; O begins. Give your move as (row,column).",
    "Play tic-tac-toe as {me}. Your opponent plays {other} and O goes first. A move is a free cell, written (row,column) from 1 to 3.",
    "Here is a 3x3 tic-tac-toe board. {me} is yours and {other} is your opponent's; the first move belongs to O. Answer with (row,column).",
)

WIN_CONDITION = (
    " Three marks in a row, column or diagonal win.",
    " Whoever first has three in a line wins; a full board is a draw.",
    " The winner is the first to own a whole row, column or diagonal.",
)


def rules_text(rng: random.Random, me: str, other: str, win_condition: str) -> str:
    """One telling of the rules. ``win_condition``: auto (a coin of ``rng``), always, never."""
    text = rng.choice(RULES).format(me=me, other=other)
    tail = rng.choice(WIN_CONDITION)
    told = rng.random() < 0.5
    if win_condition == "always" or (win_condition == "auto" and told):
        text += tail
    return text + "\n"


def board_text(board: str) -> str:
    """Three lines of three cells, each with its coordinates: ``(1,1)O (1,2)- (1,3)X``. A cell that
    carries its own coordinates can be one token, which is what lets a small model read it."""
    cells = [f"({i // 3 + 1},{i % 3 + 1}){mark.replace('.', '-')}" for i, mark in enumerate(board)]
    return "\n".join(" ".join(cells[row : row + 3]) for row in (0, 3, 6))
