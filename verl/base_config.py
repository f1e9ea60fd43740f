"""VeRL's import path for :mod:`verl.compat.base_config`."""

from verl.compat.base_config import BaseConfig

__all__ = ["BaseConfig"]
