"""Tic-tac-toe on the 3x3 board."""

from ragen.env.tictactoe.config import TicTacToeConfig
from ragen.env.tictactoe.env import TicTacToeEnv

__all__ = ["TicTacToeConfig", "TicTacToeEnv"]
