"""Pools made of others, TensorDicts through a group, and colocated workers with methods of their own."""

import os
import shutil
import tempfile

import pool_workers
import pytest
import ray
import torch
from pool_workers import Placed, Scorer

from verl.protocol import DataProtoFuture
from verl.single_controller.base.decorator import Dispatch, register
from verl.single_controller.ray import ResourcePoolManager, ResourcesUnavailable, SubRayResourcePool
from verl.single_controller.ray.base import (
    RayClassWithInitArgs,
    RayResourcePool,
    RayWorkerGroup,
    create_colocated_worker_cls_fused,
    create_colocated_worker_raw_cls,
    merge_resource_pool,
    split_resource_pool,
)
from verl.utils import tensordict_utils as tu
from verl.utils.ray_utils import parallel_put


@pytest.fixture(scope="module")
def cluster():
    """One node that claims two GPUs of a type: Ray counts them without looking."""
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    folder = tempfile.mkdtemp(prefix="ray_")
    ray.cloudpickle.register_pickle_by_value(pool_workers)
    ray.init(
        address="local", num_cpus=2, num_gpus=2, resources={"accelerator_type:ABACUS": 1},
        include_dashboard=False, _temp_dir=folder, log_to_driver=False,
    )  # fmt: skip
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def pool_of(processes: int, name: str | None = None, **changes) -> RayResourcePool:
    return RayResourcePool([processes], **{"use_gpu": False, "cpus_per_process": 0.1, "name_prefix": name, **changes})


def ragged(lengths: list[int]):
    x = [torch.arange(float(n)) for n in lengths]
    return tu.get_tensordict({"x": tu.nested_tensor_from_tensor_list(x), "uid": [f"u{n}" for n in lengths]}, {"step": 4}), x


@pytest.fixture(scope="module")
def whole(cluster):
    pool = pool_of(3, "whole")
    yield pool
    pool.release()


# -- one pool as several --------------------------------------------------------------------------


def test_the_parts_of_a_pool_are_pools_of_their_own(whole):
    first, rest = split_resource_pool(whole, [1, 2])
    second, third = split_resource_pool(rest, 1)
    assert [part.world_size for part in (first, rest, second, third)] == [1, 2, 1, 1]
    assert all(isinstance(part, SubRayResourcePool) for part in (first, rest, second, third))
    assert [part.places() for part in (first, rest, second, third)] == [[(0, 0)], [(0, 1), (0, 2)], [(0, 1)], [(0, 2)]]
    assert [part.world_size for part in split_resource_pool(whole, 3)] == [3]
    group = RayWorkerGroup(rest, RayClassWithInitArgs(Placed), name_prefix="rest")
    alone = RayWorkerGroup(first, RayClassWithInitArgs(Placed), name_prefix="first", device_name="cpu")
    try:
        assert group.place() == [(0, 2, 0, 2), (1, 2, 1, 2)] and alone.place() == [(0, 1, 0, 1)]
        assert group.worker_names == ["restPlaced_0:1", "restPlaced_0:2"]
        assert group.master_port != alone.master_port
        check_tensordicts_pass_through(group)
        check_objects_put_in_parallel_keep_their_order()
        alone.shutdown()  # gives nothing back: the reservation is the whole pool's
        assert group.place() == [(0, 2, 0, 2), (1, 2, 1, 2)]
    finally:
        group.kill()
        alone.kill()


