"""Names that only VeRL programs use, at VeRL's import paths (those over TensorDicts and resource pools have files of their own)."""

import asyncio
import dataclasses
import importlib.util
import itertools
import os
import random
import sys
import warnings

import gather_ranks
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from training_cases import run_ranks

from verl.base_config import BaseConfig
from verl.protocol import DataProto, list_of_dict_to_dict_of_list
from verl.single_controller.base import Worker
from verl.utils import device, import_utils, py_functional
from verl.utils.ray_utils import auto_await, get_event_loop, parallel_put, ray_noset_visible_devices
from verl.utils.seqlen_balancing import calculate_workload, get_group_balanced_partitions

# -- rows of all ranks ----------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [[2, 2], [3, 1], [0, 2]])
def test_every_rank_gets_the_rows_of_all_in_order(counts):
    expected = DataProto.concat([without_meta_info(rank, count) for rank, count in enumerate(counts)])
    for rank, got in enumerate(run_ranks(gather_ranks.gathered, 2, counts)):
        assert got.meta_info == {"rank": rank}
        assert got.non_tensor_batch["uid"].tolist() == expected.non_tensor_batch["uid"].tolist()
        for key, tensor in expected.batch.items():
            assert got.batch[key].dtype == tensor.dtype and torch.equal(got.batch[key], tensor), key


def without_meta_info(rank: int, count: int) -> DataProto:
    """A rank's rows without what differs by rank in meta_info."""
    data = gather_ranks.rows_of(rank, count)
    data.meta_info = {}
    return data


def test_values_alone_are_gathered_too():
    assert run_ranks(gather_ranks.gathered_values_alone, 2) == [[0, 0, 1, -1]] * 2


def test_ranks_whose_batches_do_not_fit_together_all_hear_of_it():
    for heard in run_ranks(gather_ranks.refused, 2):
        assert [("rank 1 differs" in m, m[-5:]) for m in heard[:3]] == [(True, "['x']"), (True, "['x']"), (True, "['y']")]
        assert heard[3] == 2


# -- plain containers -----------------------------------------------------------------------------


@given(st.lists(st.fixed_dictionaries({"a": st.integers(), "b": st.text()}), max_size=6))
def test_rows_become_columns(rows):
    columns = list_of_dict_to_dict_of_list(rows)
    assert [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)] == rows
    if rows:
        with pytest.raises(AssertionError, match=r"dict \d+ and the first one differ in the keys \['c'\]"):
            list_of_dict_to_dict_of_list([*rows, {**rows[0], "c": 1}])
        with pytest.raises(AssertionError, match=r"\['b'\]"):  # VeRL would give columns of unequal length
            list_of_dict_to_dict_of_list([*rows, {"a": 1}])


def test_dicts_are_renamed_and_made_plain(monkeypatch):
    assert py_functional.rename_dict({"loss": 1, "actor/kl": 2}, "actor/") == {"actor/loss": 1, "actor/kl": 2}
    config = OmegaConf.create({"a": [1, {"b": [2]}], "c": None})
    plain = py_functional.convert_to_regular_types({"outer": (config, 1)})
    assert plain == {"outer": [{"a": [1, {"b": [2]}], "c": None}, 1]} and type(plain["outer"][0]["a"][1]) is dict
    assert py_functional.convert_nested_value_to_list_recursive({"x": [np.ones((1, 2)), "s"]}) == {"x": [[[1.0, 1.0]], "s"]}
    space = py_functional.NestedNamespace({"a": {"b": {"c": 1}}, "d": [2]}, e=3)
    assert (space.a.b.c, space.d, space.e) == (1, [2], 3)
    monkeypatch.setenv("COLOUR", "blue")
    monkeypatch.delenv("SHAPE", raising=False)
    with pytest.raises(KeyError), py_functional.temp_env_var("COLOUR", "red"), py_functional.temp_env_var("SHAPE", "round"):
        assert (os.environ["COLOUR"], os.environ["SHAPE"]) == ("red", "round")
        raise KeyError
    assert os.environ["COLOUR"] == "blue" and "SHAPE" not in os.environ


