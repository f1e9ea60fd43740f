"""Multiple-choice questions."""

from ragen.env.mmlu.config import MmluConfig
from ragen.env.mmlu.env import MmluEnv

__all__ = ["MmluConfig", "MmluEnv"]
