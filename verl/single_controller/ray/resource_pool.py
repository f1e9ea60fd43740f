"""Where workers run: placement groups, and classes ready to be started in them."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from verl.single_controller.base import ClassWithInitArgs, ResourcePool, ResourcesUnavailable, Worker
from verl.single_controller.base.worker import get_free_port
from verl.single_controller.ray.node_watch import NodeWatch, silent_nodes

logger = logging.getLogger(__name__)

#: after how long a wait for room says what it waits for and tries again, first and then
_FIRST_TRY_S, _NEXT_TRY_S = 5.0, 20.0
#: how long a node may take to show that it is there before a try does without it
_ANSWER_S = 5.0
#: how long the first rank's node may take to name a free port
_ADDRESS_S = 60.0
#: how much of an accelerator type's resource a bundle takes: enough to be placed by it, never enough to use it up
_A_TRACE = 1e-4


class RayResourcePool(ResourcePool):
    """Reserves, on each node, one bundle a process. Groups built on one pool share its bundles.

    Entries of ``process_on_nodes`` go to different nodes. While a call on a group of the pool waits, nodes other
    than the driver's are listened to (:class:`~verl.single_controller.ray.node_watch.NodeWatch`).

    Args:
        process_on_nodes: processes of each node, e.g. ``[2]`` or ``[8, 8]``.
        use_gpu: one GPU in each bundle.
        name_prefix: prefix of the placement groups' names.
        max_colocate_count: how many groups may share the pool's GPUs (each worker takes
            ``1 / max_colocate_count`` of one).
        detached: the reservation outlives the driver.
        accelerator_type: with ``use_gpu``, only nodes that offer this Ray resource, e.g. ``"accelerator_type:A100"``.
        cpus_per_process: CPUs in each bundle, may be a fraction (0.5: two ranks reserve one CPU between
            them, and Ray keeps room for other work). Workers also get this many OpenMP threads, at least one.
        node_timeout_s: a node that answers nothing for so many seconds counts as lost, its workers as dead.
    """

    def __init__(
        self,
        process_on_nodes: list[int] | None = None,
        use_gpu: bool = True,
        name_prefix: str | None = None,
        max_colocate_count: int = 10,
        detached: bool = False,
        accelerator_type: str | None = None,
        cpus_per_process: float = 1.0,
        node_timeout_s: float = 6.0,
    ) -> None:
        super().__init__(process_on_nodes, max_colocate_count)
        if cpus_per_process <= 0:
            raise ValueError(f"cpus_per_process must be above 0 (0.5 is possible), got {cpus_per_process}")
        self.use_gpu = use_gpu
        self.name_prefix = name_prefix
        self.detached = detached
        self.accelerator_type = accelerator_type
        self.cpus_per_process = cpus_per_process
        self.node_timeout_s = node_timeout_s
        self.pgs: list[PlacementGroup] | None = None
        self.node_watch: NodeWatch | None = None

    @property
    def threads_per_process(self) -> int:
        """OpenMP threads of a worker."""
        return max(1, int(self.cpus_per_process))

    def get_placement_groups(
        self, strategy: str = "STRICT_PACK", name: str | None = None, device_name: str | None = None, timeout_s: float = 60.0
    ) -> list[PlacementGroup]:
        """The reservation, made at the first call: one placement group a node, ordered by the node's IP so
        that ranks stay where they were from one run to the next. With strategy PACK entries may share nodes.
        ``device_name`` is what the groups on the pool will compute on: ``"cuda"`` requires ``use_gpu``, ``"cpu"`` and None
        change nothing.

        Says in the log what it waits for, and raises
        :class:`~verl.single_controller.base.errors.ResourcesUnavailable` with what was asked and what there is, if
        that cannot be met in ``timeout_s`` seconds.
        """
        takes_gpu(device_name, self)
        if self.pgs is not None:
            return self.pgs
        if not self._store:
            raise ValueError("a RayResourcePool without processes: give process_on_nodes, e.g. [2]")
        groups: list[PlacementGroup] = []
        silent = silent_nodes(_ANSWER_S)
        deadline = time.monotonic() + timeout_s
        try:
            for count in sorted(self._store, reverse=True):  # large ones first: a small one fits anywhere
                taken = [bundle_node(group, 0) for group in groups] if strategy.startswith("STRICT") else []
                silent = self._reserve(groups, count, strategy, name, taken, silent, deadline)
        except BaseException:
            for group in groups:
                remove_placement_group(group)
            raise
        self._hold(groups)
        return self.pgs

    def _hold(self, groups: list[PlacementGroup]) -> None:
        """Take over reservations, ordered by the nodes' IPs, and listen to the nodes other than the driver's."""
        nodes = {node["NodeID"]: node for node in ray.nodes()}
        self.pgs = sorted(groups, key=lambda group: nodes[bundle_node(group, 0)]["NodeManagerAddress"])
        others = {node for group in groups for node in _nodes_of(group)} - {ray.get_runtime_context().get_node_id()}
        self.node_watch = NodeWatch(sorted(others), self.node_timeout_s) if others else None

    def places(self, strategy: str = "STRICT_PACK") -> list[tuple[int, int]]:
        """By rank: the placement group that holds its bundle (a position in :meth:`get_placement_groups`), and which."""
        groups = self.get_placement_groups(strategy=strategy)
        return [(number, bundle) for number, group in enumerate(groups) for bundle in range(group.bundle_count)]

    def _bundle(self) -> dict[str, float]:
        bundle = {"CPU": self.cpus_per_process}
        if self.use_gpu:
            bundle["GPU"] = 1
            if self.accelerator_type is not None:
                bundle[self.accelerator_type] = _A_TRACE
        return bundle

    def _reserve(
        self,
        groups: list[PlacementGroup],
        count: int,
        strategy: str,
        name: str | None,
        taken: list[str],
        silent: set[str],
        deadline: float,
    ) -> set[str]:
        """Add a group of ``count`` bundles on one more node to ``groups``, not on one of ``taken`` or ``silent``.
        Returns the nodes that are silent now."""
        stem = name or (f"{self.name_prefix}verl_group" if self.name_prefix else None)
        patience = _FIRST_TRY_S
        while True:
            avoid = sorted({*taken, *silent})
            group = placement_group(
                bundles=[self._bundle() for _ in range(count)],
                strategy=strategy,
                name=f"{stem}:{len(groups)}" if stem else "",
                lifetime="detached" if self.detached else None,
                bundle_label_selector=[{"ray.io/node-id": f"!in({','.join(avoid)})"}] * count if avoid else None,
            )
            groups.append(group)
            if group.wait(max(1, math.ceil(min(patience, deadline - time.monotonic())))):  # Ray waits for whole seconds
                return silent
            remove_placement_group(groups.pop())
            left = deadline - time.monotonic()
            if left <= 0:
                raise ResourcesUnavailable(
                    f"Ray cannot reserve {self._bundle()} for each of {self._store} processes (one entry a node): there is room "
                    f"for {len(groups)} of {len(self._store)} entries. {_what_there_is()}. Use fewer processes, lower "
                    "cpus_per_process, or free some.",
                    found=len(groups),
                )
            logger.warning(
                "waiting for %d more node(s) with %s for each of %d processes, for %.0f s at most. %s",
                len(self._store) - len(groups), self._bundle(), count, left, _what_there_is(),
            )  # fmt: skip
            patience, silent = _NEXT_TRY_S, silent_nodes(_ANSWER_S)

    def release(self) -> None:
        """Give the reservation back. Ray kills what still runs in it."""
        if self.node_watch is not None:
            self.node_watch.close()
        for group in self.pgs or []:
            remove_placement_group(group)
        self.pgs, self.node_watch = None, None


def takes_gpu(device_name: str | None, pool: ResourcePool) -> bool:
    """Whether workers for ``device_name`` (None: whatever the pool has) take a share of the pool's GPUs."""
    if device_name not in (None, "cpu", "cuda"):
        raise ValueError(f"device_name must be 'cpu' or 'cuda', got {device_name!r}")
    if device_name == "cuda" and not pool.use_gpu:
        raise ValueError("device_name='cuda' on a RayResourcePool with use_gpu=False: reserve GPUs or use 'cpu'")
    return pool.use_gpu and device_name != "cpu"


