"""A past self with real parts: a second vLLM engine in the worker's process, next to the one that is trained."""

import json

import pytest
from test_end_to_end import metrics

from ragen.trainer.config import CONFIG_DIR, compose, validate_config
from ragen.trainer.run import _train_with_restarts
from ragen.trainer.worker_setup import ray_session

pytest.importorskip("vllm")

STARTER = CONFIG_DIR.parent / "assets" / "starter"
SMALL = [
    "es_manager.train.env_groups=2", "es_manager.train.env_configs.n_groups=[2]", "es_manager.train.env_configs.tags=[TicTacToe]",
    "es_manager.train.group_size=4", "es_manager.val.env_groups=2", "es_manager.val.env_configs.n_groups=[2]",
    "es_manager.val.env_configs.tags=[TicTacToe]", "actor_rollout_ref.actor.ppo_mini_batch_size=4", "trainer.n_gpus_per_node=1",
    "trainer.device=cpu", "trainer.logger=[file]", "trainer.total_training_steps=2", "trainer.test_freq=-1", "trainer.save_freq=-1",
    "trainer.val_before_train=false", "ray_kwargs.ray_init.num_cpus=2", "actor_rollout_ref.rollout.kv_cache_memory_bytes=67108864",
]  # fmt: skip


@pytest.mark.slow
def test_the_policy_plays_its_past_self_and_changes_while_that_stays(tmp_path):
    player = f"custom_envs.TicTacToe.env_config.player_info=[{{type: policy, checkpoint: {STARTER}}}]"
    config = compose("_0_laptop", [*SMALL, player, f"trainer.default_local_dir={tmp_path}"])
    with ray_session(config):
        _train_with_restarts(config, validate_config(config))
    assert [row["step"] for row in metrics(tmp_path)] == [1, 2]
    episodes = [json.loads(line) for path in sorted((tmp_path / "trajectories").glob("train_step_*.jsonl")) for line in path.read_text().splitlines()]
    assert len(episodes) == 16 and all("past:starter" in json.dumps(episode) for episode in episodes)
    assert not (tmp_path / "logs").exists()  # engines log to a file on GPUs alone
