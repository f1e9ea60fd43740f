"""torch.distributed.checkpoint (DCP) with tensors only and nothing unsafe to unpickle.

DCP keeps its table of contents in a pickle and reads non-tensor entries with an unrestricted `torch.load`. Here only
tensors are stored, and the table is read by an unpickler that knows DCP's own few classes and no others.
"""

import io
import logging
import pickle
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import ReadItem

from verl.utils.checkpoint.errors import CheckpointError, CorruptCheckpoint

METADATA = ".metadata"
_ALLOWED_MODULES = {"torch.distributed.checkpoint.metadata"}
_ALLOWED_NAMES = {
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("collections", "OrderedDict"),
    ("pathlib", "PosixPath"),
    ("pathlib", "Path"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if module in _ALLOWED_MODULES or (module, name) in _ALLOWED_NAMES or is_dtype:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint's table of contents")


class SafeFileSystemReader(dcp.FileSystemReader):
    """DCP's reader with a restricted unpickler; the table of contents is read once.

    Raises:
        CorruptCheckpoint: on construction, where the table is missing or is not DCP's.
    """

    def __init__(self, path: str | Path):
        super().__init__(path)
        file = Path(path, METADATA)
        try:
            self._metadata: Metadata = _Unpickler(io.BytesIO(file.read_bytes())).load()
            if not isinstance(self._metadata, Metadata):
                raise pickle.UnpicklingError(f"it holds a {type(self._metadata).__name__}")
        except FileNotFoundError as error:
            raise CorruptCheckpoint(Path(path).parent, f"{file} is missing") from error
        except Exception as error:  # a damaged pickle may raise anything
            raise CorruptCheckpoint(Path(path).parent, f"{file} cannot be read ({error})") from error

    def read_metadata(self, *args, **kwargs) -> Metadata:
        self._metadata.storage_meta = self._metadata.storage_meta or StorageMeta()
        self._metadata.storage_meta.load_id = self.load_id
        return self._metadata

    def tensors(self) -> dict[str, TensorStorageMetadata]:
        """Names, shapes and dtypes of what is stored."""
        return dict(self._metadata.state_dict_metadata)


class _TensorsOnly(dcp.DefaultLoadPlanner):
    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        raise CheckpointError(f"{read_item.dest_index.fqn} is not a tensor: such entries are not loaded, they could run code")


def save_tensors(tensors: dict[str, torch.Tensor], folder: str | Path) -> None:
    """Write tensors (DTensors: each rank its shards) into `folder`, flushed. All ranks call it together.

    Raises:
        CheckpointError: on all ranks, where one cannot write.
    """
    writer = dcp.FileSystemWriter(folder, single_file_per_rank=True, sync_files=True, overwrite=False)
    try:
        with _quiet():
            dcp.save(tensors, storage_writer=writer, process_group=object_group())
    except CheckpointException as error:  # a BaseException in torch
        raise CheckpointError(f"{folder} cannot be written ({_cause(error)})") from error


def load_tensors(tensors: dict[str, torch.Tensor], folder: str | Path, distributed: bool = True) -> None:
    """Fill `tensors` in place from `folder`, whatever number of ranks wrote it. All ranks call it together.

    Args:
        distributed: False: this process alone reads.

    Raises:
        CorruptCheckpoint: a tensor is missing or has another shape there.
    """
    read_tensors(SafeFileSystemReader(folder), tensors, distributed)


def read_tensors(reader: SafeFileSystemReader, tensors: dict[str, torch.Tensor], distributed: bool = False) -> None:
    """:func:`load_tensors` from an open reader."""
    stored = reader.tensors()
    for name, tensor in tensors.items():
        if name not in stored:
            raise CheckpointError(f"{reader.path} holds no {name}: it is a checkpoint of another model")
        if stored[name].size != tensor.size():
            raise CheckpointError(
                f"{name} is {tuple(stored[name].size)} in {reader.path} and {tuple(tensor.size())} in the model: "
                "it is a checkpoint of another model"
            )
    distributed = distributed and dist.is_initialized()
    group = object_group() if distributed else None
    try:
        with _quiet():
            dcp.load(tensors, storage_reader=reader, planner=_TensorsOnly(), process_group=group, no_dist=not distributed)
    except CheckpointError:
        raise
    except (Exception, CheckpointException) as error:
        raise CorruptCheckpoint(Path(reader.path).parent, f"{reader.path} cannot be read ({_cause(error)})") from error


def object_group() -> dist.ProcessGroup | None:
    """The group over which ranks agree on who writes what: gloo, so that plans need not pass through a GPU."""
    if not dist.is_initialized() or "gloo" in str(dist.get_backend_config()):
        return None
    world = dist.group.WORLD
    if world not in _GLOO_GROUPS:
        _GLOO_GROUPS[world] = dist.new_group(backend="gloo")
    return _GLOO_GROUPS[world]


_GLOO_GROUPS: dict[dist.ProcessGroup, dist.ProcessGroup] = {}


def _cause(error: BaseException) -> str:
    failures = getattr(error, "failures", None)
    if failures:
        rank, (first, _) = next(iter(failures.items()))
        return f"rank {rank}: {first}"
    return str(error)


class _quiet(warnings.catch_warnings):
    """Without DCP's warnings for one process alone, which is a case like any other here."""

    def __enter__(self):
        super().__enter__()
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")


logging.getLogger("torch.distributed.checkpoint").setLevel(logging.ERROR)