# -- configs --------------------------------------------------------------------------------------


@dataclasses.dataclass
class Settings(BaseConfig):
    _mutable_fields = {"steps"}
    lr: float = 0.1
    steps: int = 1


def test_a_config_reads_like_a_dict_and_is_set_once():
    settings_ = Settings(lr=0.5)
    assert (settings_["lr"], settings_.get("steps"), settings_.get("none", 7)) == (0.5, 1, 7)
    assert {"lr", "steps"} <= set(settings_) and len(settings_) == len(list(settings_))
    assert {**settings_}["lr"] == 0.5
    settings_.steps = 2
    with pytest.raises(dataclasses.FrozenInstanceError, match="'lr' of Settings"):
        settings_.lr = 1.0
    assert settings_["steps"] == 2 and settings_.lr == 0.5
    with pytest.raises(AttributeError):
        settings_["missing"]


# -- balance by group -----------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.randoms(use_true_random=False), st.booleans())
def test_groups_stay_whole_and_are_as_many_on_each_rank(k, groups_each, rng, mixed):
    uids = [uid for uid in range(k * groups_each) for _ in range(rng.randint(1, 4))]
    if mixed:  # a group's members need not stand together
        rng.shuffle(uids)
    lengths = [rng.randint(1, 500) for _ in uids]
    parts = get_group_balanced_partitions(lengths, [f"u{uid}" for uid in uids], k)
    assert sorted(itertools.chain.from_iterable(parts)) == list(range(len(uids)))
    owners = [{uids[i] for i in part} for part in parts]
    assert [len(owner) for owner in owners] == [groups_each] * k
    assert len(set.union(*owners)) == k * groups_each
    loads = [sum(calculate_workload(lengths[i]) for i in part) for part in parts]
    largest = max(sum(calculate_workload(n) for n, u in zip(lengths, uids, strict=True) if u == uid) for uid in set(uids))
    assert max(loads) - min(loads) <= largest * groups_each


def test_balance_by_group_is_near_the_best_there_is():
    """Against every way to split eight groups in two fours."""
    for seed in range(20):
        rng = random.Random(seed)
        uids = [uid for uid in range(8) for _ in range(3)]
        lengths = [rng.randint(10, 4000) for _ in uids]
        cost = [sum(calculate_workload(n) for n, u in zip(lengths, uids, strict=True) if u == uid) for uid in range(8)]
        best = min(max(sum(cost[u] for u in half), sum(cost) - sum(cost[u] for u in half)) for half in itertools.combinations(range(8), 4))
        parts = get_group_balanced_partitions(lengths, uids, 2)
        assert max(sum(calculate_workload(lengths[i]) for i in part) for part in parts) <= 1.15 * best


def test_groups_that_cannot_be_dealt():
    with pytest.raises(ValueError, match="2 lengths and 3 uids"):
        get_group_balanced_partitions([1, 2], [0, 1, 2], 1)
    with pytest.raises(ValueError, match="2 uid groups cannot fill 3"):
        get_group_balanced_partitions([1, 2, 3], [0, 0, 1], 3)
    with pytest.raises(ValueError, match="3 sequences cannot form 2 partitions of equal size"):
        get_group_balanced_partitions([1, 2, 3], [0, 1, 2], 2)
    # a layer of hidden size 4096 costs 12 h**2 n + 2 h n**2 multiplications
    assert calculate_workload(10) * 2 * 4096 == 12 * 4096**2 * 10 + 2 * 4096 * 10**2
    assert calculate_workload(torch.tensor([1, 2])).tolist() == [calculate_workload(1), calculate_workload(2)]


# -- devices --------------------------------------------------------------------------------------


