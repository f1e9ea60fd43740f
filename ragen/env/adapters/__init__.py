"""Games of other libraries as an ``Env``, and an ``Env`` as a game of other libraries.

In:  ``textarena`` (TextArena), ``open_spiel`` (OpenSpiel), ``gymnasium`` (Gymnasium text and
     toy-text environments), each an ``env_type``.
Out: :class:`~ragen.env.adapters.to_gymnasium.GymnasiumGame`,
     :class:`~ragen.env.adapters.to_pettingzoo.PettingZooGame`.

The libraries are optional; each is imported when its adapter is built.
"""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, package: str, env_type: str) -> ModuleType:
    """Import an optional library; ``ImportError`` names what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{env_type} needs {package}: pip install {package} ({error})") from error
