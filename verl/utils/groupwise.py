"""VeRL's path to ``as_torch_index`` and ``group_mean_std`` (``verl.compat.groupwise``)."""

from verl.compat.groupwise import as_torch_index, get_device_name, group_mean_std

__all__ = ["as_torch_index", "get_device_name", "group_mean_std"]
