"""As ``verl.utils.metric``, at VeRL's other path."""

from verl.compat.metric import AggregationType, Metric, reduce_metrics

__all__ = ["AggregationType", "Metric", "reduce_metrics"]
