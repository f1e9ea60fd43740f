"""A pool over several Ray nodes: where its workers go, what a reservation waits for, and nodes that are lost."""

import logging
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import controller_workers
import pytest
import ray
from controller_workers import Fragile
from ray.cluster_utils import Cluster

from verl.single_controller.ray import RayClassWithInitArgs, RayResourcePool, RayWorkerGroup, ResourcesUnavailable, WorkerDied
from verl.single_controller.ray import resource_pool as resource_pool_module
from verl.single_controller.ray.resource_pool import bundle_node

NOTICED_WITHIN_S = 10


@pytest.fixture(scope="module")
def cluster(ray_apart):
    """A head node of one CPU, with the driver on it."""
    ray.cloudpickle.register_pickle_by_value(controller_workers)  # Ray's processes do not look into this folder
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def two_nodes() -> RayResourcePool:
    return RayResourcePool([1, 1], use_gpu=False, cpus_per_process=0.4)


def start(pool: RayResourcePool) -> RayWorkerGroup:
    return RayWorkerGroup(pool, RayClassWithInitArgs(Fragile), name_prefix="ranks")


def raylet_of(node) -> int:
    return node.all_processes["raylet"][0].process.pid


def children_of(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def check_a_reservation_says_what_it_waits_for(cluster, caplog, monkeypatch):
    """The head has room for both ranks; but an entry of the pool means a node of its own."""
    with pytest.raises(ResourcesUnavailable, match=r"room for 1 of 2 entries.*on 1 node\(s\)") as error:
        two_nodes().get_placement_groups(timeout_s=1)
    assert error.value.found == 1
    assert all(group["state"] == "REMOVED" for group in ray.util.placement_group_table().values())
    monkeypatch.setattr(resource_pool_module, "_FIRST_TRY_S", 1)
    pool = two_nodes()
    with ThreadPoolExecutor(1) as beside:  # Ray starts nodes from the main thread only
        reserved = beside.submit(pool.get_placement_groups, timeout_s=120)
        while "waiting for 1 more node(s) with {'CPU': 0.4}" not in caplog.text:
            assert not reserved.done()
            time.sleep(0.05)
        joined = cluster.add_node(num_cpus=1)
        groups = reserved.result()
    assert len({bundle_node(group, 0) for group in groups}) == 2
    return pool, joined


def check_a_rank_that_holds_its_interpreter_lock_is_no_lost_node(group, pool):
    seconds = int(pool.node_timeout_s) + 2
    began = time.monotonic()
    assert group.execute_all_sync("hold_the_interpreter_lock", seconds) == [0, 0]
    assert time.monotonic() - began >= seconds
    assert pool.node_watch.lost() == {}


def lose(group: RayWorkerGroup, pool: RayResourcePool, how) -> tuple[WorkerDied, float]:
    """What is raised while both ranks are at work, and how many seconds after ``how()``."""
    here = ray.get_runtime_context().get_node_id()
    gone = next(i for i, g in enumerate(pool.get_placement_groups()) if bundle_node(g, 0) != here)
    refs = group.hang_in_collective(except_rank=gone)
    time.sleep(0.5)
    how()
    began = time.monotonic()
    with pytest.raises(WorkerDied) as error:
        group.gather(refs, "hang_in_collective")
    seconds = time.monotonic() - began
    assert error.value.rank == gone and error.value.node != "unknown" and error.value.pid
    began = time.monotonic()
    group.shutdown()
    assert time.monotonic() - began < NOTICED_WITHIN_S
    return error.value, seconds


def test_nodes_are_waited_for_and_their_loss_is_noticed(cluster, caplog, monkeypatch):
    """One after the other on as few nodes as will do: starting them is what takes the time."""
    pool, second = check_a_reservation_says_what_it_waits_for(cluster, caplog, monkeypatch)
    stopped = []

    def freeze() -> None:  # nothing is closed, nothing answers: as a machine that loses its power or its network
        stopped.extend([raylet_of(second), *children_of(raylet_of(second))])
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)

    try:
        died, seconds = lose(start(pool), pool, freeze)
        with pytest.raises(ResourcesUnavailable, match="room for 1 of 2"):  # Ray still believes the node alive
            two_nodes().get_placement_groups(timeout_s=3)
        alone = RayResourcePool([1], use_gpu=False, cpus_per_process=0.4)
        alone.get_placement_groups(timeout_s=10)
        alone.release()
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGKILL)
    print(f"a silent node: noticed after {seconds:.1f} s")
    assert "has not answered for" in died.cause and seconds < NOTICED_WITHIN_S

    third = cluster.add_node(num_cpus=1)
    pool = RayResourcePool([1, 1], use_gpu=False, cpus_per_process=0.4, node_timeout_s=3)
    group = start(pool)
    check_a_rank_that_holds_its_interpreter_lock_is_no_lost_node(group, pool)
    died, seconds = lose(group, pool, lambda: os.kill(raylet_of(third), signal.SIGKILL))
    print(f"a killed raylet: noticed after {seconds:.1f} s")
    assert "is lost: its Ray daemon" in died.cause and seconds < NOTICED_WITHIN_S
