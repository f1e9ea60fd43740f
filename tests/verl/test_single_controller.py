"""Worker groups on a small Ray cluster of their own: dispatch, colocation, and deaths that are noticed."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import controller_workers
import numpy as np
import pytest
import ray
import torch
from controller_workers import Adder, Critic, Fragile

from verl.protocol import DataProto, DataProtoFuture
from verl.single_controller.base import ClassWithInitArgs, ResourcePool, Worker
from verl.single_controller.base.decorator import (
    Dispatch,
    Execute,
    get_predefined_dispatch_fn,
    register,
    register_dispatch_mode,
    update_dispatch_mode,
)
from verl.single_controller.base.worker import get_free_port
from verl.single_controller.ray import (
    RayClassWithInitArgs,
    RayResourcePool,
    RayWorkerGroup,
    WorkerDied,
    WorkerError,
    create_colocated_worker_cls,
)

NOTICED_WITHIN_S = 10


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  Ray's default of 15 starves workers on a busy machine
    folder = tempfile.mkdtemp(prefix="ray_")  # short: Ray's sockets live in it, and their paths may not be long
    ray.cloudpickle.register_pickle_by_value(controller_workers)  # Ray's processes do not look into this folder
    ray.init(address="local", num_cpus=2, include_dashboard=False, _temp_dir=folder, log_to_driver=False)
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def pool(cluster):
    return RayResourcePool([2], use_gpu=False, cpus_per_process=0.5)


@pytest.fixture(scope="module")
def adders(pool):
    group = RayWorkerGroup(pool, RayClassWithInitArgs(Adder, offset=10.0), name_prefix="adders", worker_env={"COLOUR": "blue"})
    yield group
    group.kill()


@pytest.fixture(scope="module")
def fragile_pool(cluster):
    return RayResourcePool([2], use_gpu=False, cpus_per_process=0.1)


def batch(n: int) -> DataProto:
    return DataProto.from_dict({"a": torch.arange(float(n))}, {"uid": [f"u{i}" for i in range(n)]})


# -- dispatch -------------------------------------------------------------------------------------


def test_dp_compute_proto_deals_chunks_and_joins_results(adders):
    data = batch(4)
    out = adders.add(data)
    assert out.batch["a"].tolist() == [10, 11, 13, 14]
    assert out.non_tensor_batch["uid"].tolist() == ["u0", "u1", "u2", "u3"]
    assert out.meta_info["metrics"] == {"rows": [2, 2]}
    assert data.batch["a"].tolist() == [0, 1, 2, 3]
    other = DataProto.from_dict({"b": torch.full((4,), 100.0)})
    assert adders.add(data, other=other).batch["a"].tolist() == [110, 111, 113, 114]
    assert adders.count(data) == [2, 2]


@pytest.mark.parametrize("by_keyword", [False, True])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_auto_padding_is_cut_off_again(adders, n, by_keyword):
    data = DataProto.from_dict({"a": torch.arange(float(n))}, auto_padding=True)
    half = (n + 1) // 2
    expected = [i + 10.0 + (i >= half) for i in range(n)]
    assert (adders.add(data=data) if by_keyword else adders.add(data)).batch["a"].tolist() == expected
    assert (adders.add_later(data=data) if by_keyword else adders.add_later(data)).get().batch["a"].tolist() == expected
    assert len(data) == n
    assert adders.count(data) == [half, half]


def test_a_future_goes_from_group_to_group(adders):
    start = time.monotonic()
    future = adders.add_later(batch(4))
    assert isinstance(future, DataProtoFuture) and time.monotonic() - start < 0.5
    assert adders.add(future).batch["a"].tolist() == [20, 21, 24, 25]
    assert future.get().batch["a"].tolist() == [10, 11, 13, 14]


def test_the_other_dispatch_modes(adders):
    assert adders.same(7) == [(0, 7), (1, 7)]
    assert adders.same([1, 2]) == [(0, [1, 2]), (1, [1, 2])]  # a list of one entry a rank is still one argument
    assert adders.deal([1, 2]) == [(0, 1), (1, 2)]
    assert adders.deal([1, 2, 3]) == [(0, [1, 2, 3]), (1, [1, 2, 3])]
    assert ray.get(adders.deal_later(["x", "y"])) == [(0, "x"), (1, "y")]
    assert adders.scale([1, 2], by=[10, 100]) == [(0, 10), (1, 200)]
    assert adders.first([1, 2]) == (0, [1, 2])
    assert adders.first_of_all([1, 2]) == (0, [1, 2])
    assert adders.pairs([1, 2, 3, 4]) == [(0, [1, 2]), (1, [3, 4])]
    assert adders.execute_all_sync("plain", y=1) == [11, 11]
    assert adders.execute_all_sync("plain", [1, 2]) == [11, 12]
    assert adders.execute_rank_zero_sync("plain", 5) == 15


def test_ranks_that_share_rows(adders):
    assert adders.mirrored(batch(3)).batch["a"].tolist() == [1, 11, 21]
    with pytest.raises(WorkerError, match="has not registered mesh 'none'"):
        adders.mesh("none")


def test_functions_of_the_drivers(adders):
    def double(worker, data):
        return DataProto.from_dict({"a": data.batch["a"] * 2 + worker.rank})

    assert adders.execute_with_func_generator(double, batch(4)).batch["a"].tolist() == [0, 2, 5, 7]
    assert adders.execute_func_rank_zero(lambda x: x + 1, 41) == 42


def test_data_for_all_is_stored_once_but_not_shared_in_memory(adders):
    data = DataProto.from_dict({"a": torch.zeros(200_000)})  # big enough for the object store
    first, second = adders.same(data)
    assert set(first) == {1.0} and set(second) == {2.0}
    assert data.batch["a"].sum() == 0


def test_direct_methods_are_called_on_a_handle(adders):
    with pytest.raises(TypeError, match="one worker's own handle"):
        adders.poke(1)
    assert ray.get(adders.workers[1].poke.remote("x")) == "rank 1 got x"


def test_arguments_that_cannot_be_dealt(adders):
    with pytest.raises(ValueError, match="3 rows do not make 2 equal chunks"):
        adders.add(batch(3))
    with pytest.raises(TypeError, match="argument 1 of type float"):
        adders.add(batch(2), 0.5)
    with pytest.raises(ValueError, match="argument 'by' must be a list of 2"):
        adders.scale([1, 2], by=3)
    with pytest.raises(TypeError, match="first argument must be a function"):
        adders.execute_with_func_generator(batch(2), batch(2))
    uneven = [DataProto.from_dict({"a": torch.zeros(n)}, auto_padding=True) for n in (1, 2)]
    with pytest.raises(ValueError, match="differ in length"):
        adders.add(*uneven)


def test_workers_know_their_place_and_their_threads(adders):
    names = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "RAY_LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"]
    names += ["OMP_NUM_THREADS", "OMP_WAIT_POLICY", "COLOUR"]
    (env0, threads0), (env1, threads1) = adders.environment(names)
    assert threads0 == threads1 == 1
    for rank, env in enumerate((env0, env1)):
        assert [env[k] for k in names[:5]] == [str(rank), "2", str(rank), "2", str(rank)]
        assert (env["MASTER_ADDR"], env["MASTER_PORT"]) == (adders.master_address, adders.master_port)
        assert (env["OMP_NUM_THREADS"], env["OMP_WAIT_POLICY"], env["COLOUR"]) == ("1", "PASSIVE", "blue")
    assert adders.worker_names == ["addersAdder_0:0", "addersAdder_0:1"]
    assert adders.execute_all_sync("get_master_addr_port") == [(adders.master_address, adders.master_port)] * 2
    assert [ip for ip, _ in adders.execute_all_sync("get_availale_master_addr_port")] == [adders.master_address] * 2


def test_attaching_to_workers_by_name(adders):
    again = RayWorkerGroup.from_detached(
        worker_names=adders.worker_names, ray_cls_with_init=RayClassWithInitArgs(Adder), name_prefix=None
    )
    assert again.world_size == 2 and again.same(1) == [(0, 1), (1, 1)]


# -- colocation -----------------------------------------------------------------------------------


def test_colocated_workers_share_processes(pool, adders):
    roles = {"adder": RayClassWithInitArgs(Adder, offset=5.0), "critic": RayClassWithInitArgs(Critic, config={"b": 3})}
    whole = RayWorkerGroup(pool, create_colocated_worker_cls(roles))
    try:
        assert whole.adder_add(batch(2)).batch["a"].tolist() == [5, 7]
        groups = whole.spawn(prefix_set=roles.keys())
        assert groups["adder"].add(batch(2)).batch["a"].tolist() == [5, 7]
        assert groups["critic"].subtract(batch(2)).batch["a"].tolist() == [-3, -2]  # an async method
        assert groups["adder"].mirrored(batch(2)).batch["a"].tolist() == [1, 11]
        assert ray.get(groups["adder"].workers[0].poke.remote(1)) == "rank 0 got 1"
        (offset, pid), _ = groups["critic"].neighbour_offset()
        assert offset == 5.0 and pid == whole.execute_all_sync("_get_pid")[0]
        with pytest.raises(ValueError, match=r"no colocated role \['ref'\]"):
            whole.spawn({"ref"})
    finally:
        whole.kill()
    assert adders.same(1) == [(0, 1), (1, 1)]  # the pool's other group is untouched


# -- failing --------------------------------------------------------------------------------------


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def check_exceptions_are_named_and_the_group_lives_on(fragile):
    with pytest.raises(ValueError, match=r"rank 1 failed in 'raise_on': ValueError: as ordered") as error:
        fragile.raise_on(1, ValueError)
    assert isinstance(error.value, WorkerError)
    assert (error.value.rank, error.value.method) == (1, "raise_on") and type(error.value.cause) is ValueError
    assert "controller_workers.py" in str(error.value)  # the worker's own traceback
    with pytest.raises(WorkerError, match="rank 0 failed in 'raise_on': OSError: as ordered"):
        fragile.raise_on(0, OSError)
    assert fragile.sum_of_ranks() == [1.0, 1.0]


def check_a_worker_killed_in_mid_call_is_named(fragile):
    pids = fragile.pid()
    killed_at = []

    def kill_rank_1():
        time.sleep(1)
        os.kill(pids[1], signal.SIGKILL)
        killed_at.append(time.monotonic())

    refs = fragile.hang_in_collective(except_rank=1)  # rank 0 waits for rank 1 in gloo, rank 1 sleeps
    threading.Thread(target=kill_rank_1).start()
    with pytest.raises(WorkerDied) as error:
        fragile.gather(refs, "hang_in_collective")
    assert time.monotonic() - killed_at[0] < NOTICED_WITHIN_S
    died = error.value
    assert isinstance(died, RuntimeError)
    assert (died.rank, died.pid, died.method) == (1, pids[1], "hang_in_collective") and died.cause
    assert all(part in str(died) for part in ("rank 1", str(pids[1]), died.node, "hang_in_collective"))
    assert fragile.dead_ranks() == [1]
    with pytest.raises(WorkerDied, match="rank 1"):  # and any later call says so at once
        fragile.sum_of_ranks()


def check_killing_ends_the_survivors(fragile, pids):
    assert runs(pids[0])
    fragile.kill()
    assert not any(runs(pid) for pid in pids)


def check_a_blocking_call_does_not_wait_for_ranks_that_never_finish(fragile):
    start = time.monotonic()
    with pytest.raises(WorkerDied, match="rank 0 .*'die_on'"):
        fragile.die_on(0)  # rank 1 sleeps for ten minutes
    assert time.monotonic() - start < NOTICED_WITHIN_S


def check_a_death_in_a_watched_group_ends_the_wait_for_another(adders, fragile):
    adders.watch([fragile])
    refs = adders.execute_all_async("execute_func_rank_zero", time.sleep, 4)
    with pytest.raises(WorkerDied, match=r"fragile worker rank 0 .*'a long call'") as error:
        adders.gather(refs, "a long call")
    assert (error.value.group, error.value.rank) == ("fragile", 0)
    adders.watch([])
    assert adders.same(1) == [(0, 1), (1, 1)]


def check_an_exception_in_a_partner_ends_the_wait(adders, fragile):
    refs = adders.execute_all_async("execute_func_rank_zero", time.sleep, 4)
    start = time.monotonic()
    with pytest.raises(WorkerError, match=r"(?s)rank 1 failed in 'a long call'.*as ordered"):
        adders.gather(refs, "a long call", beside=fragile.execute_all_async("raise_on", 1, KeyError))
    assert time.monotonic() - start < 3


def test_deaths_and_exceptions_are_noticed_and_named(adders, fragile_pool):
    """One after the other on as few groups as will do: starting processes is what takes the time."""
    group = RayWorkerGroup(fragile_pool, RayClassWithInitArgs(Fragile), name_prefix="fragile")
    pids = group.pid()
    check_exceptions_are_named_and_the_group_lives_on(group)
    check_an_exception_in_a_partner_ends_the_wait(adders, group)
    check_a_worker_killed_in_mid_call_is_named(group)
    check_killing_ends_the_survivors(group, pids)
    rebuilt = RayWorkerGroup(fragile_pool, RayClassWithInitArgs(Fragile), name_prefix="fragile")
    assert rebuilt.sum_of_ranks() == [1.0, 1.0]
    check_a_blocking_call_does_not_wait_for_ranks_that_never_finish(rebuilt)
    check_a_death_in_a_watched_group_ends_the_wait_for_another(adders, rebuilt)
    rebuilt.kill()


def test_a_failing_constructor_is_reported_and_leaves_nothing_behind(fragile_pool):
    with pytest.raises(WorkerError, match=r"(?s)rank 1 failed in '__init__'.*LookupError: no such model"):
        RayWorkerGroup(fragile_pool, RayClassWithInitArgs(Fragile, fail_in_init=True), name_prefix="bad")
    with pytest.raises(ValueError, match="badFragile_0:0"):
        ray.get_actor("badFragile_0:0")


def test_what_the_cluster_cannot_give_is_said(cluster):
    pool = RayResourcePool([2], use_gpu=False, cpus_per_process=50)
    with pytest.raises(RuntimeError, match=r"cannot reserve \{'CPU': 50\}.*cluster has \{'CPU': 2.*cpus_per_process"):
        pool.get_placement_groups(timeout_s=0.5)


def test_killing_the_driver_kills_its_workers(cluster):
    """SIGKILL, so without a chance to clean up; the cluster itself lives on, as one of several nodes would."""
    script = textwrap.dedent("""
        import sys, time, ray
        from controller_workers import Adder
        from verl.single_controller.ray import RayClassWithInitArgs, RayResourcePool, RayWorkerGroup
        ray.init(address=sys.argv[1], log_to_driver=False)
        pool = RayResourcePool([1], use_gpu=False, cpus_per_process=0.5)
        path = {"PYTHONPATH": sys.argv[2]}
        group = RayWorkerGroup(pool, RayClassWithInitArgs(Adder), worker_env=path)
        print(group.execute_all_sync("_get_pid")[0], flush=True)
        time.sleep(600)
    """)
    path = os.pathsep.join(p for p in (str(Path(__file__).parent), *sys.path) if p)
    driver = subprocess.Popen(
        [sys.executable, "-c", script, ray.get_runtime_context().gcs_address, path],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        worker = int(driver.stdout.readline())
        assert runs(worker)
    finally:
        driver.kill()
        driver.wait()
    deadline = time.monotonic() + 30
    while runs(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not runs(worker)


# -- without Ray ----------------------------------------------------------------------------------


def test_resource_pool_and_deferred_class():
    pool = ResourcePool([2, 3])
    assert (pool.world_size, pool(), pool.local_rank_list()) == (5, [2, 3], [0, 1, 0, 1, 2])
    assert pool.local_world_size_list() == [2, 2, 3, 3, 3]
    pool.add_node(1)
    assert pool.store == [2, 3, 1]
    assert ClassWithInitArgs(complex, 1, imag=2)() == 1 + 2j
    for wrong in ([0], [1.5], ["2"]):
        with pytest.raises(ValueError, match="process_on_nodes"):
            ResourcePool(wrong)


def test_a_worker_outside_a_group_is_rank_0_of_1(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")  # so that what the worker sets is undone, too
    monkeypatch.setenv("MASTER_PORT", "1")
    worker = Adder(1.0)
    assert (worker.rank, worker.world_size, worker.plain(1)) == (0, 1, 2.0)
    assert len({get_free_port() for _ in range(20)}) > 1


def test_registration_refuses_what_cannot_work():
    with pytest.raises(ValueError, match="dispatch_fn"):
        register({"dispatch_fn": print})
    with pytest.raises(TypeError, match="Dispatch"):
        register("ONE_TO_ALL")
    with pytest.raises(TypeError, match="Execute"):
        register(Dispatch.ONE_TO_ALL, "ALL")
    with pytest.raises(ValueError, match="RANK_ZERO the other shares are lost"):
        register(Dispatch.DP_COMPUTE_PROTO, Execute.RANK_ZERO)
    with pytest.raises(TypeError, match="subclass of"):
        RayClassWithInitArgs(dict)
    with pytest.raises(ValueError, match=r"\['RANK'\]"):
        RayWorkerGroup(RayResourcePool([1], use_gpu=False), RayClassWithInitArgs(Adder), worker_env={"RANK": "1"})
    with pytest.raises(ValueError, match="device_name='cuda'"):
        RayWorkerGroup(RayResourcePool([1], use_gpu=False), RayClassWithInitArgs(Adder), device_name="cuda")
    with pytest.raises(ValueError, match="cpus_per_process"):
        RayResourcePool([1], cpus_per_process=0)


def test_modes_of_ones_own():
    def nothing(worker_group, *args, **kwargs):
        return args, kwargs

    mode = register_dispatch_mode("TEST_ONLY_MODE", nothing, lambda worker_group, output: output)
    assert Dispatch.TEST_ONLY_MODE is mode and get_predefined_dispatch_fn(mode)["dispatch_fn"] is nothing
    update_dispatch_mode(mode, print, print)
    assert get_predefined_dispatch_fn(mode)["dispatch_fn"] is print
    with pytest.raises(ValueError, match="already registered"):
        register_dispatch_mode("TEST_ONLY_MODE", nothing, nothing)
    with pytest.raises(ValueError, match="CAPITALS"):
        Dispatch.register("lower")


def test_a_method_must_not_hide_the_groups_own(monkeypatch):
    class Hides(Worker):
        @register(Dispatch.ONE_TO_ALL)
        def kill(self):
            return np.nan

    group = object.__new__(RayWorkerGroup)
    with pytest.raises(ValueError, match="Hides.kill would hide"):
        group._bind_worker_method(Hides)
