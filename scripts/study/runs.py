"""The runs of the study: three ways to train on maths, a matrix game and tic-tac-toe, equal in what is played.

One step plays 384 sub-tasks in each: 24 groups of 16 mixed, 8 groups of 16 nests of three, 24 groups of 16
of the one task whose turn it is (CST). Everything else is the same: model, learning rate, filter, one update a
step on all that is kept.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: validation: the same 384 games for all runs and steps, every task by itself
SHARED = [
    "+form=laptop",
    "actor_rollout_ref.actor.optim.lr=0.0001",
    "actor_rollout_ref.actor.optim.lr_scheduler_type=cosine",
    "actor_rollout_ref.actor.optim.min_lr_ratio=0.1",
    "actor_rollout_ref.rollout.rollout_filter_ratio=0.5",
    "actor_rollout_ref.rollout.val_kwargs.temperature=1.0",
    "es_manager.val.env_groups=384",
    "es_manager.val.group_size=1",
    "es_manager.val.env_configs.n_groups=[128,128,128]",
    "trainer.test_freq=5",
    "trainer.save_freq=-1",
]
_MINI_BATCH = "actor_rollout_ref.actor.ppo_mini_batch_size"
MODES = {
    "mixed": ("_19_FI2_mix", ["es_manager.train.env_groups=24", "es_manager.train.env_configs.n_groups=[8,8,8]", f"{_MINI_BATCH}=192"]),
    "nested": ("_21_FI2_nested", ["es_manager.train.env_groups=8", "es_manager.train.env_configs.n_groups=[8]", f"{_MINI_BATCH}=64"]),
    "cst": ("_26_FI2_cst", ["es_manager.train.env_groups=24", f"{_MINI_BATCH}=192"]),
}


def overrides(mode: str, seed: int, steps: int, folder: Path) -> list[str]:
    """The command line of one run after ``python train.py``."""
    config, own = MODES[mode]
    return [
        "--config-name", config, *SHARED, *own, f"seed.train={seed}",
        f"trainer.total_training_steps={steps}", f"trainer.default_local_dir={folder}",
    ]  # fmt: skip


def run(mode: str, seed: int, steps: int, folder: Path) -> None:
    """Runs it, or lets it be if its metrics reach the last step. Raises ``RuntimeError`` if it fails."""
    if folder.is_dir() and (rows := read_metrics(folder)) and rows[-1]["step"] >= steps:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "console.log").open("w") as console:
        command = [sys.executable, str(ROOT / "train.py"), *overrides(mode, seed, steps, folder.resolve())]
        status = subprocess.run(command, cwd=ROOT, stdout=console, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        raise RuntimeError(f"{mode}, seed {seed}: train.py ended with status {status}; see {folder / 'console.log'}")


def read_metrics(folder: Path) -> list[dict]:
    """The rows of a run's ``metrics.jsonl``; none if it has not begun."""
    file = folder / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
