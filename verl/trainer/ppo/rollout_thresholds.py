"""What ``algorithm.rollout_correction`` asks for, read off its strings. Without torch, so that a configuration is checked in a second.

With ``d = log pi_old - log pi_rollout`` of a sampled token, an option of ``rollout_rs`` bounds one statistic:

    token, sequence, geometric               exp(d) of a token, exp(sum d) and exp(mean d) of a sequence
    token_k1, seq_sum_k1, seq_mean_k1        the same of -d, as VeRL has them: its ratio is the engine's to the trainer's
    token_k2, seq_sum_k2, seq_mean_k2, seq_max_k2    d^2 / 2 of a token; its sum, mean or largest in a sequence
    token_k3, seq_sum_k3, seq_mean_k3, seq_max_k3    exp(d) - 1 - d, likewise

Ratios (the first two lines) are kept in ``[lower, upper]``, written "0.5_2.0"; a number alone is the upper bound and its
reciprocal the lower, and then ``token`` and ``token_k1`` are the same. k2 and k3 are at least 0 and take an upper bound alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_SECTION = "rollout_correction"
_LEVELS = {"token": "token", "seq_sum": "sum", "seq_mean": "mean", "seq_max": "max"}

#: option -> (level: token, or what is made of a sequence's tokens; form: of a token)
RS_OPTIONS: dict[str, tuple[str, str]] = {
    "token": ("token", "ratio"),
    "sequence": ("sum", "ratio"),
    "geometric": ("mean", "ratio"),
    **{
        f"{name}_{form}": (level, form)
        for name, level in _LEVELS.items()
        for form in ("k1", "k2", "k3")
        if (name, form) != ("seq_max", "k1")
    },
}


@dataclass(frozen=True)
class Criterion:
    """One option with its bounds: keep where ``low <= statistic <= high``.

    Attributes:
        option: its name; ``level``, ``form``: see :data:`RS_OPTIONS`.
        low, high: of the statistic itself, so logarithms of the ratio's bounds for ``ratio`` and ``k1``.
    """

    option: str
    level: str
    form: str
    low: float
    high: float


def parse_rejection(rollout_rs: str, threshold: str | float | None, lower: float | None = None) -> list[Criterion]:
    """The criteria of ``rollout_rs``, a name or several with commas between (each once), all of which must hold.

    Args:
        threshold: one for all or one an option, with commas between: "2.0", "0.5_2.0", "0.5_2.0,0.01".
        lower: lower bound for ``token``, ``sequence``, ``geometric`` with a number as threshold.

    Raises:
        ValueError: an unknown option; bounds that are missing, too many, not positive, crossed or of the wrong form.
    """
    options = list(dict.fromkeys(part.strip() for part in str(rollout_rs).split(",") if part.strip()))
    unknown = [option for option in options if option not in RS_OPTIONS]
    if unknown or not options:
        raise ValueError(f"{_SECTION}.rollout_rs is {unknown[0] if unknown else rollout_rs!r}; known: {', '.join(RS_OPTIONS)} (or null for none)")
    if threshold is None or isinstance(threshold, bool):
        raise ValueError(f"{_SECTION}.rollout_rs={rollout_rs} needs rollout_rs_threshold, such as 2.0 or '0.5_2.0', got {threshold}")
    specs = [part.strip() for part in str(threshold).split(",") if part.strip()]
    if len(specs) not in (1, len(options)):
        raise ValueError(
            f"{_SECTION}.rollout_rs_threshold={threshold!r} has {len(specs)} entries for the {len(options)} options {rollout_rs}: "
            "give one for all, or one each"
        )
    specs = specs * len(options) if len(specs) == 1 else specs
    return [_criterion(option, spec, lower) for option, spec in zip(options, specs, strict=True)]


def _criterion(option: str, spec: str, lower: float | None) -> Criterion:
    level, form = RS_OPTIONS[option]
    key = f"{_SECTION}.rollout_rs_threshold"
    low, high = _bounds(key, spec)
    if lower is not None and (form != "ratio" or low is not None):
        raise ValueError(
            f"{_SECTION}.rollout_rs_threshold_lower={lower} is for token, sequence and geometric with a number as threshold: "
            f"leave it null and write the bounds of {option} as 'LOWER_UPPER' in rollout_rs_threshold"
        )
    if form in ("k2", "k3"):
        if low is not None:
            raise ValueError(f"{key}={spec!r}: {option} is never below 0 and takes an upper bound alone, such as 0.01")
        return Criterion(option, level, form, -math.inf, high)
    if low is None:
        low = 1.0 / high if lower is None else lower
        if low > high:
            named = f"{key}_lower={lower} is above" if lower is not None else f"the lower bound, 1/{high:g}, is above"
            raise ValueError(
                f"{key}={spec}: {named} the upper one; give an upper bound of at least 1, or both as '0.5_2.0' "
                "(in quotes: YAML reads 0.5_2 as 0.52)"
            )
        if low <= 0:
            raise ValueError(f"{key}_lower must be positive, got {low}")
    return Criterion(option, level, form, math.log(low), math.log(high))


def parse_weights(threshold: str | float) -> tuple[float, float | None]:
    """``(upper, lower or None)`` of ``rollout_is_threshold``: a number truncates weights above it, "LOWER_UPPER" (IcePop) sets those
    outside to 0.

    Raises:
        TypeError: it is a boolean, or neither a number nor a string. ValueError: it is no positive number or pair.
    """
    key = f"{_SECTION}.rollout_is_threshold"
    if isinstance(threshold, bool) or not isinstance(threshold, (str, int, float)):
        given = "a boolean" if isinstance(threshold, bool) else repr(threshold)
        raise TypeError(f"{key} must be a number or a string such as '0.5_2.0', not {given}")
    low, high = _bounds(key, str(threshold).strip())
    return high, low


def _bounds(key: str, spec: str) -> tuple[float | None, float]:
    """``(lower or None, upper)`` of "2.0" or "0.5_2.0"."""
    parts = spec.split("_")
    try:
        numbers = [float(part) for part in parts]
    except ValueError as error:
        raise ValueError(f"{key}={spec!r} must be a number such as 2.0, or two such as '0.5_2.0'") from error
    if len(numbers) > 2 or not all(number > 0 and math.isfinite(number) for number in numbers):
        raise ValueError(f"{key}={spec!r}: bounds must be positive numbers, one or two")
    if len(numbers) == 2 and numbers[0] > numbers[1]:
        raise ValueError(f"{key}={spec!r}: the lower bound is above the upper one")
    return (numbers[0] if len(numbers) == 2 else None), numbers[-1]
