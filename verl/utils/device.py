"""Which device this process computes on, and the process group over it."""

import os

import torch
import torch.distributed as dist

from verl.compat.devices import *  # noqa: F403  VeRL's other names of this module
from verl.compat.devices import __all__ as _compat

__all__ = [*_compat, "check_planned_device", "compute_device", "get_device_name", "init_process_group"]


def get_device_name() -> str:
    """ "cuda" where a GPU is visible to this process, otherwise "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def compute_device() -> torch.device:
    """The device of this process; on a GPU machine the current CUDA device."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def check_planned_device() -> None:
    """Raise ``RuntimeError`` where this process was planned for another kind of device than the one torch finds.
    ``WG_DEVICE`` says which (a worker group sets it): a torch without CUDA would go on with gloo, on the CPU."""
    planned, found = os.environ.get("WG_DEVICE"), get_device_name()
    if planned in (None, found):
        return
    if planned == "cuda":
        why = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a build without CUDA"
        raise RuntimeError(
            f"this rank was planned for a GPU, but torch {torch.__version__} ({why}) finds none in "
            f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}: install a torch for this driver (nvidia-smi "
            "shows the newest CUDA it can), or set trainer.device=cpu"
        )
    raise RuntimeError(
        f"this rank was planned for the CPU, but torch finds {torch.cuda.device_count()} GPUs: CUDA_VISIBLE_DEVICES must be empty"
    )


def init_process_group(rank: int, world_size: int) -> None:
    """Join the default group: gloo on CPUs; NCCL for CUDA tensors and gloo for CPU tensors on GPUs. Once a process.

    MASTER_ADDR and MASTER_PORT must be set, as a worker group (or torchrun) does.
    """
    if dist.is_initialized():
        return
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise RuntimeError(f"cannot join the process group: {' and '.join(missing)} not set (a WorkerGroup sets them)")
    check_planned_device()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        dist.init_process_group("cpu:gloo,cuda:nccl", rank=rank, world_size=world_size, device_id=compute_device())
    else:
        dist.init_process_group("gloo", rank=rank, world_size=world_size)
