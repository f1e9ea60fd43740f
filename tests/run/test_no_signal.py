"""Steps in which nothing has an advantage, through the real trainer: no weight moves, and the run says so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]
MODULE = '''
from ragen.env import register_env
from ragen.env.base import SoloEnv
from dataclasses import dataclass

register_env("generous", "generous:Generous:GenerousConfig")


@dataclass(frozen=True)
class GenerousConfig:
    pass


class Generous(SoloEnv):
    """Pays the same whatever is answered."""

    def __init__(self, config=None):
        super().__init__()

    def start(self, rng):
        return f"Say a number after {rng.randrange(9)}."

    def play(self, action):
        return "", 0.7, True, {"success": False}
'''
RUN = [
    "custom_envs.Generous.env_type=generous", "actor_rollout_ref.model.external_lib=generous", "es_manager.format_penalty=0",
    "es_manager.train.env_configs.tags=[Generous]", "es_manager.train.env_configs.n_groups=null",
    "es_manager.val.env_configs.tags=[Generous]", "es_manager.val.env_configs.n_groups=null",
    "es_manager.train.env_groups=4", "es_manager.train.group_size=4", "es_manager.val.env_groups=2",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8", "actor_rollout_ref.actor.entropy_coeff=0.1", "agent_proxy.enable_think=false",
    "actor_rollout_ref.actor.optim.lr=0.01", "trainer.total_training_steps=2", "trainer.test_freq=-1", "trainer.save_freq=-1",
    "trainer.val_before_train=false", "agent_proxy.max_turn=1", "actor_rollout_ref.rollout.rollout_filter_empty_stop_steps=3",
]  # fmt: skip


def run(folder: Path, *overrides: str, code: int = 0) -> tuple[list[dict], str]:
    (folder / "generous.py").write_text(MODULE)
    done = subprocess.run(
        [sys.executable, "train.py", *RUN, f"trainer.default_local_dir={folder / 'run'}", *overrides],
        cwd=ROOT, capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()], done.stdout + done.stderr


def merged(folder: Path) -> dict:
    target = folder / "merged"
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--local_dir", str(folder / "run/global_step_2/actor"), "--target_dir", str(target)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return load_file(target / "model.safetensors")


@pytest.mark.parametrize("estimator", ["grpo", "remax"])
def test_a_step_without_any_advantage_changes_no_weight(tmp_path, estimator):
    """One estimator whose groups the filter drops, one whose rows reach the update."""
    rows, _ = run(tmp_path, f"algorithm.adv_estimator={estimator}")
    assert [row["actor/no_signal"] for row in rows] == [1.0, 1.0]
    assert not any(key in row for row in rows for key in ("actor/lr", "actor/grad_norm", "actor/skipped_steps"))
    before = load_file(ROOT / "assets/starter/model.safetensors")
    after = merged(tmp_path)
    assert before and before.keys() == after.keys()
    for name, weight in before.items():
        assert (weight == after[name].astype(weight.dtype)).all(), name


def test_the_option_trains_on_such_rows_as_the_reference_does(tmp_path):
    rows, _ = run(tmp_path, "algorithm.adv_estimator=grpo", "algorithm.zero_advantages=train")
    assert [row["actor/no_signal"] for row in rows] == [1.0, 1.0]
    assert rows[1]["actor/grad_norm"] > 0 and rows[1]["actor/lr"] > 0
    assert rows[1]["actor/entropy"] > rows[0]["actor/entropy"] + 0.1  # the entropy bonus alone was at work


def test_too_many_such_steps_in_a_row_end_the_run_with_what_to_do(tmp_path):
    rows, output = run(tmp_path, "algorithm.adv_estimator=remax", "trainer.total_training_steps=9", "actor_rollout_ref.rollout.rollout_filter_empty_stop_steps=2", code=1)
    assert len(rows) == 2 and "nothing had signal in 2 steps in a row" in output
    assert (tmp_path / "run/latest_checkpointed_iteration.txt").read_text().strip() == "2"  # what was learned before is kept
