"""VeRL's helpers over plain Python containers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from verl._protocol.checks import MissingKeyError
from verl._protocol.merge import union_two_dict

__all__ = [
    "NestedNamespace",
    "convert_nested_value_to_list_recursive",
    "convert_to_regular_types",
    "list_of_dict_to_dict_of_list",
    "rename_dict",
    "temp_env_var",
    "union_two_dict",
]


def list_of_dict_to_dict_of_list(list_of_dict: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """``[{k: v0}, {k: v1}] -> {k: [v0, v1]}``. Raises :class:`~verl.protocol.MissingKeyError` (an ``AssertionError`` too)
    where the dicts do not have the same keys."""
    if not list_of_dict:
        return {}
    for i, row in enumerate(list_of_dict):
        if row.keys() != list_of_dict[0].keys():
            raise MissingKeyError(f"dict {i} and the first one differ in the keys {sorted(row.keys() ^ list_of_dict[0].keys())}")
    return {key: [row[key] for row in list_of_dict] for key in list_of_dict[0]}


def rename_dict(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every key with ``prefix``, unless it starts so already."""
    return {key if key.startswith(prefix) else prefix + key: value for key, value in data.items()}


def convert_to_regular_types(obj: Any) -> Any:
    """OmegaConf's containers, at any depth, as dicts and lists; a tuple becomes a list."""
    from omegaconf import DictConfig, ListConfig

    if isinstance(obj, DictConfig | dict):
        return {key: convert_to_regular_types(value) for key, value in obj.items()}
    if isinstance(obj, ListConfig | list | tuple):
        return [convert_to_regular_types(value) for value in obj]
    return obj


def convert_nested_value_to_list_recursive(data_item: Any) -> Any:
    """NumPy arrays, at any depth of dicts and lists, as lists."""
    if isinstance(data_item, np.ndarray):
        data_item = data_item.tolist()
    if isinstance(data_item, dict):
        return {key: convert_nested_value_to_list_recursive(value) for key, value in data_item.items()}
    if isinstance(data_item, list):
        return [convert_nested_value_to_list_recursive(value) for value in data_item]
    return data_item


class NestedNamespace(SimpleNamespace):
    """A dict as attributes; dicts in it are namespaces again."""

    def __init__(self, dictionary: dict[str, Any], **kwargs: Any) -> None:
        values = {key: NestedNamespace(value) if isinstance(value, dict) else value for key, value in dictionary.items()}
        super().__init__(**{**kwargs, **values})


@contextmanager
def temp_env_var(key: str, value: str) -> Iterator[None]:
    """Set an environment variable within the block; afterwards it is as it was before."""
    before = os.environ.get(key)
    os.environ[key] = value
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = before
