"""Rollout workers of their own, with real parts: Ray, FSDP2, engines, weights over gloo, checkpoints, a killed worker."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from test_end_to_end import metrics, without_times

from ragen.trainer.config import compose, validate_config
from ragen.trainer.run import _train_with_restarts
from ragen.trainer.worker_setup import ray_session

SPLIT = ["actor_rollout_ref.hybrid_engine=false", "rollout.n_gpus_per_node=1"]
AHEAD = [
    *SPLIT, "trainer.rollout_ahead=1", "actor_rollout_ref.rollout.name=hf", "trainer.total_training_steps=5", "trainer.save_freq=3",
]  # fmt: skip
SMALL = [
    "es_manager.train.env_groups=4", "es_manager.train.env_configs.n_groups=[4]", "es_manager.train.env_configs.tags=[TicTacToe]",
    "es_manager.train.group_size=4", "es_manager.val.env_groups=8", "es_manager.val.env_configs.n_groups=[4,4]",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8", "actor_rollout_ref.rollout.update_weights_bucket_megabytes=1",
    "trainer.n_gpus_per_node=1", "trainer.device=cpu", "trainer.logger=[file]", "trainer.total_training_steps=3",
    "trainer.test_freq=2", "trainer.val_before_train=false", "ray_kwargs.ray_init.num_cpus=4",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def ray():
    """One cluster for all runs of this file."""
    with ray_session(compose("_0_laptop", SMALL)):
        yield


def train(folder: Path, *overrides: str) -> list[dict]:
    config = compose("_0_laptop", [*SMALL, f"trainer.default_local_dir={folder}", *overrides])
    _train_with_restarts(config, validate_config(config))
    return [without_times(row) for row in metrics(folder)]


@pytest.fixture(scope="module")
def ahead(tmp_path_factory) -> list[dict]:
    """A run that plays one step ahead, never disturbed."""
    return train(tmp_path_factory.mktemp("ahead") / "run", *AHEAD)


def test_a_split_run_is_the_hybrid_one(tmp_path):
    """Bit for bit: the weights arrive as they are, and workers that take turns have as many threads as a hybrid's."""
    hybrid, split = train(tmp_path / "hybrid"), train(tmp_path / "split", *SPLIT)
    assert [row.pop("rollout/policy_lag") for row in split] == [0, 0, 0]
    assert split == hybrid
    assert all(row["rollout/logprob_diff_max"] < 1e-4 for row in split)


def test_a_step_ahead_trains_on_what_an_older_policy_played(ahead):
    assert [row["rollout/policy_lag"] for row in ahead] == [0, 1, 1, 0, 1]  # saved after 3
    for row in ahead:
        assert row["actor/grad_norm"] > 0
        # the ratio is to the policy that played: 1 to float noise where that is the trainer's own
        moved = abs(row["actor/ppo_kl"])
        assert moved > 1e-4 if row["rollout/policy_lag"] else moved < 1e-5


def test_a_rollout_worker_killed_in_an_update_is_named_and_the_run_is_the_one_never_killed(ahead, tmp_path, caplog):
    folder, killed = tmp_path / "run", []

    def kill_its_rollout_worker():
        while not any(row["step"] == 4 for row in metrics(folder)):
            time.sleep(0.01)
        killed.extend(pids := rollout_workers())
        os.kill(pids[0], signal.SIGKILL)

    threading.Thread(target=kill_its_rollout_worker, daemon=True).start()
    assert train(folder, *AHEAD, "trainer.max_restarts=1") == ahead
    assert len(killed) == 1
    [death] = [record.getMessage() for record in caplog.records if "starting new workers" in record.getMessage()]
    assert f"pid {killed[0]}" in death, death


def rollout_workers() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            except (FileNotFoundError, PermissionError, ProcessLookupError):
                continue
            if b"RolloutWorker" in name and f"GIFT_DRIVER={os.getpid()}\0".encode() in environment:
                found.append(int(entry.name))
    return found
