"""``trainer.plan_only``: batch arithmetic against the filter itself, memory against models and autograd."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragen.trainer.config import CONFIG_DIR, compose, plain, validate_config
from ragen.trainer.memory import plan_run
from ragen.trainer.plan import describe_players, kept_groups, step_plan, trained_seats
from ragen.trainer.rollout_filter import RolloutFilterConfig, select_groups
from verl.utils.config_check import ConfigError

EXPERIMENTS = sorted(path.stem for path in CONFIG_DIR.glob("_*.yaml"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_plans_in_its_gpu_form(name):
    report = plan_run(compose(name, ["trainer.plan_only=true"]))
    text = str(report)
    assert report.memory.peak < report.capacity and "GiB a rank" in text and "trajectories" in text
    if name != "_0_laptop":
        assert report.plan.device == "cuda" and "published config.json" in report.source


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    """A folder with the ``config.json`` of a model of the laptop's size."""
    sizes = {
        "vocab_size": 1000, "hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512,
        "max_position_embeddings": 2048, "tie_word_embeddings": True, "model_type": "qwen2",
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps(sizes))
    return folder


@pytest.mark.parametrize("name", [n for n in EXPERIMENTS if n != "_0_laptop"])
def test_every_experiment_plans_in_its_laptop_form(name, small_model):
    report = plan_run(compose(name, ["+form=laptop", "trainer.plan_only=true", "trainer.device=cpu", f"model_path={small_model}"]))
    assert report.plan.ranks == 2 and report.plan.total_training_steps <= 100
    assert not any(tag.opponents and "port" in tag.opponents for step in report.plan.steps for tag in step.tags)
    assert report.plan.folder.endswith("-laptop")


def test_groups_become_mini_batches_of_trajectories():
    config = compose("_8_tictactoe", [
        "es_manager.train.env_groups=16", "es_manager.train.group_size=16", "es_manager.train.env_configs.n_groups=[16]",
        "actor_rollout_ref.rollout.rollout_filter_ratio=0.25", "actor_rollout_ref.actor.ppo_mini_batch_size=40",
        "trainer.n_gpus_per_node=3",
    ])  # fmt: skip
    step = validate_config(config, check_machine=False).steps[0]
    assert (step.groups, step.episodes, step.kept_groups, step.kept) == (16, 256, 4, 64)
    assert step.mini_batches == (40, 24)  # counted in trajectories: the last may be smaller, any number of ranks will do


def test_micro_batches_where_they_are_counted_in_rows():
    config = plain(compose("_8_tictactoe", ["actor_rollout_ref.actor.use_dynamic_bsz=false", "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=3"]))
    step = step_plan(config, {"TicTacToe": 8}, ranks=2)
    assert (step.kept, step.mini_batches, step.micro_batches) == (32, (32,), 6)  # 16 rows a rank by threes


def test_cst_plans_one_step_for_each_sub_task():
    plan = validate_config(compose("_26_FI2_cst"), check_machine=False)
    assert [[t.tag for t in step.tags] for step in plan.steps] == [["MathTrain"], ["NashNew"], ["TicTacToe"]]
    assert all(step.episodes == 128 and step.kept == 32 for step in plan.steps)


def test_self_play_trains_every_seat_the_policy_sits_in():
    envs = plain(compose("base"))["custom_envs"]
    assert trained_seats(envs, "TicTacToe") == 1 and trained_seats(envs, "TicTacToeSelf") == 2
    envs["Undercover"]["env_config"]["player_info"] = [{"type": "scripted", "name": "speaker"}, {"type": "policy"}]
    assert trained_seats(envs, "Undercover") == 3  # four seats: trained, scripted, and the last entry for both others
    assert trained_seats(envs, "ALL_MINT") == 3


def test_opponents_are_described_without_keys_or_addresses():
    players = [{"provider": "deepseek", "model_name": "m", "api_key": "sk-secret"}, {"model_name": "q", "base_url": "http://u:p@h/v1"}]
    assert describe_players(players) == "m (deepseek), q (remote)"