def test_devices_are_those_of_this_process():
    on_gpu = torch.cuda.is_available()
    assert device.get_torch_device() is (torch.cuda if on_gpu else torch.cpu)
    assert device.get_nccl_backend() == ("nccl" if on_gpu else "gloo")
    assert device.get_resource_name() == ("GPU" if on_gpu else "CPU")
    assert torch.zeros(1).to(device.get_device_id()).device.type == device.get_device_name() == ("cuda" if on_gpu else "cpu")
    assert device.is_cuda_available is device.is_device_available() is device.is_support_ipc() is on_gpu
    assert not device.is_npu_available and not device.is_torch_npu_available()
    assert (device.get_device_capability() == (None, None)) is not on_gpu
    assert device.get_visible_devices_keyword() == "CUDA_VISIBLE_DEVICES"
    device.set_expandable_segments(False)
    device.get_torch_device().synchronize()
    for seed in (device.manual_seed, device.manual_seed_all):
        seed(5)
        first = torch.rand(3, device=device.get_device_name())
        seed(5)
        assert torch.equal(torch.rand(3, device=device.get_device_name()), first)
    config = OmegaConf.create({"trainer": {"device": "npu"}})
    device.auto_set_device(config)
    device.auto_set_device(OmegaConf.create({}))
    assert config.trainer.device == ("cuda" if on_gpu else "npu")


# -- a user's own modules -------------------------------------------------------------------------


@pytest.fixture
def module_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from __future__ import annotations\nimport sys, dataclasses\nKNOWN = __name__ in sys.modules\n"
        "@dataclasses.dataclass\nclass Price:\n    cents: int = 5\n"
    )
    return path


def test_objects_are_loaded_from_files_and_packages(module_file):
    before = set(sys.modules)
    for where in (str(module_file), f"file://{module_file}"):
        assert import_utils.load_extern_object(where, "Price")().cents == 5
    assert set(sys.modules) == before  # a module without a name is nobody's to import
    for where in ("pkg://verl.base_config", "pkg://verl/base_config"):
        assert import_utils.load_extern_object(where, "BaseConfig") is BaseConfig
    assert import_utils.load_module(None) is None and import_utils.load_module("") is None
    assert import_utils.load_class_from_fqn("verl.base_config.BaseConfig") is BaseConfig
    with pytest.warns(FutureWarning, match="use load_extern_object"):
        assert import_utils.load_extern_type(str(module_file), "KNOWN") is True


def test_a_module_with_a_name_is_known_while_it_runs(module_file, monkeypatch):
    monkeypatch.delitem(sys.modules, "prices_of_mine", raising=False)
    module = import_utils.load_module(str(module_file), module_name="prices_of_mine")
    assert module.KNOWN and sys.modules.pop("prices_of_mine") is module
    module_file.write_text("import nothing_of_that_name")
    with pytest.raises(RuntimeError, match=r"mine.py'.*nothing_of_that_name"):
        import_utils.load_module(str(module_file), module_name="prices_of_mine")
    assert "prices_of_mine" not in sys.modules
    with pytest.raises(RuntimeError, match="'os' already exists in sys.modules"):
        import_utils.load_module(str(module_file), module_name="os")
    assert sys.modules["os"] is os


def test_what_cannot_be_loaded_is_named(tmp_path, module_file):
    with pytest.raises(FileNotFoundError, match="none.py"):
        import_utils.load_extern_object(str(tmp_path / "none.py"), "x")
    with pytest.raises(AttributeError, match="no object 'Cost' in module '.*mine.py'"):
        import_utils.load_extern_object(str(module_file), "Cost")
    (tmp_path / "text.txt").write_text("x = 1")
    with pytest.raises(ImportError, match="text.txt' is not a Python file"):
        import_utils.load_module(str(tmp_path / "text.txt"))
    with pytest.raises(ValueError, match="Invalid reward 'Price'"):
        import_utils.load_class_from_fqn("Price", "reward")
    with pytest.raises(ImportError, match="reward 'no.such.Price'"):
        import_utils.load_class_from_fqn("no.such.Price", "reward")
    with pytest.raises(AttributeError, match="'verl.base_config' has no 'Price'"):
        import_utils.load_class_from_fqn("verl.base_config.Price")


