"""What a GPU's engine would be started with, looked at without a GPU; and vLLM's log in a file."""

import dataclasses
import logging
import os
import subprocess
import sys
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ragen.trainer.config import compose
from verl.workers.rollout.vllm_settings import EngineSettings

NO_VLLM = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
ROLLOUT = compose("_8_tictactoe").actor_rollout_ref.rollout


def settings(on_gpu=True, role="policy", **changes):
    return EngineSettings.from_rollout(OmegaConf.merge(ROLLOUT, changes), "model", on_gpu=on_gpu, role=role)


@NO_VLLM
@pytest.mark.parametrize("on_gpu,tensor_parallel,role", product([False, True], [1, 2], ["policy", "past_self"]))
def test_vllm_takes_every_argument_and_knows_every_variable(on_gpu, tensor_parallel, role):
    """Against vLLM's own names: an argument that is gone or renamed would end a run at the start of its engine."""
    from vllm import EngineArgs, envs

    chosen = settings(on_gpu, role, tensor_model_parallel_size=tensor_parallel)
    names = {field.name for field in dataclasses.fields(EngineArgs)}
    assert set(chosen.arguments(on_gpu=on_gpu)) <= names
    EngineArgs(**chosen.arguments(on_gpu=on_gpu))
    variables = set(chosen.environment(on_gpu=on_gpu)) - {"TORCH_COMPILE_DISABLE"}
    assert variables <= set(envs.environment_variables)


@NO_VLLM
def test_ranks_that_do_not_see_one_another_use_nccl_alone():
    """Under Ray each rank sees one GPU. vLLM's own switches, read back from its configuration."""
    from vllm import EngineArgs, envs

    apart, together = settings(tensor_model_parallel_size=2), settings(tensor_model_parallel_size=2)
    arguments = apart.arguments(on_gpu=True, visible_gpus=1)
    args = EngineArgs(**arguments)
    assert args.disable_custom_all_reduce and args.compilation_config.pass_config.fuse_allreduce_rms is False
    with pytest.MonkeyPatch.context() as patch:
        for name, value in apart.environment(on_gpu=True, visible_gpus=1).items():
            patch.setenv(name, value)
        for switch in ("VLLM_ALLREDUCE_USE_SYMM_MEM", "VLLM_ALLREDUCE_USE_FLASHINFER", "VLLM_ALLREDUCE_USE_FLASHINFER_PCIE_IPC"):
            assert envs.environment_variables[switch]() is False, switch
    for on_gpu, visible in ((True, 2), (True, 8), (False, 0)):
        assert "disable_custom_all_reduce" not in together.arguments(on_gpu=on_gpu, visible_gpus=visible)
        assert not any("ALLREDUCE" in name for name in together.environment(on_gpu=on_gpu, visible_gpus=visible))
    assert "disable_custom_all_reduce" not in settings().arguments(on_gpu=True, visible_gpus=1)  # nobody to reduce with


def test_a_past_self_has_a_share_of_its_own_and_never_sleeps():
    policy, past = settings(), settings(role="past_self")
    ours, theirs = policy.arguments(on_gpu=True), past.arguments(on_gpu=True)
    assert ours["enable_sleep_mode"] and not theirs["enable_sleep_mode"] and not past.sleeps(on_gpu=True)
    assert theirs["gpu_memory_utilization"] == ROLLOUT.past_self_gpu_memory_utilization
    assert ours["gpu_memory_utilization"] + theirs["gpu_memory_utilization"] < 1
    # a cache of fixed size would be taken whatever the share says, and captured graphs would share the policy's pool
    fixed = settings(role="past_self", kv_cache_memory_bytes=1 << 30, enforce_eager=False).arguments(on_gpu=True)
    assert fixed["kv_cache_memory_bytes"] is None and fixed["enforce_eager"]
    # its weights are its checkpoint's: a trainer never sends any
    assert settings(role="past_self", load_format="dummy").arguments(on_gpu=True)["load_format"] == "auto"


def test_cuda_graphs_are_used_where_there_are_any_and_nobody_says_otherwise():
    asked = {(eager, on_gpu): settings(on_gpu, enforce_eager=eager).arguments(on_gpu=on_gpu)["enforce_eager"]
             for eager in (None, True, False) for on_gpu in (True, False)}  # fmt: skip
    assert {key for key, eager in asked.items() if not eager} == {(None, True), (False, True)}
    assert compose("base").actor_rollout_ref.rollout.enforce_eager is None


def test_on_a_cpu_a_past_self_is_an_engine_like_the_policys():
    ours, theirs = (settings(False, role).arguments(on_gpu=False) for role in ("policy", "past_self"))
    assert ours == theirs and not ours["enable_sleep_mode"] and ours["enforce_eager"] and ours["kv_cache_memory_bytes"] == 256 << 20


def test_an_engine_on_a_gpu_logs_to_its_file_and_one_on_a_cpu_does_not():
    chosen = EngineSettings("model", 64, log_file="engine.log")
    levels = [chosen.environment(on_gpu=on_gpu)["VLLM_LOGGING_LEVEL"] for on_gpu in (True, False)]
    assert levels == ["INFO", "ERROR"] and EngineSettings("model", 64).environment(on_gpu=True)["VLLM_LOGGING_LEVEL"] == "ERROR"


_SPEAK = """
import os, sys
from verl.workers.rollout.vllm_settings import EngineSettings
from verl.workers.rollout.vllm_logging import write_log_config
write_log_config(sys.argv[1])
os.environ |= EngineSettings("model", 64, log_file=sys.argv[1]).environment(on_gpu=True)
from vllm.config.logging import LoggingConfig
import vllm.logger
log = vllm.logger.init_logger("vllm.v1.worker.gpu_worker")
for _ in range(2):  # as two engines of one process do
    vllm.logger.configure_logging(LoggingConfig())
log.debug("of no interest"), log.info("GPU KV cache size: 4,096 tokens; api_key=sk-abcdefghijklmnopqrstuvwx"), log.error("out of memory")
"""


@NO_VLLM
def test_what_vllm_says_goes_to_the_file_once_and_errors_to_the_console_too(tmp_path):
    path = tmp_path / "logs" / "engine_rank0.log"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", _SPEAK, str(path)], env=env, capture_output=True, text=True, check=True)
    text = path.read_text()
    assert text.count("KV cache size: 4,096") == 1 and text.count("out of memory") == 1 and "of no interest" not in text
    assert "sk-abc" not in text
    console = done.stdout + done.stderr
    assert "out of memory" in console and "KV cache size" not in console


def test_a_run_on_gpus_lets_the_engine_speak(monkeypatch):
    from ragen.trainer.worker_setup import _worker_env

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = compose("_0_laptop", ["trainer.device=cpu"])
    assert _worker_env(config, "cpu")["VLLM_LOGGING_LEVEL"] == logging.getLevelName(logging.ERROR)
    assert "VLLM_LOGGING_LEVEL" not in _worker_env(config, "cuda")
