"""VeRL's questions about the accelerator of this process. GPUs of NVIDIA and CPUs are known here; other hardware is not."""

from __future__ import annotations

import logging
from types import ModuleType
from typing import Any

import torch

__all__ = [
    "auto_set_device",
    "get_device_capability",
    "get_device_id",
    "get_nccl_backend",
    "get_resource_name",
    "get_torch_device",
    "get_vendor",
    "get_visible_devices_keyword",
    "is_cuda_available",
    "is_device_available",
    "is_npu_available",
    "is_support_ipc",
    "is_torch_npu_available",
    "manual_seed",
    "manual_seed_all",
    "set_expandable_segments",
]

logger = logging.getLogger(__name__)

is_cuda_available: bool = torch.cuda.is_available()
is_npu_available: bool = False


def get_torch_device() -> ModuleType:
    """``torch.cuda`` where a GPU is visible, otherwise ``torch.cpu``, which offers ``synchronize``, ``set_device``,
    ``current_device`` and ``device_count`` as well."""
    return torch.cuda if torch.cuda.is_available() else torch.cpu


def get_device_id() -> int | str:
    """The current device as ``Tensor.to`` takes it: the GPU's index, ``"cpu"`` without one."""
    return get_torch_device().current_device()


def get_nccl_backend() -> str:
    """The backend of a process group: ``"nccl"`` on GPUs, ``"gloo"`` on CPUs."""
    return "nccl" if torch.cuda.is_available() else "gloo"


def get_resource_name() -> str:
    """Ray's name of the accelerator: ``"GPU"``, ``"CPU"`` without one."""
    return "GPU" if torch.cuda.is_available() else "CPU"


def get_vendor() -> str:
    return "nvidia" if torch.cuda.is_available() else "cpu"


def get_visible_devices_keyword() -> str:
    """The environment variable that says which devices a process may use."""
    return "CUDA_VISIBLE_DEVICES"


def get_device_capability(device_id: int = 0) -> tuple[int | None, int | None]:
    """``(major, minor)`` of a GPU, ``(None, None)`` without one."""
    return torch.cuda.get_device_capability(device_id) if torch.cuda.is_available() else (None, None)


def is_device_available() -> bool:
    """Whether this process sees an accelerator."""
    return torch.cuda.is_available()


def is_support_ipc() -> bool:
    """Whether processes may share the accelerator's memory by handle."""
    return torch.cuda.is_available()


def is_torch_npu_available(check_device: bool = True) -> bool:
    """Always False: Ascend NPUs are not supported here."""
    return False


def set_expandable_segments(enable: bool) -> None:
    """Turn the CUDA allocator's expandable segments on or off; without a GPU nothing happens."""
    if torch.cuda.is_available():
        torch.cuda.memory._set_allocator_settings(f"expandable_segments:{enable}")


def manual_seed(seed: int) -> None:
    """Seed the current GPU's generator; without one, torch's own."""
    torch.cuda.manual_seed(seed) if torch.cuda.is_available() else torch.manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    """Seed every visible GPU's generator; without one, torch's own."""
    torch.cuda.manual_seed_all(seed) if torch.cuda.is_available() else torch.manual_seed(seed)


def auto_set_device(config: Any) -> None:
    """Set ``config.trainer.device`` to the accelerator there is; on a machine without one it stays."""
    if not hasattr(getattr(config, "trainer", None), "device") or not torch.cuda.is_available():
        return
    if config.trainer.device != "cuda":
        logger.warning("trainer.device=%s: this process computes on cuda, which is used instead", config.trainer.device)
        config.trainer.device = "cuda"
