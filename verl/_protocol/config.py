"""The switch for automatic padding."""

from __future__ import annotations

import os

from verl._protocol.checks import DataProtoError


class _DataProtoConfigMeta(type):
    _auto_padding = False

    @property
    def auto_padding(cls) -> bool:
        return cls._auto_padding or os.environ.get("VERL_AUTO_PADDING", "").upper() in ("TRUE", "1")

    @auto_padding.setter
    def auto_padding(cls, enabled: bool) -> None:
        if not isinstance(enabled, bool):
            raise DataProtoError(f"auto_padding must be True or False, got {enabled!r}")
        _DataProtoConfigMeta._auto_padding = enabled


class DataProtoConfig(metaclass=_DataProtoConfigMeta):
    """``DataProtoConfig.auto_padding = True`` (or ``VERL_AUTO_PADDING=1``) lets a DP dispatch pad any
    batch to a multiple of the ranks and cut the padding off the result. One batch alone asks for it
    with ``DataProto.from_dict(..., auto_padding=True)``."""

    auto_padding_key = "_verl_auto_padding"
