"""Sokoban: push every box onto a target."""

from ragen.env.sokoban.config import SokobanConfig
from ragen.env.sokoban.env import SokobanEnv

__all__ = ["SokobanConfig", "SokobanEnv"]
