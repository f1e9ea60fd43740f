"""A group of workers, and the pool of resources it runs on; no Ray in here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from verl.protocol import DataProto, DataProtoFuture, unpad_dataproto
from verl.single_controller.base.decorator import (
    MAGIC_ATTR,
    PADDING_SIZE_KEY,
    Dispatch,
    Execute,
    get_predefined_dispatch_fn,
)


class ResourcePool:
    """How many processes run on each node.

    Args:
        process_on_nodes: processes (ranks) of each node, e.g. ``[8, 8]``.
        max_colocate_count: how many worker groups may share a rank's device.
        n_gpus_per_node: devices of a node.
    """

    def __init__(self, process_on_nodes: list[int] | None = None, max_colocate_count: int = 10, n_gpus_per_node: int = 8) -> None:
        self._store = list(process_on_nodes or [])
        if any(not isinstance(n, int) or n < 1 for n in self._store):
            raise ValueError(f"process_on_nodes must be positive integers, one a node, got {process_on_nodes}")
        if max_colocate_count < 1:
            raise ValueError(f"max_colocate_count must be at least 1, got {max_colocate_count}")
        self.max_colocate_count = max_colocate_count
        self.n_gpus_per_node = n_gpus_per_node

    def add_node(self, process_count: int) -> None:
        self._store.append(process_count)

    @property
    def world_size(self) -> int:
        return sum(self._store)

    @property
    def store(self) -> list[int]:
        return self._store

    def __call__(self) -> list[int]:
        return self._store

    def local_world_size_list(self) -> list[int]:
        """For each rank, the number of ranks on its node."""
        return [count for count in self._store for _ in range(count)]

    def local_rank_list(self) -> list[int]:
        """For each rank, its position on its node."""
        return [i for count in self._store for i in range(count)]


def registered_methods(cls: type) -> dict[str, dict[str, Any]]:
    """``{name: attributes}`` of the methods of ``cls`` that :func:`register` marked."""
    found = {name: getattr(getattr(cls, name, None), MAGIC_ATTR, None) for name in dir(cls)}
    return {name: attrs for name, attrs in found.items() if attrs is not None}


class ClassWithInitArgs:
    """A class and the arguments to build it with, later and elsewhere."""

    def __init__(self, cls: type, *args: Any, **kwargs: Any) -> None:
        self.cls, self.args, self.kwargs = cls, args, kwargs

    def __call__(self) -> Any:
        return self.cls(*self.args, **self.kwargs)


class WorkerGroup:
    """Workers called as one object: every method of the worker class that :func:`register` marked
    becomes a method of the group. A subclass starts the processes and says how to execute on them."""

    def __init__(self, resource_pool: ResourcePool | None = None) -> None:
        self.resource_pool = resource_pool
        self._workers: list[Any] = []
        self._worker_names: list[str] = []
        #: by mesh, then by rank: whose share of the data a rank gets, and whether its result is collected
        self._dispatch_info: dict[str, list[int]] = {}
        self._collect_info: dict[str, list[bool]] = {}

    @property
    def workers(self) -> list[Any]:
        """The workers' handles, by rank."""
        return self._workers

    @property
    def worker_names(self) -> list[str]:
        return self._worker_names

    @property
    def world_size(self) -> int:
        return len(self._workers)

    def execute_all(self, method_name: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Start the method on all ranks; returns one reference a rank."""
        raise TypeError(f"{type(self).__name__} does not say how to execute")

    def execute_rank_zero(self, method_name: str, *args: Any, **kwargs: Any) -> Any:
        """Start the method on rank 0; returns its reference."""
        raise TypeError(f"{type(self).__name__} does not say how to execute")

    def gather(self, refs: list[Any], method_name: str = "a non-blocking call", ranks: list[int] | None = None) -> list[Any]:
        """Wait for references (of ``ranks``, by default of 0, 1, ...) and return their values."""
        raise TypeError(f"{type(self).__name__} does not say how to wait")

    def is_ref(self, value: Any) -> bool:
        """Whether ``value`` is a reference to a result that may not be there yet."""
        return False

    def mesh(self, mesh_name: str) -> list[tuple[int, bool]]:
        """``(dp_rank, is_collect)`` by rank, as the workers registered it (asked once)."""
        if mesh_name not in self._dispatch_info:
            places = self._query_mesh(mesh_name)
            self._dispatch_info[mesh_name] = [dp_rank for dp_rank, _ in places]
            self._collect_info[mesh_name] = [collect for _, collect in places]
        return list(zip(self._dispatch_info[mesh_name], self._collect_info[mesh_name], strict=True))

    def _bind_worker_method(self, user_defined_cls: type, remote_prefix: str = "") -> list[str]:
        """Add the registered methods of ``user_defined_cls`` to this group; on the workers they are
        called by ``remote_prefix`` plus their name. Returns the names."""
        bound = registered_methods(user_defined_cls)
        for name, attrs in bound.items():
            if hasattr(type(self), name):
                raise ValueError(f"{user_defined_cls.__name__}.{name} would hide a worker group's own {name}: rename it")
            direct = attrs["dispatch_mode"] == Dispatch.DIRECT_ROLLOUT_METHOD  # has no prefix on the workers either
            setattr(self, name, self._group_method(name if direct else remote_prefix + name, **attrs))
        return list(bound)

    def _group_method(
        self, method_name: str, dispatch_mode: Dispatch | dict[str, Callable], execute_mode: Execute, blocking: bool
    ) -> Callable:
        functions = get_predefined_dispatch_fn(dispatch_mode) if isinstance(dispatch_mode, Dispatch) else dispatch_mode
        dispatch_fn, collect_fn = functions["dispatch_fn"], functions["collect_fn"]
        rank_zero = execute_mode == Execute.RANK_ZERO or dispatch_mode == Dispatch.RANK_ZERO
        if rank_zero and dispatch_mode == Dispatch.ONE_TO_ALL:  # rank 0 wants the argument, not a list of copies
            dispatch_fn = get_predefined_dispatch_fn(Dispatch.RANK_ZERO)["dispatch_fn"]

        def call(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = dispatch_fn(self, *args, **kwargs)
            padding = kwargs.pop(PADDING_SIZE_KEY, 0)
            output = (self.execute_rank_zero if rank_zero else self.execute_all)(method_name, *args, **kwargs)
            if blocking:
                values = self.gather([output] if rank_zero else output, method_name)
                output = values[0] if rank_zero else values
            return _unpadded(collect_fn(self, output), padding)

        call.__name__ = method_name
        return call


def _unpadded(output: Any, padding: int) -> Any:
    if padding == 0:
        return output
    if isinstance(output, DataProto):
        return unpad_dataproto(output, padding)
    if isinstance(output, DataProtoFuture):
        output.collect_fn = partial(_collect_unpadded, collect_fn=output.collect_fn, padding=padding)
    return output


def _collect_unpadded(parts: list[DataProto], *, collect_fn: Callable, padding: int) -> DataProto:
    return unpad_dataproto(collect_fn(parts), padding)
