"""Who's the spy: four players, one of whom holds another word."""

from ragen.env.undercover.config import UndercoverConfig
from ragen.env.undercover.env import UndercoverEnv

__all__ = ["UndercoverConfig", "UndercoverEnv"]
