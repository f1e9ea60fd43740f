"""Multi-armed bandit."""

from ragen.env.bandit.config import BanditConfig
from ragen.env.bandit.env import BanditEnv

__all__ = ["BanditConfig", "BanditEnv"]
