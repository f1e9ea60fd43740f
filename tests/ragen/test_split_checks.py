"""Rollout workers of their own: what is refused before anything starts, and what the plan says."""

import pytest

from ragen.trainer.config import compose, validate_config
from ragen.trainer.memory import plan_run
from verl.utils.config_check import ConfigError

SPLIT = ["actor_rollout_ref.hybrid_engine=false", "rollout.n_gpus_per_node=2"]
AHEAD = [*SPLIT, "trainer.rollout_ahead=1"]
CORRECTION = "algorithm.rollout_correction"


def problems(*overrides, machine=False) -> str:
    with pytest.raises(ConfigError) as error:
        validate_config(compose("_0_laptop", ["trainer.device=cpu", *overrides]), check_machine=machine)
    return str(error.value)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["actor_rollout_ref.hybrid_engine=false"], ["rollout.n_gpus_per_node = null", "hybrid_engine = false"]),
        (["rollout.n_gpus_per_node=2"], ["rollout.n_gpus_per_node = 2", "hybrid_engine=false", "null"]),
        (["rollout.nnodes=2"], ["rollout.nnodes = 2", "hybrid_engine=false"]),
        (["trainer.rollout_ahead=1"], ["trainer.rollout_ahead = 1", "hybrid_engine=false"]),
        ([*SPLIT, "trainer.rollout_ahead=2"], ["trainer.rollout_ahead = 2", "0 or 1"]),
        ([*AHEAD, "algorithm.adv_estimator=remax"], ["remax", "rollout_ahead=0"]),
        ([*AHEAD, f"{CORRECTION}.bypass_mode=false"], ["bypass_mode", "rollout_is=token"]),
        ([*AHEAD, f"{CORRECTION}.rollout_rs=token"], ["rollout_is=token"]),
        ([*AHEAD, "actor_rollout_ref.actor.policy_loss.loss_mode=gpg"], ["gpg", "rollout_is=token"]),
        ([f"{CORRECTION}.bypass_mode=true", f"{CORRECTION}.rollout_is=token"], ["bypass_mode = true", "rollout_is = token"]),
        ([*SPLIT, "actor_rollout_ref.rollout.tensor_model_parallel_size=3"], ["does not divide rollout.n_gpus_per_node = 2"]),
        ([*SPLIT, "rollout.n_gpus_per_node=40"], ["env_groups = 16", "40 engines"]),
        (
            ["actor_rollout_ref.rollout.tensor_model_parallel_size=2",
             "custom_envs.TicTacToe.env_config.player_info=[{type: policy, checkpoint: old}]"],
            ["tensor_model_parallel_size = 2", "past self old"],
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_key_value_and_remedy(overrides, named):
    text = problems(*overrides)
    assert all(part in text for part in named), text


def test_no_remedy_that_would_not_help():
    assert "bypass_mode" not in problems(*AHEAD, f"{CORRECTION}.rollout_rs=token")


def test_gpus_must_suffice_for_both_unless_a_cluster_is_joined(monkeypatch):
    from ragen.trainer import machine_checks

    monkeypatch.setattr(machine_checks, "visible_gpus", lambda: [80.0] * 3)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = ["trainer.device=cuda", *SPLIT, "trainer.n_gpus_per_node=2", "trainer.logger=[file]"]
    text = problems(*config, machine=True)
    assert "trainer.n_gpus_per_node = 2 and rollout.n_gpus_per_node = 2" in text and "3 GPUs" in text
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert validate_config(compose("_0_laptop", config), check_machine=True).rollout_ranks == 2


def test_the_plan_says_who_trains_who_plays_and_when():
    lines = str(plan_run(compose("_0_laptop", ["trainer.device=cpu", *AHEAD, "rollout.nnodes=3"])))
    assert "ranks        2 x cpu train" in lines
    assert "rollout      6 x cpu on 3 nodes play; engine vllm; a step is played while the one before is updated" in lines
    hybrid = str(plan_run(compose("_0_laptop", ["trainer.device=cpu"])))
    assert "ranks        2 x cpu; engine vllm" in hybrid and "rollout  " not in hybrid.split("GiB a rank")[0]
