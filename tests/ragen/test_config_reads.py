"""Every key is read by something that acts on it, and a default in the code is the YAML's: found by running, not by reading."""

import re
import sys

import pytest
import torch
import yaml
from config_reads import Reads, reads_of_runs, recorded
from omegaconf import OmegaConf
from test_step import trajectory

import train
from ragen.llm_agent.batch import build_batch
from ragen.trainer.config import CONFIG_DIR, compose
from ragen.trainer.config_keys import key_table
from ragen.trainer.credit import compute_advantages
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.utils import verl_keys

SMALL = [
    "es_manager.train.env_groups=2", "es_manager.train.env_configs.n_groups=[2]", "es_manager.train.env_configs.tags=[TicTacToe]",
    "es_manager.val.env_groups=2", "es_manager.val.env_configs.n_groups=[2]", "es_manager.val.env_configs.tags=[TicTacToe]",
    "es_manager.train.group_size=2", "actor_rollout_ref.actor.ppo_mini_batch_size=2", "actor_rollout_ref.rollout.rollout_filter_ratio=1.0",
    "trainer.n_gpus_per_node=1", "trainer.device=cpu", "trainer.total_training_steps=1", "trainer.logger=file",
]  # fmt: skip
HF = "actor_rollout_ref.rollout.name=hf"
#: a run for each kind of step that reads keys of its own
RUNS = {
    "grpo": [
        "actor_rollout_ref.rollout.name=vllm", "actor_rollout_ref.actor.use_kl_loss=true", "trainer.max_restarts=1", "trainer.restart_wait_s=1",
        "algorithm.rollout_correction.rollout_is=token", "algorithm.rollout_correction.rollout_rs=token",
        "collapse_detection.first_turn_enabled=true", "collapse_detection.compute_freq=1",
        "agent_proxy.reward_normalization.method=mean_std", "actor_rollout_ref.model.lora_rank=2",
    ],
    "gae": [
        HF, "algorithm.adv_estimator=gae", "algorithm.use_kl_in_reward=true", "algorithm.kl_ctrl.type=adaptive",
        "actor_rollout_ref.actor.use_dynamic_bsz=false", "critic.model.lora_rank=2", "critic.optim.lr_scheduler_type=cosine",
        "schedule.type=cst", "schedule.k_list=[1]", "es_manager.val.env_configs.n_groups=null",
    ],
    "bi_level_gae_played_apart": [
        HF, "algorithm.adv_estimator=bi_level_gae", "actor_rollout_ref.hybrid_engine=false", "rollout.n_gpus_per_node=1",
        "trainer.rollout_ahead=1", "trainer.total_training_steps=2",
    ],
}  # fmt: skip
#: read before anything starts, by train.py and the plan of memory
PLANNED = {
    "trainer.plan_only", "trainer.device", "trainer.device_memory_gb", "actor_rollout_ref.rollout.past_self_gpu_memory_utilization",
}  # fmt: skip


def reads_of_credit() -> Reads:
    """Of every estimator but those of the runs, and of every policy loss."""
    with recorded() as reads:
        for name in verl_keys.ADV_ESTIMATORS:
            if name not in verl_keys.CRITIC_ESTIMATORS:
                credited(f"algorithm.adv_estimator={name}")
        for name in verl_keys.POLICY_LOSSES:
            loss, dro = f"actor_rollout_ref.actor.policy_loss.loss_mode={name}", "actor_rollout_ref.actor.policy_loss.dro_beta=0.1"
            batch, config = credited(loss, dro)
            log_prob, mask = batch.batch["old_log_probs"], batch.batch["response_mask"]
            chosen = {"cov_selected": batch.batch["cov_selected"]} if "cov_selected" in batch.batch.keys() else {}
            get_policy_loss_fn(name)(
                old_log_prob=log_prob, log_prob=log_prob + 0.1, advantages=batch.batch["advantages"], response_mask=mask,
                loss_agg_mode="token-mean", config=config.actor_rollout_ref.actor, rollout_is_weights=None, **chosen,
            )  # fmt: skip
    return reads


def credited(*overrides):
    """Four trajectories of one group with their advantages, and the config that says how."""
    batch = build_batch([trajectory(0, member, float(member % 2), turns=2) for member in range(4)], 0)
    rows, width = batch.batch["response_mask"].shape
    for name in ("old_log_probs", "rollout_log_probs", "sum_pi_squared"):
        batch.batch[name] = torch.full((rows, width), -0.5).abs() if name == "sum_pi_squared" else torch.full((rows, width), -0.5)
    batch.batch["reward_baselines"] = torch.zeros(rows)
    config = compose("_0_laptop", overrides)
    return compute_advantages(batch, config, None, {})[0], config


@pytest.fixture(scope="module")
def reads(tmp_path_factory) -> Reads:
    """Of all runs, estimators and losses."""
    folder = tmp_path_factory.mktemp("runs")
    everything = [
        *reads_of_runs([("_0_laptop", [*SMALL, *more, f"trainer.default_local_dir={folder / name}"]) for name, more in RUNS.items()]),
        reads_of_credit(),
    ]
    total = Reads()
    for found in everything:
        total.keys |= {re.sub(r"^custom_envs\.\w+\.", "custom_envs.*.", key) for key in found.keys}
        for key, defaults in found.defaults.items():
            total.defaults.setdefault(key, set()).update(defaults)
    return total


def unread(keys, reads: Reads) -> set[str]:
    return set(keys) - reads.keys - PLANNED


def test_no_key_is_read_by_nobody(reads):
    assert unread(key_table().implemented, reads) == set()


def test_the_plan_reads_its_keys(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", *SMALL, "trainer.device=cuda", "trainer.plan_only=true"])
    with recorded() as found:
        assert train.main() == 0
    assert found.keys >= PLANNED


def test_a_key_that_is_only_written_down_is_found(reads, tmp_path):
    """Neither checks, copies, merges, dumps of the config nor comments pass for readers."""
    config = compose("_0_laptop", ["actor_rollout_ref.actor.brand_new=1", "critic.optim.brand_new=1"])
    with recorded() as found:
        OmegaConf.to_yaml(OmegaConf.merge(config, {"trainer": {"resume_mode": "auto"}}))
        OmegaConf.to_container(config, resolve=True)
        config.actor_rollout_ref.actor.get("shuffle")
    assert "actor_rollout_ref.actor.shuffle" in found.keys
    new = {"actor_rollout_ref.actor.brand_new", "critic.optim.brand_new"}
    assert unread(new, found) == unread(new, reads) == new


def test_defaults_in_the_code_are_those_of_the_yaml(reads):
    """A worker that is built with a key left out (a VeRL program's may be) does what VeRL's file with its keys says
    (`ppo_trainer.yaml`: `base.yaml` sets the aggregation of this project's experiments on top), and where a key is not in
    that file what the shipped configuration does; only how long the run is it cannot know."""
    verls = OmegaConf.load(CONFIG_DIR / "ppo_trainer.yaml")
    written = OmegaConf.to_container(OmegaConf.merge(OmegaConf.create(OmegaConf.to_yaml(compose("base"))), verls), resolve=True)
    differing = {}
    for key, defaults in reads.defaults.items():
        value = written
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        plain = {yaml.safe_load(text) if text[0] != "'" else text.strip("'") for text in defaults}
        if key in key_table().implemented and not key.endswith("optim.total_training_steps") and value is not None and any(float_or(value) != float_or(default) for default in plain):
            differing[key] = (value, plain)
    assert len(reads.defaults) > 40
    assert differing == {}


def float_or(value):
    """1e-08 and "1e-08" (YAML 1.1 reads it as text) are one number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value
