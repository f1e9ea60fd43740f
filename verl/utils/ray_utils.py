"""VeRL's import path for :mod:`verl.compat.ray_utils`."""

from verl.compat.ray_utils import *  # noqa: F403
from verl.compat.ray_utils import __all__ as __all__
