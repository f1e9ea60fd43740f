"""VeRL's dataclasses of the ``algorithm`` section (the YAML files are in ``config/``)."""

from verl.compat.algorithm_config import AlgoConfig, FilterGroupsConfig, KLControlConfig, RolloutCorrectionConfig

__all__ = ["AlgoConfig", "FilterGroupsConfig", "KLControlConfig", "RolloutCorrectionConfig"]
