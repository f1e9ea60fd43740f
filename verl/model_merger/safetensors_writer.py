"""safetensors files written tensor by tensor, with the same bytes for the same weights.

Format (github.com/huggingface/safetensors): 8 bytes length of the header, little endian; the header, JSON
`{name: {dtype, shape, data_offsets}}`, padded by spaces to a multiple of 8; the tensors' bytes without gaps. The
library's own writer wants a whole file's tensors in memory at once; this one holds one.
"""

import json
import os
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from verl.model_merger.sources import SAFETENSORS_DTYPES, TensorFacts

DTYPES = {dtype: name for name, dtype in SAFETENSORS_DTYPES.items()}
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(text: str | int) -> int:
    """Bytes of `5GB`, `300MB`, `2GiB` or a plain number.

    Raises:
        ValueError: anything else.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]i?B)?\s*", str(text), re.IGNORECASE)
    size = int(float(match.group(1)) * UNITS[(match.group(2) or "").upper()]) if match else 0
    if size <= 0:
        raise ValueError(f"--max_shard_size {text!r}: give a size such as 5GB, 300MB or 2GiB")
    return size


def write_safetensors(
    folder: Path, facts: Mapping[str, TensorFacts], read: Callable[[str], torch.Tensor], max_shard_bytes: int
) -> list[str]:
    """Write `model.safetensors`, or numbered shards with `model.safetensors.index.json`, tensors in order of name.

    Args:
        facts: shape and dtype of every tensor to write.
        read: gives a tensor of those facts; called once a tensor, in order.

    Returns:
        the names of the weight files.
    """
    shards = _plan(facts, max_shard_bytes)
    files = ["model.safetensors"]
    if len(shards) > 1:
        files = [f"model-{index:05d}-of-{len(shards):05d}.safetensors" for index in range(1, len(shards) + 1)]
    for file, names in zip(files, shards, strict=True):
        write_file(folder / file, {name: facts[name] for name in names}, read)
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(nbytes(fact) for fact in facts.values())},
            "weight_map": {name: file for file, names in zip(files, shards, strict=True) for name in names},
        }
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    return files


def write_file(path: Path, facts: Mapping[str, TensorFacts], read: Callable[[str], torch.Tensor]) -> None:
    """Write one safetensors file, tensor by tensor in the order of `facts`."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, fact in facts.items():
        header[name] = {"dtype": DTYPES[fact.dtype], "shape": list(fact.shape), "data_offsets": [offset, offset + nbytes(fact)]}
        offset += nbytes(fact)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, fact in facts.items():
            tensor = read(name)
            if tuple(tensor.shape) != fact.shape or tensor.dtype != fact.dtype:
                raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, expected {fact.dtype} {fact.shape}")
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
            del tensor  # before the next one is read
        file.flush()
        os.fsync(file.fileno())


def nbytes(fact: TensorFacts) -> int:
    """Bytes of a tensor."""
    count = 1
    for size in fact.shape:
        count *= size
    return count * fact.dtype.itemsize


def _plan(facts: Mapping[str, TensorFacts], max_shard_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    size = 0
    for name in sorted(facts):
        if shards[-1] and size + nbytes(facts[name]) > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += nbytes(facts[name])
    return shards