def test_deprecated_names_warn_and_work():
    @import_utils.deprecated("new_sum")
    def old_sum(a, b):
        return a + b

    @import_utils.deprecated()
    class Old:
        def __init__(self, x):
            self.x = x

    with pytest.warns(FutureWarning, match="old_sum is deprecated: use new_sum"):
        assert old_sum(1, b=2) == 3
    with pytest.warns(FutureWarning, match="Old is deprecated$"):
        assert isinstance(Old(4), Old) and Old.__name__ == "Old"
    for name in ("vllm", "trl", "nvtx", "sglang", "msprobe"):
        assert getattr(import_utils, f"is_{name}_available")() is (importlib.util.find_spec(name) is not None)
    assert import_utils.is_megatron_core_available() is (importlib.util.find_spec("megatron") is not None)


# -- Ray and asyncio, without a cluster -----------------------------------------------------------


def test_a_coroutine_may_be_called_from_anywhere():
    @auto_await
    async def double(x):
        await asyncio.sleep(0)
        return 2 * x

    def called_plainly_inside_a_loop():
        return double(3)

    async def inside():
        return await double(2), called_plainly_inside_a_loop()

    assert double(1) == 2 and asyncio.run(inside()) == (4, 6)
    assert auto_await(lambda: 5)() == 5
    loop = get_event_loop()
    assert loop is get_event_loop() and loop.run_until_complete(asyncio.sleep(0, 7)) == 7
    loop.close()
    asyncio.set_event_loop(None)
    with pytest.raises(AssertionError, match="nothing to put"):
        parallel_put([])
    assert ray_noset_visible_devices({"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"})
    assert not ray_noset_visible_devices({"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "", "RAY_ADDRESS": "x"})


# -- a worker's places ----------------------------------------------------------------------------


@pytest.fixture
def alone(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")


def test_a_wrapping_worker_takes_over_the_places_of_those_inside(alone):
    inner, other, outer = Worker(), Worker(), Worker()
    inner._register_dispatch_collect_info("train", dp_rank=3, is_collect=False)
    other._register_dispatch_collect_info("infer", dp_rank=1, is_collect=True)
    assert inner.get_dispatch_collect() == {"dispatch_dp_rank": {"train": 3}, "collect_dp_rank": {"train": False}}
    outer.set_dispatch_collect("actor", **inner.get_dispatch_collect())
    outer.set_dispatch_collect("rollout", **other.get_dispatch_collect())
    assert (outer._query_dispatch_info("actor"), outer._query_collect_info("actor")) == (3, False)
    assert (outer._query_dispatch_info("rollout"), outer.query_collect_info("rollout")) == (1, True)
    third = Worker()
    third.set_dispatch_collect("rollout", **outer.get_dispatch_collect())  # the one of that name, of two
    assert third._query_mesh("rollout") == (1, True)
    with pytest.raises(ValueError, match="cannot choose among the places"):
        third.set_dispatch_collect("critic", **outer.get_dispatch_collect())
    for error in (AssertionError, ValueError):
        with pytest.raises(error, match=r"'actor' has been registered as \(3, False\)"):
            outer.set_dispatch_collect("actor", **other.get_dispatch_collect())
    assert outer._query_dispatch_info("actor") == 3


def test_a_worker_may_be_given_its_devices_and_names_a_port(alone):
    assert Worker().get_cuda_visible_devices() == "7"
    worker = Worker(cuda_visible_devices="2,3")
    assert worker.get_cuda_visible_devices() == "2,3" == os.environ["CUDA_VISIBLE_DEVICES"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        address, port = worker.get_available_master_addr_port()
    assert address == worker._get_node_ip() and 1024 < int(port) < 65536
    with pytest.warns(UserWarning, match="use get_available_master_addr_port"):
        assert worker.get_availale_master_addr_port()[0] == address
