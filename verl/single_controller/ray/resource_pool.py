"""Where workers run: placement groups, and classes ready to be started in them."""

from __future__ import annotations

from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from verl.single_controller.base import ClassWithInitArgs, ResourcePool, Worker
from verl.single_controller.base.worker import get_free_port


class RayResourcePool(ResourcePool):
    """Reserves, on each node, one bundle a process. Groups built on one pool share its bundles.

    Args:
        process_on_nodes: processes of each node, e.g. ``[2]`` or ``[8, 8]``.
        use_gpu: one GPU in each bundle.
        name_prefix: prefix of the placement groups' names.
        max_colocate_count: how many groups may share the pool's GPUs (each worker takes
            ``1 / max_colocate_count`` of one).
        detached: the reservation outlives the driver.
        cpus_per_process: CPUs in each bundle, may be a fraction (0.5: two ranks reserve one CPU between
            them, and Ray keeps room for other work). Workers also get this many OpenMP threads, at least one.
    """

    def __init__(
        self,
        process_on_nodes: list[int] | None = None,
        use_gpu: bool = True,
        name_prefix: str | None = None,
        max_colocate_count: int = 10,
        detached: bool = False,
        cpus_per_process: float = 1.0,
    ) -> None:
        super().__init__(process_on_nodes, max_colocate_count)
        if cpus_per_process <= 0:
            raise ValueError(f"cpus_per_process must be above 0 (0.5 is possible), got {cpus_per_process}")
        self.use_gpu = use_gpu
        self.name_prefix = name_prefix
        self.detached = detached
        self.cpus_per_process = cpus_per_process
        self.pgs: list[PlacementGroup] | None = None

    @property
    def threads_per_process(self) -> int:
        """OpenMP threads of a worker."""
        return max(1, int(self.cpus_per_process))

    def get_placement_groups(
        self, strategy: str = "STRICT_PACK", name: str | None = None, timeout_s: float = 60.0
    ) -> list[PlacementGroup]:
        """The reservation, made at the first call: one placement group a node, ordered by the node's IP so
        that ranks stay where they were from one run to the next.

        Raises ``RuntimeError`` with what was asked and what there is, if it cannot be met in ``timeout_s`` seconds.
        """
        if self.pgs is not None:
            return self.pgs
        if not self._store:
            raise ValueError("a RayResourcePool without processes: give process_on_nodes, e.g. [2]")
        bundle = {"CPU": self.cpus_per_process, **({"GPU": 1} if self.use_gpu else {})}
        stem = name or (f"{self.name_prefix}verl_group" if self.name_prefix else None)
        groups = [
            placement_group(
                bundles=[dict(bundle) for _ in range(count)],
                strategy=strategy,
                name=f"{stem}:{i}" if stem else "",
                lifetime="detached" if self.detached else None,
            )
            for i, count in enumerate(self._store)
        ]
        for group in groups:
            if not group.wait(timeout_s):
                for made in groups:
                    remove_placement_group(made)
                raise RuntimeError(
                    f"Ray cannot reserve {bundle} for each of {self._store} processes (one entry a node) within "
                    f"{timeout_s:g} s. The cluster has {_resources(ray.cluster_resources())}, free are "
                    f"{_resources(ray.available_resources())}. Use fewer processes, lower cpus_per_process, or free some."
                )
        ips = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
        self.pgs = sorted(groups, key=lambda group: ips[bundle_node(group, 0)])
        return self.pgs

    def release(self) -> None:
        """Give the reservation back. Ray kills what still runs in it."""
        for group in self.pgs or []:
            remove_placement_group(group)
        self.pgs = None


def _resources(resources: dict[str, float]) -> dict[str, float]:
    return {name: round(resources.get(name, 0), 2) for name in ("CPU", "GPU")}


def bundle_node(group: PlacementGroup, bundle: int) -> str:
    """ID of the node that holds a bundle of a placement group that is ready."""
    return placement_group_table(group)["bundles_to_node_id"][bundle]


def free_address(node_id: str) -> tuple[str, str]:
    """``(IP, free port)`` of a node of the cluster."""
    ip = next(node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] == node_id)
    if node_id == ray.get_runtime_context().get_node_id():
        return ip, str(get_free_port())
    there = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
    find = ray.remote(num_cpus=0)(get_free_port).options(scheduling_strategy=there)
    return ip, str(ray.get(find.remote()))


class RayClassWithInitArgs(ClassWithInitArgs):
    """A worker class (plain, or decorated with ``ray.remote``) and the arguments to build it with."""

    def __init__(self, cls: Any, *args: Any, **kwargs: Any) -> None:
        remote_cls = cls if hasattr(cls, "__ray_actor_class__") else ray.remote(cls)
        super().__init__(remote_cls, *args, **kwargs)
        self.raw_cls: type = remote_cls.__ray_actor_class__
        if not issubclass(self.raw_cls, Worker):
            raise TypeError(f"{self.raw_cls.__name__} must be a subclass of verl.single_controller.base.Worker")
        #: raw worker classes by role; filled in by create_colocated_worker_cls
        self.role_classes: dict[str, type] = {}
        self._options: dict[str, Any] = {}
        self._additional_resource: dict[str, Any] = {}

    def set_additional_resource(self, additional_resource: dict[str, float]) -> None:
        """Custom Ray resources that each worker takes, e.g. ``{"fast_disk": 1}``."""
        self._additional_resource = dict(additional_resource)

    def update_options(self, options: dict[str, Any]) -> None:
        """Ray's actor options (``runtime_env``, ``max_concurrency``, ...) for each worker."""
        self._options.update(options)

    def __call__(
        self,
        placement_group: PlacementGroup,
        placement_group_bundle_idx: int,
        use_gpu: bool = True,
        num_gpus: float = 1,
        options: dict[str, Any] | None = None,
    ) -> Any:
        """Start one worker in a bundle and return its handle. ``options`` adds to :meth:`update_options`;
        environment variables of both are united."""
        merged = {**self._options, **(options or {})}
        sources = [source.get("runtime_env") or {} for source in (self._options, options or {})]
        env_vars = {k: v for source in sources for k, v in source.get("env_vars", {}).items()}
        merged["runtime_env"] = {**sources[0], **sources[1], "env_vars": env_vars}
        merged.setdefault("num_cpus", 0)  # the bundle reserves the CPUs, for all workers of the rank together
        if use_gpu:
            merged["num_gpus"] = num_gpus
        if self._additional_resource:
            merged["resources"] = {**merged.get("resources", {}), **self._additional_resource}
        merged["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
            placement_group=placement_group, placement_group_bundle_index=placement_group_bundle_idx
        )
        return self.cls.options(**merged).remote(*self.args, **self.kwargs)
