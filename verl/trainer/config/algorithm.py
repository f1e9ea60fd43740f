"""VeRL's path of its dataclasses of the ``algorithm`` section."""

from verl.compat.algorithm_config import AlgoConfig, FilterGroupsConfig, KLControlConfig, RolloutCorrectionConfig

__all__ = ["AlgoConfig", "FilterGroupsConfig", "KLControlConfig", "RolloutCorrectionConfig"]
