"""The lines: their names, what they may take, and what a row of a result is. No torch in here."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class Skipped(Exception):
    """A line that cannot run here; the message says what it lacks."""


@dataclass(frozen=True)
class Line:
    """``seconds``: expected on one large GPU; ``limit_s``: after which its process is ended."""

    name: str
    what: str
    seconds: int
    limit_s: int
    function: Callable


#: by name, in the order in which they run
LINES: dict[str, Line] = {}

#: modules of lines in their order; others named `lines_*` follow
_ORDER = ("lines_machine", "lines_run", "lines_numbers", "lines_update", "lines_groups", "lines_state")


def line(name: str, what: str, seconds: int, limit_s: int | None = None) -> Callable[[Callable], Callable]:
    """Register ``function(setting) -> list of rows`` under ``name``."""

    def decorator(function: Callable) -> Callable:
        if name in LINES and LINES[name].function.__module__ != function.__module__:
            raise ValueError(f"two lines are called {name!r}")
        LINES[name] = Line(name, what, seconds, limit_s or max(60, 3 * seconds), function)
        return function

    return decorator


def all_lines() -> dict[str, Line]:
    """Every line. Their modules import torch inside functions alone: the driver has no use for it."""
    found = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if module.name.startswith("lines_")]
    for name in sorted(found, key=lambda n: (_ORDER.index(n) if n in _ORDER else len(_ORDER), n)):
        importlib.import_module(f"benchmarks.gpu.{name}")
    return LINES


def row(
    what: str, value: float | str | bool | None, unit: str = "", *,
    at_least: float | None = None, at_most: float | None = None, note: str = "",
) -> dict:  # fmt: skip
    """One row of the table: ``{what, value, unit, target, met, note}``. ``met`` is None without a target or a value; a bool as
    value is a check that must hold."""
    target, met = "", None
    if isinstance(value, bool):
        target, met = "yes", value
    elif at_least is not None or at_most is not None:
        target = " and ".join(f"{sign} {bound:g}" for sign, bound in ((">=", at_least), ("<=", at_most)) if bound is not None)
        if value is not None:
            met = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
    return {"what": what, "value": value, "unit": unit, "target": target, "met": met, "note": note}
