"""VeRL's import path for what :mod:`verl.single_controller.ray` offers."""

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

__all__ = [
    "ClassWithInitArgs",
    "RayClassWithInitArgs",
    "RayResourcePool",
    "RayWorkerGroup",
    "ResourcePool",
    "ResourcesUnavailable",
    "Worker",
    "WorkerDied",
    "WorkerError",
    "WorkerGroup",
    "create_colocated_worker_cls",
]
