"""Rollout correction with the loss and the estimator that read it: what is refused before anything starts, and what passes."""

import pytest

from ragen.trainer.config import compose, validate_config
from verl.utils.config_check import ConfigError
from verl.utils.verl_keys import TOKEN_BASELINE_ESTIMATORS

SECTION = "algorithm.rollout_correction"
LOSS = "actor_rollout_ref.actor.policy_loss.loss_mode"
BYPASS = [f"{SECTION}.bypass_mode=true", f"{LOSS}=bypass_mode"]


def check(*overrides):
    return validate_config(compose("_0_laptop", ["trainer.device=cpu", *overrides]), check_machine=False)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ([f"{SECTION}.rollout_rs=turn"], [f"{SECTION}.rollout_rs", "turn", "seq_mean_k3"]),
        ([f"{SECTION}.rollout_rs='token,seq_k1'"], [f"{SECTION}.rollout_rs", "seq_k1"]),
        ([f"{SECTION}.rollout_rs=token", f"{SECTION}.rollout_rs_threshold=null"], [f"{SECTION}.rollout_rs=token needs rollout_rs_threshold"]),
        ([f"{SECTION}.rollout_rs=token_k3", f"{SECTION}.rollout_rs_threshold='0.5_2.0'"], ["token_k3", "an upper bound alone"]),
        ([f"{SECTION}.rollout_rs='token,token_k1,token_k3'", f"{SECTION}.rollout_rs_threshold='2.0,3.0'"], ["2 entries for the 3 options"]),
        ([f"{SECTION}.rollout_rs=token_k1", f"{SECTION}.rollout_rs_threshold=0.5_2"], ["0.52", "in quotes"]),
        ([f"{SECTION}.rollout_rs=token_k1", f"{SECTION}.rollout_rs_threshold_lower=0.5"], ["rollout_rs_threshold_lower=0.5", "'LOWER_UPPER'"]),
        ([f"{SECTION}.rollout_is=token", f"{SECTION}.rollout_is_threshold='2.0_1.0'"], [f"{SECTION}.rollout_is_threshold", "0.5_2.0"]),
        ([f"{LOSS}=bypass_mode"], [LOSS, f"{SECTION}.bypass_mode=true"]),
        ([*BYPASS, f"{SECTION}.rollout_is=token"], ["rollout_is = token", "loss_type=reinforce"]),
        ([*BYPASS, f"{SECTION}.rollout_is_batch_normalize=true"], ["rollout_is_batch_normalize = true", "false"]),
        ([f"{SECTION}.loss_type=reinforce"], ["loss_type = reinforce", f"{LOSS}=bypass_mode", "vanilla"]),
        ([f"{SECTION}.bypass_mode=true", f"{SECTION}.rollout_rs=token_k1"], ["rollout_rs = token_k1", f"{LOSS}=bypass_mode"]),
        (["actor_rollout_ref.actor.policy_loss.rollout_correction={rollout_is: token}"], ["policy_loss.rollout_correction differs", SECTION]),
        (["algorithm.adv_estimator=optimal_token_baseline", f"{SECTION}.bypass_mode=true"], ["optimal_token_baseline", f"{SECTION}.bypass_mode=false"]),
        (["algorithm.adv_estimator=rloo_vectorized", "es_manager.train.group_size=1"], ["group_size = 1", "rloo_vectorized"]),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_key_value_and_remedy(overrides, named):
    with pytest.raises(ConfigError) as error:
        check(*overrides)
    assert all(part in str(error.value) for part in named), str(error.value)


@pytest.mark.parametrize(
    "overrides",
    [
        [f"{SECTION}.rollout_rs='token_k1, seq_max_k3'", f"{SECTION}.rollout_rs_threshold='0.5_2.0,0.2'"],
        [f"{SECTION}.rollout_rs=geometric", f"{SECTION}.rollout_rs_threshold='0.9_1.3'"],
        [f"{SECTION}.rollout_is=sequence", f"{SECTION}.rollout_is_threshold='0.5_5.0'"],
        [*BYPASS, f"{SECTION}.loss_type=reinforce", f"{SECTION}.rollout_is=token", f"{SECTION}.rollout_rs=seq_mean_k3"],
        [f"{LOSS}=reinforce", "algorithm.adv_estimator=grpo_vectorized"],
        *([f"algorithm.adv_estimator={name}", f"{SECTION}.rollout_is=token"] for name in TOKEN_BASELINE_ESTIMATORS),
    ],
)
def test_what_works_passes(overrides):
    assert check(*overrides).adv_estimator


def test_playing_ahead_needs_a_loss_that_knows_who_played():
    ahead = ["actor_rollout_ref.hybrid_engine=false", "rollout.n_gpus_per_node=1", "trainer.rollout_ahead=1"]
    for overrides, named in [
        ([f"{LOSS}=reinforce"], "loss_mode = reinforce has no ratio"),
        ([*BYPASS, f"{SECTION}.loss_type=reinforce"], "loss_type = reinforce weighs nothing"),
        (["algorithm.adv_estimator=tir_optimal_token_baseline"], "bypass_mode=false and algorithm.rollout_correction.rollout_is=token"),
    ]:
        with pytest.raises(ConfigError, match=named):
            check(*ahead, *overrides)
    check(*ahead, *BYPASS, f"{SECTION}.loss_type=reinforce", f"{SECTION}.rollout_is=token")
