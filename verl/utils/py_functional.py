"""VeRL's import path for :mod:`verl.compat.py_functional`."""

from verl.compat.metric import append_to_dict
from verl.compat.py_functional import *  # noqa: F403
from verl.compat.py_functional import __all__ as _compat
from verl.single_controller.base.modes import DynamicEnum

__all__ = [*_compat, "DynamicEnum", "append_to_dict"]
