"""A training checkpoint as a Hugging Face folder: `python -m verl.model_merger merge|test|monitor`."""

from verl.model_merger.merging import MergeConfig, merge

__all__ = ["MergeConfig", "merge"]
