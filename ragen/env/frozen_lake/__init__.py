"""Frozen lake: walk to the goal without falling in."""

from ragen.env.frozen_lake.config import FrozenLakeConfig
from ragen.env.frozen_lake.env import FrozenLakeEnv

__all__ = ["FrozenLakeConfig", "FrozenLakeEnv"]
