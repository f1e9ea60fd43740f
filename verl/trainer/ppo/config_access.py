"""Reading a config that may be OmegaConf, a dict, a dataclass or absent, as VeRL's callers pass it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MISSING = object()


def _lookup(config: Any, name: str) -> Any:
    if config is None:
        return _MISSING
    if isinstance(config, Mapping) or hasattr(config, "_metadata"):  # a dict, or OmegaConf's DictConfig
        return config[name] if name in config else _MISSING  # noqa: SIM401 (a struct DictConfig's get raises)
    return getattr(config, name, _MISSING)


def config_value(config: Any, key: str, default: Any = None) -> Any:
    """``config.a.b`` for the dotted ``key`` "a.b"; ``default`` where it is absent or null."""
    for name in key.split("."):
        config = _lookup(config, name)
        if config is _MISSING or config is None:
            return default
    return config


class ConfigWithBatchInfo:
    """A config with ``global_batch_info`` beside its own keys; attribute access and ``get`` read the
    config. Policy losses (a user's own included) find there what :func:`agg_loss` must know."""

    def __init__(self, config: Any, global_batch_info: dict[str, Any]):
        self._config = config
        self.global_batch_info = global_batch_info

    def __getattr__(self, name: str) -> Any:
        value = _lookup(self.__dict__.get("_config"), name)
        if value is _MISSING:
            raise AttributeError(f"the policy loss config has no key {name!r}")
        return value

    def get(self, name: str, default: Any = None) -> Any:
        value = _lookup(self._config, name)
        return default if value is _MISSING else value


def with_batch_info(config: Any, **global_batch_info: Any) -> ConfigWithBatchInfo:
    """``config`` for a policy loss on a piece of a mini-batch. Keys: ``dp_size``,
    ``batch_num_tokens``, ``global_batch_size``, ``loss_scale_factor``, ``sequence_tokens`` (see ``agg_loss``)."""
    return ConfigWithBatchInfo(config, global_batch_info)


def batch_info(config: Any) -> dict[str, Any]:
    """The arguments for ``agg_loss`` that travel with the config (none: it is the whole mini-batch)."""
    info = dict(config_value(config, "global_batch_info", {}))
    if info.get("loss_scale_factor") is None:
        info["loss_scale_factor"] = config_value(config, "loss_scale_factor")
    return info
