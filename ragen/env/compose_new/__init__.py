"""A nest: several games one after another in one trajectory."""

from ragen.env.compose_new.config import ComposeConfig
from ragen.env.compose_new.env import ComposeEnv

__all__ = ["ComposeConfig", "ComposeEnv"]
