"""A configuration meets a machine with GPUs: the laptop form fits itself to it, past selves and the reserve are planned."""

import os
import stat

import pytest

from ragen.trainer import machine_checks
from ragen.trainer.config import compose, gpu_form, plain, validate_config
from ragen.trainer.machine_checks import check_device
from ragen.trainer.memory import past_selves, plan_run
from verl.utils.config_check import ConfigError
from verl.utils.memory_plan import GPU_RESERVE, GiB


@pytest.fixture
def one_gpu(tmp_path, monkeypatch):
    """An ``nvidia-smi`` that knows one GPU of 24 GB."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 24576\n")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize("name,overrides", [("_0_laptop", []), ("_15_FI1_nested", ["+form=laptop"]), ("_0_laptop", ["form=laptop"])])
def test_the_laptop_form_fits_itself_to_a_gpu(one_gpu, name, overrides):
    config = compose(name, overrides)
    group = config.actor_rollout_ref
    assert group.rollout.dtype == "bfloat16" and group.actor.fsdp_config.mixed_precision.param_dtype == "bf16"
    assert config.trainer.n_gpus_per_node == 1 and list(check_device(plain(config), "cuda")) == []
    assert validate_config(config, check_machine=False).device == "cuda"
    # all else is the form's
    on_cpu = plain(compose(name, [*overrides, "trainer.device=cpu"]))
    ours = plain(config)
    assert ours["custom_envs"] == on_cpu["custom_envs"] and ours["es_manager"] == on_cpu["es_manager"]
    assert ours["trainer"] | {"n_gpus_per_node": 2, "device": "cpu"} == on_cpu["trainer"]


def test_what_the_user_says_goes_before_the_form(one_gpu):
    config = compose("_0_laptop", ["actor_rollout_ref.rollout.dtype=float16", "trainer.n_gpus_per_node=3"])
    assert config.actor_rollout_ref.rollout.dtype == "float16" and config.trainer.n_gpus_per_node == 3
    on_cpu = compose("_0_laptop", ["trainer.device=cpu"])
    assert on_cpu.actor_rollout_ref.rollout.dtype == "float32" and on_cpu.trainer.n_gpus_per_node == 2


def test_forms_without_a_gpu_form_stay():
    assert gpu_form(["++a=1"], None) == ["++a=1"] and gpu_form(["+form=mine"], "mine") == ["+form=mine"]
    assert gpu_form(["+form=laptop", "++a=1"], "laptop") == ["+form=laptop_gpu", "++a=1"]


def test_a_vllm_for_gpus_is_refused_on_a_cpu(tmp_path, monkeypatch):
    config = plain(compose("_0_laptop", ["trainer.device=cpu"]))
    assert list(check_device(config, "cpu")) == []
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").touch()
    (tmp_path / "vllm" / "cumem_allocator.abi3.so").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(machine_checks.importlib.sys.modules, "vllm", raising=False)
    [problem] = check_device(config, "cpu")
    assert "GPU build" in problem and "rollout.name=hf" in problem
    config["actor_rollout_ref"]["rollout"]["name"] = "hf"
    assert list(check_device(config, "cpu")) == []


# -- the plan -----------------------------------------------------------------------------------

PAST = "custom_envs.TicTacToe.env_config.player_info=[{type: policy, checkpoint: old/a}, {type: policy, checkpoint: old/b}]"
ONE_CARD = ["trainer.plan_only=true", "trainer.n_gpus_per_node=1", "trainer.device_memory_gb=140"]
SMALL_SHARE = "actor_rollout_ref.rollout.gpu_memory_utilization=0.3"


def part(report, name):
    return next(p for p in report.memory.parts if p.name == name)


def test_past_selves_are_planned_in_every_phase():
    without, with_two = (plan_run(compose("_8_tictactoe", [*ONE_CARD, SMALL_SHARE, *more])) for more in ([], [PAST]))
    held = 2 * 0.2 * 140 * GiB
    past = part(with_two, "past selves")
    assert past.update == past.sync == past.rollout == pytest.approx(held)
    assert with_two.memory.update - without.memory.update == pytest.approx(held)
    same = PAST.replace("old/b", "old/a")
    assert [past_selves(plain(compose("_8_tictactoe", [o]))) for o in (PAST, same)] == [2, 1]
    with pytest.raises(ConfigError) as caught:
        plan_run(compose("_8_tictactoe", [*ONE_CARD, SMALL_SHARE, PAST, "actor_rollout_ref.rollout.past_self_gpu_memory_utilization=0.02"]))
    assert "KV cache of a past self" in str(caught.value)


def test_7b_on_one_card_is_refused_with_the_share_that_fits():
    """Weights, gradients and Adam are 122 GB; half of 140 GiB for the engine leaves no room beside shards and moments."""
    seven = [*ONE_CARD, "model_path=Qwen/Qwen2.5-7B-Instruct"]
    with pytest.raises(ConfigError) as caught:
        plan_run(compose("_8_tictactoe", [*seven, "actor_rollout_ref.rollout.gpu_memory_utilization=0.5"]))
    assert "gpu_memory_utilization of at most 0.3" in str(caught.value)
    share = str(caught.value).split("gpu_memory_utilization of at most ")[1][:4]
    report = plan_run(compose("_8_tictactoe", [*seven, f"actor_rollout_ref.rollout.gpu_memory_utilization={float(share) - 0.01:.2f}"]))
    assert part(report, "reserve").rollout == GPU_RESERVE and 3 * GiB <= GPU_RESERVE <= 5 * GiB
    assert report.memory.peak <= 140 * GiB
