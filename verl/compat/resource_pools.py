"""Resource pools made of others: a part of one, two as one, and one for each name of a table."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup

from verl.single_controller.ray.resource_pool import RayResourcePool

_SHARED = ("use_gpu", "max_colocate_count", "n_gpus_per_node", "detached", "accelerator_type", "cpus_per_process", "node_timeout_s")


def _like(pool: RayResourcePool) -> dict[str, Any]:
    """What a pool made of ``pool`` takes over from it."""
    return {name: getattr(pool, name) for name in _SHARED if name != "n_gpus_per_node"}


class SubRayResourcePool(RayResourcePool):
    """``subgroup_world_size`` consecutive bundles of another pool's reservation, from ``start_bundle_index`` on: ranks of a
    worker group of its own. :meth:`release` does nothing: the reservation is the other pool's.

    Args:
        placement_groups: the other pool's.
        kwargs: as of :class:`RayResourcePool`; ``process_on_nodes`` is the other pool's.
    """

    def __init__(
        self, placement_groups: list[PlacementGroup], start_bundle_index: int, subgroup_world_size: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        bundles = sum(group.bundle_count for group in placement_groups)
        if not 0 <= start_bundle_index < start_bundle_index + subgroup_world_size <= bundles:
            raise ValueError(
                f"bundles {start_bundle_index} to {start_bundle_index + subgroup_world_size} are not a part of {bundles} bundles"
            )
        self.pgs = placement_groups
        self.start_bundle_index = start_bundle_index
        self.subgroup_world_size = subgroup_world_size

    @property
    def world_size(self) -> int:
        return self.subgroup_world_size

    def places(self, strategy: str = "STRICT_PACK") -> list[tuple[int, int]]:
        return super().places(strategy)[self.start_bundle_index :][: self.subgroup_world_size]

    def release(self) -> None:
        """Nothing: the pool that was split gives the reservation back."""


def split_resource_pool(resource_pool: RayResourcePool, split_size: int | list[int]) -> list[SubRayResourcePool]:
    """Parts of ``split_size`` ranks each (which must divide the pool), or of the sizes in a list (which must add up to it).
    The pool is reserved now; a part may be split again. Raises ``ValueError`` for sizes that do not fit."""
    whole = resource_pool.world_size
    sizes = [split_size] * (whole // split_size) if isinstance(split_size, int) and split_size > 0 else split_size
    if not isinstance(sizes, list) or sum(sizes) != whole or any(size < 1 for size in sizes):
        raise ValueError(f"split_size={split_size!r} does not make up {whole} ranks: give a divisor, or a list that adds up to {whole}")
    groups = resource_pool.get_placement_groups()
    first = getattr(resource_pool, "start_bundle_index", 0)
    parts = []
    for number, (start, end) in enumerate(pairwise(accumulate(sizes, initial=first))):
        part = SubRayResourcePool(
            placement_groups=groups,
            start_bundle_index=start,
            subgroup_world_size=end - start,
            process_on_nodes=resource_pool.store,
            name_prefix=f"{resource_pool.name_prefix}_split_{number}",
            **_like(resource_pool),
        )
        part.node_watch = resource_pool.node_watch
        parts.append(part)
    return parts


class _MergedPool(RayResourcePool):
    """Two pools' reservations as one."""

    def __init__(self, parts: tuple[RayResourcePool, RayResourcePool]) -> None:
        first, second = parts
        super().__init__(first.store + second.store, name_prefix=f"{first.name_prefix}_{second.name_prefix}", **_like(first))
        self._parts = parts
        self._hold([group for part in parts for group in part.get_placement_groups()])

    def release(self) -> None:
        if self.node_watch is not None:
            self.node_watch.close()
        for part in self._parts:
            part.release()
        self.pgs, self.node_watch = None, None


def merge_resource_pool(rp1: RayResourcePool, rp2: RayResourcePool) -> RayResourcePool:
    """One pool over the reservations of both, which are made now; ranks in the order of the nodes' IPs, on one node those
    of ``rp1`` first. The two stay usable; releasing the merged one releases them. Raises ``ValueError`` where they differ in
    anything but their processes."""
    differ = {name: (getattr(rp1, name), getattr(rp2, name)) for name in _SHARED if getattr(rp1, name) != getattr(rp2, name)}
    if differ:
        raise ValueError(f"resource pools that differ in {differ} cannot be merged: build both alike")
    return _MergedPool((rp1, rp2))


@dataclass
class ResourcePoolManager:
    """Pools by name, and which role computes on which.

    Args:
        resource_pool_spec: ``{pool: processes of each node}``.
        mapping: ``{role: pool}``.
        max_colocate_count: how many worker groups may share a pool's devices.
        resource_pool_dict: ``{pool: RayResourcePool}``, filled in by :meth:`create_resource_pool`.
        use_gpu: false for a machine without GPUs.
    """

    resource_pool_spec: dict[str, list[int]]
    mapping: Mapping[Hashable, str]
    max_colocate_count: int = 3
    resource_pool_dict: dict[str, RayResourcePool] = field(default_factory=dict)
    use_gpu: bool = True

    def create_resource_pool(self) -> None:
        """Build the pools. Raises ``ValueError`` where the cluster has fewer free GPUs than all pools together need, or a
        role's pool is missing."""
        missing = {role: pool for role, pool in self.mapping.items() if pool not in self.resource_pool_spec}
        if missing:
            raise ValueError(f"mapping names pools that resource_pool_spec {sorted(self.resource_pool_spec)} lacks: {missing}")
        self._check_resource_available()
        for name, processes in self.resource_pool_spec.items():
            self.resource_pool_dict[name] = RayResourcePool(
                processes, use_gpu=self.use_gpu, max_colocate_count=self.max_colocate_count, name_prefix=name
            )

    def get_resource_pool(self, role: Hashable) -> RayResourcePool:
        """The pool of a role."""
        return self.resource_pool_dict[self.mapping[role]]

    def get_n_gpus(self) -> int:
        """Processes of all pools together: with ``use_gpu`` one GPU each."""
        return sum(sum(processes) for processes in self.resource_pool_spec.values())

    def _check_resource_available(self) -> None:
        free = ray.available_resources().get("GPU", 0)
        if self.use_gpu and free < self.get_n_gpus():
            raise ValueError(
                f"Total available GPUs {free:g} is less than total desired GPUs {self.get_n_gpus()} of {self.resource_pool_spec}: "
                "use fewer processes, or use_gpu=False on CPUs"
            )