@settings(max_examples=150, deadline=None)
@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    strategy=st.sampled_from(["top_k", "top_k_abs", "top_p", "min_p"]),
    ratio=st.floats(0.01, 1.0),
    number=st.integers(1, 20),
    kind=st.sampled_from(["largest", "smallest"]),
    by_tag=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_kept_is_what_the_filter_keeps(counts, strategy, ratio, number, kind, by_tag, seed):
    value = number if strategy == "top_k_abs" else ratio
    rollout = {
        "rollout_filter_ratio": value, "rollout_filter_strategy": strategy, "rollout_filter_type": kind,
        "rollout_filter_metric": "reward", "rollout_filter_include_zero": True, "rollout_filter_by_tag": by_tag,
    }
    groups = {f"T{i}": n for i, n in enumerate(counts)}
    config = {"actor_rollout_ref": {"rollout": rollout}, "algorithm": {"adv_estimator": "grpo", "zero_advantages": "leave_out"}}
    kept, exact = kept_groups(config, groups)
    rng, rule = np.random.default_rng(seed), RolloutFilterConfig.from_rollout(rollout)
    pools = counts if by_tag else [sum(counts)]
    real = sum(len(select_groups(rng.uniform(0.1, 1.0, n), rule)) for n in pools)
    assert real == kept if exact else real <= kept


# -- what cannot fit --------------------------------------------------------------------------


def refused(*overrides, name="_8_tictactoe"):
    with pytest.raises(ConfigError) as caught:
        plan_run(compose(name, ["trainer.plan_only=true", *overrides]))
    return "\n".join(caught.value.problems)


def test_a_model_too_large_is_refused_with_the_largest_part_and_a_remedy():
    problem = refused("model_path=Qwen/Qwen2.5-14B", "trainer.device_memory_gb=80")
    assert "the update needs" in problem and "optimizer" in problem and "more ranks" in problem
    assert plan_run(compose("_8_tictactoe", ["trainer.plan_only=true", "model_path=Qwen/Qwen2.5-14B", "trainer.n_gpus_per_node=8"]))


def test_too_large_a_share_for_the_engine_names_the_share_that_fits():
    assert "gpu_memory_utilization of at most 0.8" in refused("actor_rollout_ref.rollout.gpu_memory_utilization=0.95")


def test_too_small_a_cache_for_one_trajectory_is_refused():
    assert "KV cache holds" in refused("actor_rollout_ref.rollout.kv_cache_memory_bytes=1048576")


def test_more_context_than_positions_and_heads_that_do_not_divide_are_refused():
    assert "32768 positions" in refused("actor_rollout_ref.rollout.max_model_len=40000", "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=40000")
    tp = ["trainer.n_gpus_per_node=8", "actor_rollout_ref.rollout.tensor_model_parallel_size=8", "es_manager.train.env_groups=8"]
    assert "12 attention heads" in refused(*tp)


def test_an_unknown_model_is_asked_for_its_config():
    assert "config.json" in refused("model_path=somebody/some-model")
    assert "table" in refused("model_path=somebody/some-model")


def test_lora_and_offloading_take_what_they_should_off():
    def memory(*overrides):
        report = plan_run(compose("_8_tictactoe", ["trainer.plan_only=true", *overrides]))
        return {part.name: part for part in report.memory.parts}

    plain_run, lora = memory(), memory("actor_rollout_ref.model.lora_rank=16")
    # Qwen2.5-1.5B, rank 16 on all seven linears of 28 blocks: 18.46M adapter weights
    assert lora["optimizer"].update * 2 / 8 == 18_464_768
    assert lora["parameters"].update > plain_run["parameters"].update
    offloaded = memory("actor_rollout_ref.actor.fsdp_config.optimizer_offload=true")
    assert offloaded["optimizer"].rollout == 0 and offloaded["optimizer"].update == plain_run["optimizer"].update
    kl = memory("actor_rollout_ref.actor.use_kl_loss=true")
    assert kl["reference"].update == plain_run["parameters"].update
    assert "critic" in memory("algorithm.adv_estimator=gae")


def test_plan_only_starts_nothing_and_writes_nothing(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "train.py", "trainer.plan_only=true", f"trainer.default_local_dir={out}"]
    done = subprocess.run(command, cwd=CONFIG_DIR.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "KV cache for" in done.stdout and "episodes" in done.stdout
    assert not out.exists()


def test_a_wrong_configuration_exits_with_the_sentence():
    command = [sys.executable, "train.py", "trainer.plan_only=true", "actor_rollout_ref.actor.optim.lr=-1"]
    done = subprocess.run(command, cwd=CONFIG_DIR.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "actor_rollout_ref.actor.optim.lr = -1: must be a number > 0" in done.stderr and "Traceback" not in done.stderr
