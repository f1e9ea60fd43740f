"""RayWorkerGroup: starts one actor a rank and calls them together."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import RayError
from tensordict import TensorDict

from verl.protocol import DataProto
from verl.single_controller.base import WorkerDied, WorkerGroup
from verl.single_controller.ray import liveness
from verl.single_controller.ray.node_watch import NodeWatch
from verl.single_controller.ray.resource_pool import (
    RayClassWithInitArgs,
    RayResourcePool,
    bundle_node,
    free_address,
    takes_gpu,
)

#: set by the group for every worker; ``worker_env`` must leave them alone
_GROUP_ENV = (
    "WORLD_SIZE",
    "RANK",
    "LOCAL_WORLD_SIZE",
    "LOCAL_RANK",
    "RAY_LOCAL_WORLD_SIZE",
    "RAY_LOCAL_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "WG_PREFIX",
    "WG_BACKEND",
    "WG_DEVICE",
)


class RayWorkerGroup(WorkerGroup):
    """A worker on every process of the pool, called as one object.

    Args:
        resource_pool: where to run.
        ray_cls_with_init: what to run.
        bin_pack: whether all processes of one entry of the pool must be on one node.
        name_prefix: prefix of the actors' names (``PREFIX + CLASS_NODE:LOCAL_RANK``), by default random.
        detached: the workers outlive the driver.
        worker_names, worker_handles: attach to workers that run already (then without a pool).
        ray_wait_register_center_timeout: seconds within which all workers must have been built.
        worker_env: further environment variables. ``OMP_NUM_THREADS`` (default: the pool's CPUs a
            process) and ``OMP_WAIT_POLICY`` (default PASSIVE: idle threads that spin would slow the other
            ranks of a node down many times) may be set here; they take effect because they are there
            before torch is imported.
        master_port: rendezvous of the ranks on the first one's node; by default a free port.
        device_name: ``"cpu"`` takes no share of the pool's GPUs; ``"cuda"`` requires that it has some. Workers that take
            none see none (``CUDA_VISIBLE_DEVICES`` is empty unless ``worker_env`` sets it), and those of a group that was
            planned for a device refuse another (``WG_DEVICE``, see :func:`verl.utils.device.init_process_group`).

    The constructor returns once every worker is built. Calls raise
    :class:`~verl.single_controller.base.errors.WorkerDied` or ``WorkerError``, never hang on a dead worker; after a
    death :meth:`kill` the group and build it anew.
    """

    def __init__(
        self,
        resource_pool: RayResourcePool | None = None,
        ray_cls_with_init: RayClassWithInitArgs | None = None,
        bin_pack: bool = True,
        name_prefix: str | None = None,
        detached: bool = False,
        worker_names: list[str] | None = None,
        worker_handles: list[Any] | None = None,
        ray_wait_register_center_timeout: float = 300.0,
        worker_env: dict[str, str] | None = None,
        device_name: str | None = None,
        master_port: int | None = None,
    ) -> None:
        super().__init__(resource_pool)
        self.ray_cls_with_init = ray_cls_with_init
        self.name_prefix = secrets.token_hex(3) if name_prefix is None else name_prefix
        self.master_address: str | None = None
        self.master_port: str | None = str(master_port) if master_port else None
        self._peers: dict[str, list[Any]] = {}
        self._peer_pools: list[RayResourcePool] = []
        if resource_pool is None:
            if not worker_handles and not worker_names:
                raise ValueError("a worker group needs a resource_pool, or workers to attach to")
            self._worker_names = list(worker_names or [])
            # handles of our own: those that get_actor returns do not keep an actor alive
            self._workers = list(worker_handles or [ray.get_actor(name) for name in worker_names])
        else:
            if ray_cls_with_init is None:
                raise ValueError("a worker group on a resource_pool needs ray_cls_with_init")
            self._check_env(worker_env or {})
            use_gpu = takes_gpu(device_name, resource_pool)
            planned = {"WG_DEVICE": device_name or "cpu"} if device_name or not use_gpu else {}
            self._start(bin_pack, detached, {**_device_env(use_gpu), **(worker_env or {}), **planned}, use_gpu)
            self._await_ready(ray_wait_register_center_timeout)
        if ray_cls_with_init is not None:
            self._bind_worker_method(ray_cls_with_init.raw_cls)

    # -- starting -------------------------------------------------------------------------------

    @staticmethod
    def _check_env(worker_env: dict[str, str]) -> None:
        taken = sorted(set(worker_env) & set(_GROUP_ENV))
        if taken:
            raise ValueError(f"worker_env must not set {taken}: the worker group sets them itself")

    def _start(self, bin_pack: bool, detached: bool, worker_env: dict[str, str], use_gpu: bool) -> None:
        pool = self.resource_pool
        places = pool.places(strategy="STRICT_PACK" if bin_pack else "PACK")
        groups = pool.get_placement_groups()
        try:
            self.master_address, free_port = free_address(bundle_node(groups[places[0][0]], places[0][1]))
        except RayError as error:  # the node was lost between its reservation and now
            raise WorkerDied(rank=0, node="unknown", pid=None, method="__init__", cause=str(error)) from error
        self.master_port = self.master_port or free_port
        base_env = {
            "OMP_NUM_THREADS": str(pool.threads_per_process),
            "OMP_WAIT_POLICY": "PASSIVE",
            **{key: str(value) for key, value in worker_env.items()},
            "WORLD_SIZE": str(pool.world_size),
            "MASTER_ADDR": self.master_address,
            "MASTER_PORT": self.master_port,
            "WG_PREFIX": self.name_prefix,
            "WG_BACKEND": "ray",
        }
        on_node, started = Counter(node for node, _ in places), Counter()
        for rank, (node, bundle) in enumerate(places):
            local_rank, local_size = started[node], on_node[node]
            started[node] += 1
            # with one visible device each, the device index that libraries read from LOCAL_RANK is 0
            local = (0, 1) if use_gpu else (local_rank, local_size)
            env = {
                **base_env,
                "RANK": str(rank),
                "LOCAL_RANK": str(local[0]),
                "LOCAL_WORLD_SIZE": str(local[1]),
                "RAY_LOCAL_RANK": str(local_rank),
                "RAY_LOCAL_WORLD_SIZE": str(local_size),
            }
            name = f"{self.name_prefix}{self.ray_cls_with_init.raw_cls.__name__}_{node}:{bundle}"
            options: dict[str, Any] = {"name": name, "runtime_env": {"env_vars": env}}
            if detached:
                options["lifetime"] = "detached"
            share = 1 / pool.max_colocate_count
            worker = self.ray_cls_with_init(groups[node], bundle, use_gpu=use_gpu, num_gpus=share, options=options)
            self._workers.append(worker)
            self._worker_names.append(name)

    def _await_ready(self, timeout_s: float) -> None:
        refs = [worker.__ray_ready__.remote() for worker in self._workers]
        try:
            liveness.gather(self._workers, refs, "__init__", timeout_s, watches=self._node_watches())
        except TimeoutError as error:
            states = [liveness.actor_info(worker).get("State") for worker in self._workers]
            self.kill()
            raise TimeoutError(
                f"{error}. Actor states by rank: {states}. PENDING_CREATION means that Ray found no room (more than "
                f"max_colocate_count={self.resource_pool.max_colocate_count} groups on one pool?), ALIVE that __init__ is "
                "still running (raise ray_wait_register_center_timeout)."
            ) from None
        except Exception:
            self.kill()
            raise

    @classmethod
    def from_detached(
        cls,
        name_prefix: str | None = None,
        worker_names: list[str] | None = None,
        worker_handles: list[Any] | None = None,
        ray_cls_with_init: RayClassWithInitArgs | None = None,
    ) -> RayWorkerGroup:
        """A group over workers that run already."""
        return cls(
            ray_cls_with_init=ray_cls_with_init,
            name_prefix=name_prefix,
            worker_names=worker_names,
            worker_handles=worker_handles,
        )

    def spawn(self, prefix_set: Iterable[str]) -> dict[str, RayWorkerGroup]:
        """One group for each role of a colocated class, all over the same workers, with the methods of
        that role under their own names."""
        roles = self.ray_cls_with_init.role_classes
        unknown = sorted(set(prefix_set) - set(roles))
        if unknown:
            raise ValueError(f"spawn: no colocated role {unknown}; the group has {sorted(roles)}")
        spawned = {}
        for role in prefix_set:
            group = self.from_detached(self.name_prefix, self._worker_names, self._workers)
            group.ray_cls_with_init = self.ray_cls_with_init
            group.resource_pool = self.resource_pool
            group.master_address, group.master_port = self.master_address, self.master_port
            group._bind_worker_method(roles[role], remote_prefix=f"{role}_")
            spawned[role] = group
        return spawned

    def fuse(self, prefix_set: Iterable[str]) -> None:
        """Keep the groups of :meth:`spawn` as attributes: ``group.ROLE.method()``."""
        for role, group in self.spawn(prefix_set).items():
            if hasattr(type(self), role):
                raise ValueError(f"fuse: role {role!r} would hide a worker group's own {role}: rename it")
            setattr(self, role, group)

    # -- executing ------------------------------------------------------------------------------

    def execute_all_async(self, method_name: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Start the method on every rank; returns object references by rank.

        If every argument is a list of ``world_size`` entries, each rank gets its entry; otherwise every
        rank gets all arguments as they are.
        """
        n = self.world_size
        values = [*args, *kwargs.values()]
        if not all(isinstance(value, list) and len(value) == n for value in values):
            args, kwargs = tuple([a] * n for a in args), {k: [v] * n for k, v in kwargs.items()}
        args, kwargs = tuple(_shared(a) for a in args), {k: _shared(v) for k, v in kwargs.items()}
        return [
            getattr(worker, method_name).remote(*(a[rank] for a in args), **{k: v[rank] for k, v in kwargs.items()})
            for rank, worker in enumerate(self._workers)
        ]

    def execute_all_sync(self, method_name: str, *args: Any, **kwargs: Any) -> list[Any]:
        """As :meth:`execute_all_async`, and wait for the values."""
        return self.gather(self.execute_all_async(method_name, *args, **kwargs), method_name)

    def execute_all(self, method_name: str, *args: Any, **kwargs: Any) -> list[Any]:
        """The same as :meth:`execute_all_async`."""
        return self.execute_all_async(method_name, *args, **kwargs)

    def execute_rank_zero_async(self, method_name: str, *args: Any, **kwargs: Any) -> Any:
        """Start the method on rank 0; returns an object reference."""
        return getattr(self._workers[0], method_name).remote(*args, **kwargs)

    def execute_rank_zero_sync(self, method_name: str, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`execute_rank_zero_async`, and wait for the value."""
        return self.gather([self.execute_rank_zero_async(method_name, *args, **kwargs)], method_name)[0]

    def execute_rank_zero(self, method_name: str, *args: Any, **kwargs: Any) -> Any:
        """The same as :meth:`execute_rank_zero_async`."""
        return self.execute_rank_zero_async(method_name, *args, **kwargs)

    def gather(
        self, refs: list[Any], method_name: str = "a non-blocking call", ranks: list[int] | None = None, beside: Sequence[Any] = ()
    ) -> list[Any]:
        """Values of object references (of ``ranks``, by default of 0, 1, ...), with a dead or failing
        worker named (``ray.get`` would wait for ever where the others are stuck). ``beside``: calls of a watched group
        that these wait for: one that raises ends the wait."""
        watches = self._node_watches()
        return liveness.gather(self._workers, refs, method_name, ranks=ranks, peers=self._peers, watches=watches, beside=beside)

    def is_ref(self, value: Any) -> bool:
        return isinstance(value, ray.ObjectRef)

    # -- life and death -------------------------------------------------------------------------

    def watch(self, others: Iterable[RayWorkerGroup]) -> None:
        """While this group is waited for, notice deaths in ``others`` too: groups that it works with and may wait for."""
        others = list(others)
        self._peers = {group.name_prefix: group.workers for group in others}
        self._peer_pools = [group.resource_pool for group in others if group.resource_pool is not self.resource_pool]

    def _node_watches(self) -> list[NodeWatch]:
        pools = (self.resource_pool, *self._peer_pools)
        return [pool.node_watch for pool in pools if pool is not None and pool.node_watch is not None]

    def _is_worker_alive(self, worker: Any) -> bool:
        return liveness.actor_info(worker).get("State") == "ALIVE"

    def dead_ranks(self) -> list[int]:
        """Ranks whose process is gone."""
        return [rank for rank, worker in enumerate(self._workers) if liveness.is_dead(worker)]

    def kill(self) -> None:
        """End all workers, also such as hang in a collective, and wait until they are gone. The pool's
        reservation stays, so that a new group can be built on it."""
        liveness.kill_all(self._workers)

    def shutdown(self) -> None:
        """:meth:`kill`, and give the pool's reservation back."""
        self.kill()
        if self.resource_pool is not None:
            self.resource_pool.release()


def _device_env(use_gpu: bool) -> dict[str, str]:
    """What hides the GPUs of a machine from workers without one: Ray leaves an actor's variable alone that takes none
    (``RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO``), and every such worker would compute on the first."""
    return {} if use_gpu else {"CUDA_VISIBLE_DEVICES": ""}


def _shared(values: list[Any]) -> list[Any]:
    """Tensor data that several ranks get is put into the object store once."""
    refs: dict[int, Any] = {}
    for value in values:
        repeated = sum(other is value for other in values) > 1
        if repeated and id(value) not in refs and isinstance(value, DataProto | TensorDict | torch.Tensor | np.ndarray):
            refs[id(value)] = ray.put(value)
    return [refs.get(id(value), value) for value in values]