def check_tensordicts_pass_through(group):
    data, rows = ragged([2, 3, 1, 4])
    expected = [row + i // 2 for i, row in enumerate(rows)]
    later = group.add_rank_later(data)
    assert isinstance(later, DataProtoFuture)
    for out in (group.add_rank(data), later.get()):
        assert all(torch.equal(got, want) for got, want in zip(out["x"].unbind(), expected, strict=True))
        assert tu.get(out, "uid") == ["u2", "u3", "u1", "u4"] and tu.get(out, "step") == 4
    again = group.add_rank(group.add_rank_later(data))  # from worker to worker
    assert all(torch.equal(got, row + 2 * (i // 2)) for i, (got, row) in enumerate(zip(again["x"].unbind(), rows, strict=True)))
    out = group.add_rank_by_pairs(data)
    assert all(torch.equal(got, row + 1) for got, row in zip(out["x"].unbind(), rows, strict=True))
    assert (group._dispatch_info["pairs"], group._collect_info["pairs"]) == ([0, 0], [False, True])
    assert all(torch.equal(got, row) for got, row in zip(data["x"].unbind(), rows, strict=True))  # the driver's own
    with pytest.raises(ValueError, match="3 rows do not make 2 equal chunks"):
        group.add_rank(ragged([1, 2, 3])[0])


def check_objects_put_in_parallel_keep_their_order():
    things = [list(range(n)) for n in range(40)]
    assert ray.get(parallel_put(things)) == things == ray.get(parallel_put(things, max_workers=3))


@pytest.mark.parametrize("sizes", [2, 0, [1, 1], [4, -1], [], "3"])
def test_sizes_that_do_not_make_up_the_pool(whole, sizes):
    with pytest.raises(ValueError, match="does not make up 3 ranks"):
        split_resource_pool(whole, sizes)


# -- several pools as one -------------------------------------------------------------------------


def test_two_pools_work_as_one_and_are_given_back_together(cluster):
    small, large = pool_of(1, "small"), pool_of(2, "large")
    both = merge_resource_pool(small, large)
    assert (both.world_size, both.store, both.name_prefix) == (3, [1, 2], "small_large")
    held = [pg.id for pool in (small, large) for pg in pool.get_placement_groups()]
    assert sorted(map(str, held)) == sorted(str(pg.id) for pg in both.get_placement_groups())
    group = RayWorkerGroup(both, RayClassWithInitArgs(Placed), name_prefix="both")
    assert sorted(place[:2] for place in group.place()) == [(0, 3), (1, 3), (2, 3)]
    group.shutdown()
    assert (both.pgs, small.pgs, large.pgs) == (None, None, None)
    for changes in ({"max_colocate_count": 2}, {"use_gpu": True}, {"detached": True}, {"cpus_per_process": 0.2}):
        with pytest.raises(ValueError, match=f"differ in .*{next(iter(changes))}"):
            merge_resource_pool(pool_of(1), pool_of(1, **changes))


def test_a_table_of_pools(cluster):
    spec, roles = {"train": [1], "play": [2]}, {"actor": "train", "critic": "train", "rollout": "play"}
    manager = ResourcePoolManager(spec, roles, use_gpu=False)
    manager.create_resource_pool()
    assert manager.get_n_gpus() == 3
    assert manager.get_resource_pool("actor") is manager.get_resource_pool("critic") is not manager.get_resource_pool("rollout")
    assert (manager.get_resource_pool("rollout").store, manager.get_resource_pool("rollout").max_colocate_count) == ([2], 3)
    with pytest.raises(ValueError, match="available GPUs 2 is less than total desired GPUs 3"):
        ResourcePoolManager(spec, roles).create_resource_pool()
    ResourcePoolManager({"train": [2]}, {"actor": "train"}).create_resource_pool()
    with pytest.raises(ValueError, match="{'ref': 'none'}"):
        ResourcePoolManager(spec, {"ref": "none"}, use_gpu=False).create_resource_pool()


# -- accelerators ---------------------------------------------------------------------------------


def test_an_accelerator_of_a_type(cluster):
    pool = pool_of(2, use_gpu=True, accelerator_type="accelerator_type:ABACUS")
    try:
        pool.get_placement_groups(device_name="cuda")
        free = ray.available_resources()
        assert free.get("GPU", 0) == 0 and 0.99 < free["accelerator_type:ABACUS"] < 1
        group = RayWorkerGroup(pool, RayClassWithInitArgs(Placed), device_name="cuda")
        assert sorted(group.devices()) == ["0", "1"]
        group.kill()
        group = RayWorkerGroup(pool, RayClassWithInitArgs(Placed, cuda_visible_devices="1,0"))
        assert group.devices() == ["1,0", "1,0"]
        group.kill()
    finally:
        pool.release()
    with pytest.raises(ResourcesUnavailable, match="accelerator_type:SLIDE_RULE"):
        pool_of(1, use_gpu=True, accelerator_type="accelerator_type:SLIDE_RULE").get_placement_groups(timeout_s=0.5)
    without = pool_of(1, accelerator_type="accelerator_type:SLIDE_RULE")  # of no account without GPUs
    assert len(without.get_placement_groups(device_name="cpu")) == 1
    without.release()
    with pytest.raises(ValueError, match="device_name='cuda' on a RayResourcePool with use_gpu=False"):
        pool_of(1).get_placement_groups(device_name="cuda")


# -- colocated workers with methods of their own --------------------------------------------------


def test_a_subclass_of_colocated_workers_reaches_both_roles(whole):
    roles = {"placed": RayClassWithInitArgs(Placed), "scorer": RayClassWithInitArgs(Scorer, factor=10)}

    class Both(create_colocated_worker_raw_cls(roles)):
        @register(dispatch_mode=Dispatch.ONE_TO_ALL)
        def total(self):
            return self.scorer.score(self.rank) + self.placed.place()[1]

    group = RayWorkerGroup(whole, RayClassWithInitArgs(Both))
    try:
        group.fuse(roles)
        assert group.total() == [3, 13, 23]
        assert group.scorer.score([1, 2, 3]) == [10, 20, 30] == group.scorer_score([1, 2, 3])
        assert group.placed.place() == group.spawn({"placed"})["placed"].place()
    finally:
        group.kill()
    fused = create_colocated_worker_cls_fused(roles)
    assert set(fused.role_classes) == set(roles)
    with pytest.raises(ValueError, match="colocated role 'rank'"):
        create_colocated_worker_raw_cls({"rank": RayClassWithInitArgs(Placed)})
