"""VeRL's newer name for colocated workers."""

from __future__ import annotations

from verl.single_controller.ray.colocated import create_colocated_worker_cls
from verl.single_controller.ray.resource_pool import RayClassWithInitArgs


def create_colocated_worker_cls_fused(class_dict: dict[str, RayClassWithInitArgs]) -> RayClassWithInitArgs:
    """The same as :func:`~verl.single_controller.ray.create_colocated_worker_cls`: there is one way to share a process here."""
    return create_colocated_worker_cls(class_dict)
