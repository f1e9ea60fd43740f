"""VeRL's path to ``reduce_metrics`` and ``Metric`` (``verl.compat.metric``)."""

from verl.compat.metric import AggregationType, Metric, reduce_metrics

__all__ = ["AggregationType", "Metric", "reduce_metrics"]
