"""Countdown: make a target from given numbers."""

from ragen.env.countdown.config import CountdownConfig
from ragen.env.countdown.env import CountdownEnv

__all__ = ["CountdownConfig", "CountdownEnv"]
