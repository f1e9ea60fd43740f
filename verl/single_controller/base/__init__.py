"""Workers and groups, whatever starts the processes."""

from verl.single_controller.base.errors import ResourcesUnavailable, WorkerDied, WorkerError
from verl.single_controller.base.worker import Worker
from verl.single_controller.base.worker_group import ClassWithInitArgs, ResourcePool, WorkerGroup

__all__ = ["ClassWithInitArgs", "ResourcePool", "ResourcesUnavailable", "Worker", "WorkerDied", "WorkerError", "WorkerGroup"]
