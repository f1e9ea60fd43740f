"""Small state on disk without pickle: a JSON file for the structure, a safetensors file for the tensors.

`save_state("x/driver", {"step": 3, "weights": tensor})` writes `x/driver.json` and, if there is a tensor in it,
`x/driver.safetensors`. What comes back is equal to what went in: dicts (any keys that are themselves plain), lists,
tuples, str, int, float, bool, None, torch tensors, NumPy arrays and numbers.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from verl.utils.checkpoint.errors import CorruptCheckpoint

TAG = "__type__"  # marks a JSON object that stands for something else


def save_state(stem: str | os.PathLike, state: Any) -> None:
    """Write `state` to `stem.json` (and `stem.safetensors`), flushed to the disk.

    Raises:
        TypeError: a value that is neither plain nor a tensor; the message says where it stands.
    """
    tensors: dict[str, torch.Tensor] = {}
    structure = _encode(state, "state", tensors)
    if tensors:
        save_file(tensors, _path(stem, ".safetensors"))
        fsync(_path(stem, ".safetensors"))
    write_text(_path(stem, ".json"), json.dumps(structure, indent=1) + "\n")


def load_state(stem: str | os.PathLike) -> Any:
    """What :func:`save_state` wrote.

    Raises:
        CorruptCheckpoint: a file is missing or cannot be read.
    """
    folder = Path(stem).parent
    try:
        structure = json.loads(_path(stem, ".json").read_text())
        tensors = load_file(_path(stem, ".safetensors")) if _path(stem, ".safetensors").exists() else {}
        return _decode(structure, tensors)
    except FileNotFoundError as error:
        raise CorruptCheckpoint(folder, f"{error.filename} is missing") from error
    except (ValueError, KeyError, SafetensorError) as error:
        raise CorruptCheckpoint(folder, f"{_path(stem, '.json')} or its tensors cannot be read ({error})") from error


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file and wait until it is on the disk."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def fsync(path: str | os.PathLike) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _path(stem: str | os.PathLike, suffix: str) -> Path:
    return Path(f"{stem}{suffix}")


def _encode(value: Any, where: str, tensors: dict[str, torch.Tensor]) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, np.generic):
        return _encode(value.item(), where, tensors)
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, torch.Tensor):
        tensors[where] = value.detach().cpu().contiguous().clone()  # clone: safetensors refuses shared memory
        return {TAG: "tensor", "name": where}
    if isinstance(value, np.ndarray) and value.dtype != object:
        tensors[where] = torch.from_numpy(np.ascontiguousarray(value)).clone()
        return {TAG: "ndarray", "name": where}
    if isinstance(value, (list, tuple)):
        items = [_encode(item, f"{where}[{index}]", tensors) for index, item in enumerate(value)]
        return items if isinstance(value, list) else {TAG: "tuple", "items": items}
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value) and TAG not in value:
            return {key: _encode(item, f"{where}.{key}", tensors) for key, item in value.items()}
        pairs = [
            [_encode(key, f"{where} (key {key!r})", tensors), _encode(item, f"{where}.{key}", tensors)]
            for key, item in value.items()
        ]
        return {TAG: "dict", "items": pairs}
    raise TypeError(f"{where} is a {type(value).__name__}: a checkpoint holds plain values, lists, dicts and tensors only")


def _decode(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get(TAG)
    if kind is None:
        return {key: _decode(item, tensors) for key, item in value.items()}
    if kind == "tensor":
        return tensors[value["name"]]
    if kind == "ndarray":
        return tensors[value["name"]].numpy()
    items = _decode(value["items"], tensors)
    return tuple(items) if kind == "tuple" else {key: item for key, item in items}
