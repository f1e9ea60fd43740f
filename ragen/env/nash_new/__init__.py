"""Matrix games: name the action that a Nash equilibrium plays."""

from ragen.env.nash_new.config import NashConfig
from ragen.env.nash_new.env import NashEnv

__all__ = ["NashConfig", "NashEnv"]