def _what_there_is() -> str:
    alive = sum(node["Alive"] for node in ray.nodes())
    return (
        f"The cluster has {_resources(ray.cluster_resources())} on {alive} node(s), free are "
        f"{_resources(ray.available_resources())}"
    )


def _resources(resources: dict[str, float]) -> dict[str, float]:
    return {name: round(resources.get(name, 0), 2) for name in ("CPU", "GPU")}


def bundle_node(group: PlacementGroup, bundle: int) -> str:
    """ID of the node that holds a bundle of a placement group that is ready."""
    return _nodes_of(group)[bundle]


def _nodes_of(group: PlacementGroup) -> list[str]:
    nodes = placement_group_table(group)["bundles_to_node_id"]
    return [nodes[bundle] for bundle in sorted(nodes)]


def free_address(node_id: str) -> tuple[str, str]:
    """``(IP, free port)`` of a node of the cluster. Raises ``RayError`` where it is gone or does not answer."""
    ip = next(node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] == node_id)
    if node_id == ray.get_runtime_context().get_node_id():
        return ip, str(get_free_port())
    there = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
    find = ray.remote(num_cpus=0)(get_free_port).options(scheduling_strategy=there)
    return ip, str(ray.get(find.remote(), timeout=_ADDRESS_S))


class RayClassWithInitArgs(ClassWithInitArgs):
    """A worker class (plain, or decorated with ``ray.remote``) and the arguments to build it with."""

    def __init__(self, cls: Any, *args: Any, **kwargs: Any) -> None:
        remote_cls = cls if hasattr(cls, "__ray_actor_class__") else ray.remote(cls)
        super().__init__(remote_cls, *args, **kwargs)
        self.raw_cls: type = remote_cls.__ray_actor_class__
        if not issubclass(self.raw_cls, Worker):
            raise TypeError(f"{self.raw_cls.__name__} must be a subclass of verl.single_controller.base.Worker")
        #: raw worker classes by role, of a colocated class
        self.role_classes: dict[str, type] = dict(getattr(self.raw_cls, "raw_cls_dict", {}))
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
