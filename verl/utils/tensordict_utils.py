"""VeRL's import path for :mod:`verl.compat.tensordict_utils`."""

from verl.compat.tensordict_utils import *  # noqa: F403
from verl.compat.tensordict_utils import __all__ as __all__
