"""A DataProto as one safetensors file: tensors as tensors, everything else as JSON in its metadata.

No pickle, so a file from a stranger can be opened: it holds data and cannot run code. The price is that
only plain data can be stored: tensors, arrays, numbers, strings, bytes, None, lists, tuples and dicts.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tensordict import TensorDict

from verl._protocol.checks import DataProtoError

_FORMAT = "verl.DataProto/1"
_TAG = "$"  # a JSON object with this key is an encoded value, not a dict of the user's


class _Encoder:
    """Turns values into JSON, putting tensors and arrays aside under ``x/N``."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}

    def add(self, name: str, tensor: torch.Tensor) -> None:
        # a copy: safetensors refuses tensors that share storage (chunks and slices do)
        self.tensors[name] = tensor.detach().cpu().contiguous().clone()

    def encode(self, value: Any, where: str) -> Any:
        if value is None or isinstance(value, bool | int | float | str) and not isinstance(value, np.generic):
            return value
        if isinstance(value, list):
            return [self.encode(v, f"{where}[{i}]") for i, v in enumerate(value)]
        if isinstance(value, tuple):
            return {_TAG: "tuple", "v": [self.encode(v, f"{where}[{i}]") for i, v in enumerate(value)]}
        if isinstance(value, dict):
            pairs = [[self.encode(k, where), self.encode(v, f"{where}[{k!r}]")] for k, v in value.items()]
            return {_TAG: "dict", "v": pairs}
        if isinstance(value, bytes):
            return {_TAG: "bytes", "v": base64.b64encode(value).decode()}
        if isinstance(value, torch.Tensor):
            name = f"x/{len(self.tensors)}"
            self.add(name, value)
            return {_TAG: "tensor", "v": name}
        if isinstance(value, np.ndarray | np.generic):
            return self._encode_array(value, where)
        raise DataProtoError(
            f"{where} holds a {type(value).__module__}.{type(value).__qualname__}, which cannot be saved without "
            "pickle: pop it first, or turn it into plain data (tensors, arrays, numbers, strings, lists, dicts)"
        )

    def _encode_array(self, value: np.ndarray | np.generic, where: str) -> dict:
        array, scalar = np.asarray(value), isinstance(value, np.generic)
        if array.dtype.kind == "O":
            items = [self.encode(v, f"{where}[{i}]") for i, v in enumerate(array.flat)]
            return {_TAG: "objects", "v": items, "shape": list(array.shape)}
        if array.dtype.kind == "V":
            raise DataProtoError(f"{where} is a structured array ({array.dtype}), which cannot be saved: split its fields")
        name = f"x/{len(self.tensors)}"
        raw = np.frombuffer(array.tobytes(), dtype=np.uint8)
        self.add(name, torch.from_numpy(raw.copy()))
        return {_TAG: "array", "v": name, "dtype": array.dtype.str, "shape": list(array.shape), "scalar": scalar}


def _decode(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    kind, v = value[_TAG], value["v"]
    if kind == "tuple":
        return tuple(_decode(x, tensors) for x in v)
    if kind == "dict":
        return {_decode(k, tensors): _decode(x, tensors) for k, x in v}
    if kind == "bytes":
        return base64.b64decode(v)
    if kind == "tensor":
        return tensors[v]
    if kind == "array":
        array = np.frombuffer(tensors[v].numpy().tobytes(), dtype=np.dtype(value["dtype"]))
        array = array.reshape(value["shape"]).copy()
        return array[()] if value["scalar"] else array
    if kind == "objects":
        out = np.empty(len(v), dtype=object)
        for i, item in enumerate(v):
            out[i] = _decode(item, tensors)
        return out.reshape(value["shape"])
    raise DataProtoError(f"unknown kind of value {kind!r} in the file")


def save(path: str | os.PathLike, batch: TensorDict | None, non_tensor_batch: dict, meta_info: dict) -> None:
    """Write the file beside its place and rename it, so that it is there whole or not at all."""
    encoder = _Encoder()
    for key, tensor in () if batch is None else batch.items():
        if not isinstance(tensor, torch.Tensor) or tensor.is_nested or tensor.dtype == torch.complex128:
            raise DataProtoError(f"batch[{key!r}] ({type(tensor).__name__}) cannot be saved: only plain tensors can")
        encoder.add(f"batch/{key}", tensor)
    header = {
        "format": _FORMAT,
        "batch_size": None if batch is None else list(batch.batch_size),
        "batch_keys": [] if batch is None else list(batch.keys()),
        "non_tensor_batch": {k: encoder.encode(v, f"non_tensor_batch[{k!r}]") for k, v in non_tensor_batch.items()},
        "meta_info": encoder.encode(meta_info, "meta_info"),
    }
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        save_file(encoder.tensors, partial, metadata={"dataproto": json.dumps(header)})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: str | os.PathLike) -> tuple[TensorDict | None, dict, dict]:
    """``(batch, non_tensor_batch, meta_info)`` of a file that :func:`save` wrote, on the CPU.

    Raises ``FileNotFoundError``, or :class:`DataProtoError` for a file of another kind.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no saved DataProto at {os.fspath(path)}")
    try:
        with safe_open(path, framework="pt") as f:
            header = json.loads((f.metadata() or {}).get("dataproto", "{}"))
            # clones, because safetensors maps the file, which may be replaced while we hold the tensors
            names = f.keys()
            tensors = {name: f.get_tensor(name).clone() for name in names}
    except SafetensorError as e:
        raise DataProtoError(f"{os.fspath(path)} is no DataProto saved by save_to_disk ({e})") from e
    if header.get("format") != _FORMAT:
        raise DataProtoError(f"{os.fspath(path)} is a safetensors file, but no saved DataProto ({_FORMAT})")
    batch = None
    if header["batch_size"] is not None:
        source = {key: tensors[f"batch/{key}"] for key in header["batch_keys"]}
        batch = TensorDict(source, batch_size=header["batch_size"])
    non_tensors = {key: _decode(value, tensors) for key, value in header["non_tensor_batch"].items()}
    return batch, non_tensors, _decode(header["meta_info"], tensors)
