"""VeRL's import path for what :mod:`verl.single_controller.ray` offers."""

from verl.compat.fused_workers import create_colocated_worker_cls_fused
from verl.compat.resource_pools import ResourcePoolManager, SubRayResourcePool, merge_resource_pool, split_resource_pool
from verl.single_controller.base import ClassWithInitArgs, ResourcePool, Worker, WorkerGroup
from verl.single_controller.ray import (
    RayClassWithInitArgs,
    RayResourcePool,
    RayWorkerGroup,
    ResourcesUnavailable,
    WorkerDied,
    WorkerError,
    create_colocated_worker_cls,
)
from verl.single_controller.ray.colocated import create_colocated_worker_raw_cls

__all__ = [
    "ClassWithInitArgs",
    "RayClassWithInitArgs",
    "RayResourcePool",
    "RayWorkerGroup",
    "ResourcePool",
    "ResourcePoolManager",
    "ResourcesUnavailable",
    "SubRayResourcePool",
    "Worker",
    "WorkerDied",
    "WorkerError",
    "WorkerGroup",
    "create_colocated_worker_cls",
    "create_colocated_worker_cls_fused",
    "create_colocated_worker_raw_cls",
    "merge_resource_pool",
    "split_resource_pool",
]
