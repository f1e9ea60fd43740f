"""Which device this process computes on, and the process group over it."""

import os

import torch
import torch.distributed as dist

from verl.compat.devices import *  # noqa: F403  VeRL's other names of this module
from verl.compat.devices import __all__ as _compat

__all__ = [*_compat, "compute_device", "get_device_name", "init_process_group"]


def get_device_name() -> str:
    """ "cuda" where a GPU is visible to this process, otherwise "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def compute_device() -> torch.device:
    """The device of this process; on a GPU machine the current CUDA device."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def init_process_group(rank: int, world_size: int) -> None:
    """Join the default group: gloo on CPUs; NCCL for CUDA tensors and gloo for CPU tensors on GPUs. Once a process.

    MASTER_ADDR and MASTER_PORT must be set, as a worker group (or torchrun) does.
    """
    if dist.is_initialized():
        return
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise RuntimeError(f"cannot join the process group: {' and '.join(missing)} not set (a WorkerGroup sets them)")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        dist.init_process_group("cpu:gloo,cuda:nccl", rank=rank, world_size=world_size, device_id=compute_device())
    else:
        dist.init_process_group("gloo", rank=rank, world_size=world_size)
