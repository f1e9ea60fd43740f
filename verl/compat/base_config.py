"""``BaseConfig``: a dataclass that reads like a dict and whose fields are set once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import FrozenInstanceError, dataclass, fields
from typing import Any, ClassVar


@dataclass
class BaseConfig(Mapping):
    """Subclass it as a dataclass. ``config["name"]``, ``config.get("name")``, ``len`` and iteration go over the fields;
    setting one again raises ``FrozenInstanceError``, unless the class names it in ``_mutable_fields``."""

    _mutable_fields: ClassVar[set[str]] = set()
    _target_: str = ""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__ and name not in self._mutable_fields:
            raise FrozenInstanceError(f"Field {name!r} of {type(self).__name__} is frozen: build a new one, e.g. dataclasses.replace")
        super().__setattr__(name, value)

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)

    def get(self, key: str, default: Any = None) -> Any:
        return getattr(self, key, default)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and hasattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return (field.name for field in fields(self))

    def __len__(self) -> int:
        return len(fields(self))
