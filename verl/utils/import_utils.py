"""A user's own modules, imported by name where VeRL's ``external_lib`` says so."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from verl.compat.modules import *  # noqa: F403  VeRL's other names of this module
from verl.compat.modules import __all__ as _compat

__all__ = [*_compat, "import_external_libs"]


def import_external_libs(external_libs: str | Sequence[str] | None = None) -> None:
    """Import one module or several, for what importing them does: registering games, players, estimators or
    policy losses, or model classes with transformers. Once a process, as imports are.

    Raises ``ImportError`` naming the module, the fault and the remedy, whatever went wrong inside it.
    """
    names = [external_libs] if isinstance(external_libs, str) else list(external_libs or ())
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise ImportError(
                f"external_lib {name!r} cannot be imported ({type(error).__name__}: {error}); "
                "install it, or put its folder on PYTHONPATH on every machine of the run"
            ) from error
