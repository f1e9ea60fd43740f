"""A user's module, outside this repository: its game, player, estimator and loss through the real configuration check."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from verl.utils.import_utils import import_external_libs

ROOT = Path(__file__).resolve().parents[2]
MODULE = '''
from dataclasses import dataclass

from ragen.env import register_env
from ragen.env.base import SoloEnv
from verl.trainer.ppo.registry import register_adv_est, register_policy_loss

register_env("parity", "their_things:ParityEnv:ParityConfig")


@dataclass(frozen=True)
class ParityConfig:
    most: int = 9


class ParityEnv(SoloEnv):
    def __init__(self, config=None):
        super().__init__()
        self.config = config or ParityConfig()

    def start(self, rng):
        self.number = rng.randrange(self.config.most)
        return f"Is {self.number} even? Answer yes or no."

    def play(self, action):
        right = action.strip() == ("no" if self.number % 2 else "yes")
        return "", float(right), True, {"success": right}


@register_adv_est("plain_reward")
def plain_reward(token_level_rewards, response_mask, **kwargs):
    advantages = token_level_rewards.sum(-1, keepdim=True) * response_mask
    return advantages, advantages


@register_policy_loss("reinforce")
def reinforce(old_log_prob, log_prob, advantages, response_mask, loss_agg_mode, config, rollout_is_weights=None):
    from verl.trainer.ppo.policy_losses import weighted_agg

    loss = weighted_agg(-advantages * log_prob, response_mask, loss_agg_mode, config, rollout_is_weights)
    return loss, {"actor/their_loss": 1.0}
'''
THEIRS = [
    "custom_envs.Parity.env_type=parity", "custom_envs.Parity.env_config.most=5",
    "es_manager.train.env_configs.tags=[Parity]", "es_manager.train.env_configs.n_groups=null",
    "es_manager.val.env_configs.tags=[Parity]", "es_manager.val.env_configs.n_groups=null",
    "algorithm.adv_estimator=plain_reward", "actor_rollout_ref.actor.policy_loss.loss_mode=reinforce",
]  # fmt: skip


@pytest.fixture
def theirs(tmp_path):
    """A folder with the module, for PYTHONPATH."""
    (tmp_path / "their_things.py").write_text(MODULE)
    return tmp_path


def train(folder, *overrides, timeout=60):
    return subprocess.run(
        [sys.executable, "train.py", *THEIRS, *overrides], cwd=ROOT, capture_output=True, text=True, timeout=timeout,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip


def test_what_their_module_registers_is_accepted(theirs):
    plan = "trainer.plan_only=true"
    accepted = train(theirs, plan, "actor_rollout_ref.model.external_lib=[their_things]")
    assert accepted.returncode == 0 and "plain_reward" in accepted.stdout and "Parity" in accepted.stdout, accepted.stderr
    misspelt = train(theirs, plan, "actor_rollout_ref.model.external_lib=their_things", "custom_envs.Parity.env_config.mist=5")
    assert misspelt.returncode == 2 and "did you mean most" in misspelt.stderr  # their game's keys are checked like ours
    refused = train(theirs, plan)
    assert refused.returncode == 2
    for name in ("plain_reward", "reinforce", "actor_rollout_ref.model.external_lib"):
        assert name in refused.stderr


def test_a_fault_inside_their_module_is_named(tmp_path, monkeypatch):
    (tmp_path / "faulty_things.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="'faulty_things' cannot be imported .ZeroDivisionError.*PYTHONPATH"):
        import_external_libs("faulty_things")
    import_external_libs(["json", "math"])
    import_external_libs(None)


def test_a_worker_plays_and_trains_with_their_module(theirs, tmp_path):
    """One real worker: Ray, engine, episodes, update."""
    done = train(
        theirs, "actor_rollout_ref.model.external_lib=their_things", "agent_proxy.max_turn=1",
        "actor_rollout_ref.rollout.name=hf", "actor_rollout_ref.rollout.response_length=8", "es_manager.train.env_groups=2", "es_manager.train.group_size=2",
        "es_manager.val.env_groups=1", "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "actor_rollout_ref.rollout.rollout_filter_ratio=1.0", "trainer.val_before_train=false", "trainer.total_training_steps=1",
        "trainer.n_gpus_per_node=1", "trainer.device=cpu", f"trainer.default_local_dir={tmp_path / 'run'}", timeout=420,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    row = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert '"actor/their_loss": 1.0' in row and '"train/Parity/success"' in row
