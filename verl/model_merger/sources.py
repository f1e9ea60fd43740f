"""Weights of a checkpoint, one whole tensor at a time, whatever layout and number of ranks wrote it."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open

from verl.utils.checkpoint.dcp_io import METADATA, SafeFileSystemReader, read_tensors
from verl.utils.checkpoint.errors import CheckpointError, CorruptCheckpoint

SAFETENSORS_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
RANK_FILE = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")


@dataclass(frozen=True)
class TensorFacts:
    """Shape and dtype of a stored tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class WeightSource(Protocol):
    """Names and facts of all tensors, and each on demand."""

    facts: dict[str, TensorFacts]

    def read(self, name: str) -> torch.Tensor:
        """The whole tensor on the CPU."""


def open_source(local_dir: str | os.PathLike) -> WeightSource:
    """The weights of `global_step_N/actor`, in GIFT's layout (DCP) or VeRL's (`model_world_size_W_rank_R.pt`).

    Raises:
        CheckpointError: the folder holds neither.
    """
    folder = Path(local_dir)
    if (folder / "model" / METADATA).is_file():
        return DCPSource(folder / "model")
    names = os.listdir(folder) if folder.is_dir() else []
    if any(RANK_FILE.fullmatch(name) for name in names):
        return RankFilesSource(folder)
    hint = " (give its actor folder)" if (folder / "actor").is_dir() else ""
    raise CheckpointError(
        f"--local_dir {folder} holds no checkpoint{hint}: expected model/{METADATA} or model_world_size_W_rank_R.pt in it"
    )


class DCPSource:
    """A torch.distributed.checkpoint folder."""

    def __init__(self, folder: Path):
        self.reader = SafeFileSystemReader(folder)
        self.facts = {
            name: TensorFacts(tuple(stored.size), stored.properties.dtype) for name, stored in self.reader.tensors().items()
        }

    def read(self, name: str) -> torch.Tensor:
        tensor = torch.empty(self.facts[name].shape, dtype=self.facts[name].dtype)
        read_tensors(self.reader, {name: tensor})
        return tensor


class RankFilesSource:
    """VeRL's layout: one pickle a rank of DTensor (or plain) shards. Mapped, not read; weights only, so no code runs."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.files = self._rank_files(folder)
        _allow_dtensors()
        self.ranks = [self._load(path) for path in self.files]
        for path, rank in zip(self.files[1:], self.ranks[1:], strict=True):
            if rank.keys() != self.ranks[0].keys():
                raise CorruptCheckpoint(folder, f"{path} holds other tensors than {self.files[0]}")
        self.facts = {name: self._facts(name) for name in self.ranks[0]}

    def read(self, name: str) -> torch.Tensor:
        pieces, dim = self._pieces(name)
        whole = pieces[0].clone() if dim is None else torch.cat(pieces, dim)
        if tuple(whole.shape) != self.facts[name].shape:
            raise CorruptCheckpoint(
                self.folder, f"{name} is {tuple(whole.shape)}, not {self.facts[name].shape}: a shard is missing"
            )
        return whole.contiguous()

    @staticmethod
    def _rank_files(folder: Path) -> list[Path]:
        found = {}
        for name in os.listdir(folder):
            if match := RANK_FILE.fullmatch(name):
                found.setdefault(int(match.group(1)), {})[int(match.group(2))] = folder / name
        if len(found) != 1:
            raise CheckpointError(f"{folder} holds files of {sorted(found)} ranks: keep those of one run")
        (world_size, files), *_ = found.items()
        if missing := sorted(set(range(world_size)) - set(files)):
            raise CorruptCheckpoint(folder, f"model_world_size_{world_size}_rank_{missing[0]}.pt is missing")
        return [files[rank] for rank in range(world_size)]

    def _load(self, path: Path) -> dict[str, torch.Tensor]:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # a damaged archive or a pickle of something else
            raise CorruptCheckpoint(self.folder, f"{path} cannot be read as weights ({str(error).splitlines()[0]})") from error
        return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}

    def _facts(self, name: str) -> TensorFacts:
        first = self.ranks[0][name]
        if _is_dtensor(first):
            return TensorFacts(tuple(first.shape), first.dtype)
        pieces, dim = self._pieces(name)
        shape = list(pieces[0].shape)
        if dim is not None:
            shape[dim] = sum(piece.shape[dim] for piece in pieces)
        return TensorFacts(tuple(shape), first.dtype)

    def _pieces(self, name: str) -> tuple[list[torch.Tensor], int | None]:
        """The shards of a tensor in order and the dimension they are cut along; None: every rank has all of it."""
        held = [rank[name] for rank in self.ranks]
        if not _is_dtensor(held[0]):
            return held, (None if len(held) == 1 or held[0].dim() == 0 else 0)
        placement, holders = _sharding(held[0], name)
        pieces = [held[rank]._local_tensor for rank in holders]
        return pieces, placement.dim if placement.is_shard() else None


def _is_dtensor(tensor: torch.Tensor) -> bool:
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def _sharding(tensor, name: str):
    """A DTensor's placement along its mesh's last dimension, and the ranks that hold the shards, in order."""
    placements = tensor._spec.placements
    mesh = tensor._spec.mesh.mesh
    if any(not placement.is_replicate() for placement in placements[:-1]) or placements[-1].is_partial():
        raise CheckpointError(f"{name} is placed as {placements}: only FSDP and hybrid FSDP layouts can be merged")
    return placements[-1], mesh.reshape(-1, mesh.shape[-1])[0].tolist()


def _allow_dtensors() -> None:
    """Let `weights_only` loading build DTensors, also under the module names of earlier torch versions."""
    import torch.distributed.tensor as tensor  # registers its classes as safe
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta

    old = "torch.distributed._tensor"
    aliases: Sequence[tuple[object, str]] = [
        (tensor.DTensor, f"{old}.api.DTensor"),
        (DTensorSpec, f"{old}._dtensor_spec.DTensorSpec"),
        (DTensorSpec, f"{old}.placement_types.DTensorSpec"),
        (TensorMeta, f"{old}._dtensor_spec.TensorMeta"),
        (TensorMeta, f"{old}.placement_types.TensorMeta"),
        (tensor.Shard, f"{old}.placement_types.Shard"),
        (tensor.Replicate, f"{old}.placement_types.Replicate"),
        (DeviceMesh, f"{old}.device_mesh.DeviceMesh"),
        (DeviceMesh, "torch.distributed.device_mesh.DeviceMesh"),
        (tensor.Shard, "torch.distributed.tensor.placement_types.Shard"),
        (tensor.Replicate, "torch.distributed.tensor.placement_types.Replicate"),
    ]
    torch.serialization.add_safe_globals(list(aliases))


class FolderSource:
    """A Hugging Face folder of safetensors, to compare with."""

    def __init__(self, folder: str | os.PathLike):
        files = sorted(Path(folder).glob("*.safetensors"))
        if not files:
            raise CheckpointError(f"{folder} holds no *.safetensors files")
        self.files, self.facts = {}, {}
        for path in files:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 (safe_open cannot be iterated)
                    self.files[name] = path
                    view = file.get_slice(name)  # the header alone, no weights
                    self.facts[name] = TensorFacts(tuple(view.get_shape()), SAFETENSORS_DTYPES[view.get_dtype()])

    def read(self, name: str) -> torch.Tensor:
        with safe_open(self.files[name], "pt") as file:
            return file.get_tensor(name)
