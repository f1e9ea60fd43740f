"""Worker groups whose processes are Ray actors."""

from verl.single_controller.base.errors import ResourcesUnavailable, WorkerDied, WorkerError
from verl.single_controller.ray.colocated import create_colocated_worker_cls
from verl.single_controller.ray.resource_pool import RayClassWithInitArgs, RayResourcePool
from verl.single_controller.ray.worker_group import RayWorkerGroup

__all__ = [
    "RayClassWithInitArgs",
    "RayResourcePool",
    "RayWorkerGroup",
    "ResourcesUnavailable",
    "WorkerDied",
    "WorkerError",
    "create_colocated_worker_cls",
]


def __getattr__(name: str):
    # VeRL's other names of this package; lazily, because they are built on it
    if name in ("ResourcePoolManager", "SubRayResourcePool", "create_colocated_worker_cls_fused"):
        from verl.single_controller.ray import base

        return getattr(base, name)
    raise AttributeError(f"module 'verl.single_controller.ray' has no attribute {name!r}")
