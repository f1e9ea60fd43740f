"""VeRL's path to small helpers for dicts and lists (``verl.compat``)."""

from verl.compat.metric import append_to_dict

__all__ = ["append_to_dict"]
