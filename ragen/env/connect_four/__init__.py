"""Connect four."""

from ragen.env.connect_four.config import ConnectFourConfig
from ragen.env.connect_four.env import ConnectFourEnv

__all__ = ["ConnectFourConfig", "ConnectFourEnv"]
