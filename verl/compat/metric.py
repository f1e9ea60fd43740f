"""Numbers collected under a name and reduced to one (``verl.utils.metric``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch


class AggregationType(Enum):
    """How the numbers of a :class:`Metric` become one."""

    MEAN = "mean"
    SUM = "sum"
    MIN = "min"
    MAX = "max"


_REDUCE = {
    AggregationType.MEAN: np.mean,
    AggregationType.SUM: np.sum,
    AggregationType.MIN: np.min,
    AggregationType.MAX: np.max,
}


class Metric:
    """Numbers with the way they are reduced.

    Args:
        aggregation: an :class:`AggregationType` or its value; ``ValueError`` for any other.
        value: a first number, or several.
    """

    def __init__(self, aggregation: str | AggregationType, value: Any = None):
        self.aggregation = AggregationType(aggregation)
        self.values: list[Any] = []
        if isinstance(value, (list, tuple)):
            self.extend(value)
        elif value is not None:
            self.append(value)

    def append(self, value: Any) -> None:
        """Add a number, a tensor of one element or all of another Metric. Raises ``ValueError`` for anything else."""
        if isinstance(value, Metric):
            return self.extend(value)
        if torch.is_tensor(value):
            if value.numel() != 1:
                raise ValueError(f"a metric takes numbers, got a tensor of shape {tuple(value.shape)}: reduce it first")
            value = value.detach().item()
        if not isinstance(value, (int, float, np.ndarray, np.number)):
            raise ValueError(f"a metric takes numbers, got {value!r}")
        self.values.append(value)
        return None

    def extend(self, values: Metric | Iterable[Any]) -> None:
        """Add several. Raises ``ValueError`` for a Metric that is reduced in another way."""
        if isinstance(values, Metric):
            if values.aggregation != self.aggregation:
                raise ValueError(f"cannot add a metric of {values.aggregation} to one of {self.aggregation}")
            values = values.values
        for value in list(values):
            self.append(value)

    def aggregate(self) -> float:
        return _REDUCE[self.aggregation](self.values)

    @classmethod
    def aggregate_dp(cls, metric_lists: list[Metric]) -> float:
        """One number from the same metric of several ranks: means over ranks are reduced for mean and sum, all values for
        min and max. Raises ``ValueError`` for an empty list and for ranks with different numbers of values."""
        if not metric_lists:
            raise ValueError("aggregate_dp needs the metric of at least one rank")
        lengths = [len(metric.values) for metric in metric_lists]
        if len(set(lengths)) > 1:
            raise ValueError(f"ranks hold different numbers of values: {lengths}")
        kind, values = metric_lists[0].aggregation, np.array([metric.values for metric in metric_lists])
        return _REDUCE[kind](values if kind in (AggregationType.MIN, AggregationType.MAX) else values.mean(axis=0))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], aggregation: str | AggregationType) -> dict[str, Metric]:
        return {name: cls(aggregation, value) for name, value in data.items()}

    def init_list(self) -> Metric:
        """An empty metric of the same kind."""
        return Metric(self.aggregation)


def reduce_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """One number a name: a :class:`Metric` in its own way, a list by its largest where the name contains ``max`` anywhere, by its
    smallest where it contains ``min``, else by its mean. NaN for an empty list."""
    return {name: _reduce(name, values) for name, values in metrics.items()}


def _reduce(name: str, values: Any) -> Any:
    if isinstance(values, Metric):
        return values.aggregate()
    if len(values) == 0:
        return float("nan")
    return np.max(values) if "max" in name else np.min(values) if "min" in name else np.mean(values)


def append_to_dict(data: dict[str, Any], new_data: Mapping[str, Any], prefix: str = "") -> None:
    """Add each value of ``new_data``, or all of a list, to what ``data`` holds under its name (a list, or a :class:`Metric`), in
    place. ``prefix`` goes before names that do not begin with it. VeRL has it in ``verl.utils.py_functional``."""
    for key, value in new_data.items():
        name = key if key.startswith(prefix) else f"{prefix}{key}"
        held = data.setdefault(name, value.init_list() if isinstance(value, Metric) else [])
        if isinstance(value, list):
            held.extend(value)
        else:
            held.append(value)
