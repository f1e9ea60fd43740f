"""Errors of :mod:`verl.protocol` and the comparisons behind them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch


class DataProtoError(ValueError, AssertionError):
    """A DataProto operation that makes no sense for its data.

    VeRL raises ``AssertionError`` here, so code that catches that keeps working; unlike an
    ``assert`` it is raised under ``python -O`` too.
    """


class MissingKeyError(DataProtoError, KeyError):
    """A key that the DataProto does not have."""

    __str__ = Exception.__str__  # KeyError would show the message in quotes


def require_keys(wanted: Iterable[str], present: Iterable[str], where: str) -> None:
    """Raise :class:`MissingKeyError` unless every key of ``wanted`` is in ``present``."""
    present = list(present)
    missing = [key for key in wanted if key not in present]
    if missing:
        raise MissingKeyError(f"{where} has no key {missing}; it has {sorted(map(str, present))}")


def tensors_equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Same shape, dtype and values, NaN being equal to NaN."""
    if a is b:
        return True
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.device != b.device:
        b = b.to(a.device)
    if torch.equal(a, b):
        return True
    if not (a.is_floating_point() or a.is_complex()):
        return False
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


def deep_equal(a: Any, b: Any, _path: frozenset[tuple[int, int]] = frozenset()) -> bool:
    """Structural equality of arrays, tensors and containers: types and dtypes must agree, NaN equals
    NaN, and a structure that contains itself is compared without end-less recursion."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    here = (id(a), id(b))
    if here in _path:  # the same pair is being compared further up: equal as far as we can tell
        return True
    path = _path | {here}
    if isinstance(a, torch.Tensor):
        return tensors_equal(a, b)
    if isinstance(a, np.ndarray):
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        if a.dtype == object:
            return all(deep_equal(x, y, path) for x, y in zip(a.flat, b.flat, strict=True))
        return bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(deep_equal(a[k], b[k], path) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(deep_equal(x, y, path) for x, y in zip(a, b, strict=True))
    if isinstance(a, float | np.floating) and math.isnan(a) and math.isnan(b):
        return True
    return bool(a == b)


def shorten(value: Any, limit: int = 80) -> str:
    """``repr(value)`` cut to ``limit`` characters, for error messages."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
