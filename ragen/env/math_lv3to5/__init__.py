"""Mathematics with one short answer: MATH levels 3 to 5, or a small set of the project's own."""

from ragen.env.math_lv3to5.config import MathConfig
from ragen.env.math_lv3to5.env import MathEnv

__all__ = ["MathConfig", "MathEnv"]
