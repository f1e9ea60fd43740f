"""Several workers in one process: roles that share a device, e.g. actor and critic."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from verl.single_controller.base import Worker
from verl.single_controller.base.decorator import MAGIC_ATTR, Dispatch
from verl.single_controller.base.worker_group import registered_methods
from verl.single_controller.ray.resource_pool import RayClassWithInitArgs


def create_colocated_worker_cls(class_dict: dict[str, RayClassWithInitArgs]) -> RayClassWithInitArgs:
    """One worker class that holds a worker of every role, ``{role: class with its arguments}``.

    A group of it offers each registered method as ``ROLE_METHOD``; ``group.spawn(roles)`` gives one group a
    role with the plain names. Methods of mode DIRECT_ROLLOUT_METHOD keep their plain name on the worker
    too. Inside, ``self.fused_worker_dict`` of every worker leads to its neighbours.
    """
    colocated = RayClassWithInitArgs(cls=create_colocated_worker_raw_cls(class_dict))
    for entry in class_dict.values():
        colocated.update_options(entry._options)
    return colocated


def create_colocated_worker_raw_cls(class_dict: dict[str, RayClassWithInitArgs]) -> type[Worker]:
    """The plain class behind :func:`create_colocated_worker_cls`, for a subclass that adds methods of its own; in them
    ``self.ROLE`` is the worker of a role. A group of the subclass is one of colocated workers too."""
    if not class_dict:
        raise ValueError("create_colocated_worker_cls needs at least one role")
    class_dict = dict(class_dict)

    class WorkerDict(Worker):
        raw_cls_dict = {role: entry.raw_cls for role, entry in class_dict.items()}

        def __init__(self) -> None:
            super().__init__()
            self.worker_dict: dict[str, Worker] = {}
            for role, entry in class_dict.items():
                self.worker_dict[role] = entry.raw_cls(*entry.args, **entry.kwargs)
                setattr(self, role, self.worker_dict[role])
            for worker in (self, *self.worker_dict.values()):
                worker.fused_worker_dict = self.worker_dict

    for role, entry in class_dict.items():
        if hasattr(Worker, role):
            raise ValueError(f"colocated role {role!r}: every worker has an attribute of that name; rename the role")
        for name, attrs in registered_methods(entry.raw_cls).items():
            outer_name = name if attrs["dispatch_mode"] == Dispatch.DIRECT_ROLLOUT_METHOD else f"{role}_{name}"
            if hasattr(WorkerDict, outer_name):
                raise ValueError(f"colocated role {role!r}: a method {outer_name!r} is already there; rename the role or it")
            setattr(WorkerDict, outer_name, _forward(role, name, getattr(entry.raw_cls, name)))
    WorkerDict.__name__ = WorkerDict.__qualname__ = "WorkerDict_" + "_".join(class_dict)
    return WorkerDict


def _forward(role: str, name: str, method: Callable) -> Callable:
    """A method of the holder that calls ``method`` of the worker in that role."""
    if inspect.iscoroutinefunction(method):

        async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            return await getattr(self.worker_dict[role], name)(*args, **kwargs)
    else:

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            return getattr(self.worker_dict[role], name)(*args, **kwargs)

    setattr(call, MAGIC_ATTR, getattr(method, MAGIC_ATTR))
    return call
