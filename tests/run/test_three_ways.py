"""Mixed, nested and scheduled training through the launchers, in their laptop form: all four games, the shipped starter."""

import json
import os
import subprocess
from pathlib import Path

from transformers import AutoConfig

from ragen.trainer.config import compose

ROOT = Path(__file__).resolve().parents[2]
STARTER = ROOT / "assets" / "starter-games"
SMALL = [
    "es_manager.train.group_size=4", "es_manager.val.group_size=1", "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "trainer.val_before_train=false", "trainer.test_freq=-1",
]  # fmt: skip
TAGS = ("MathTrain", "NashNew", "TicTacToe", "Undercover")


def launch(name: str, folder: Path, steps: int, *overrides: str, **settings) -> list[dict]:
    """The metrics of ``scripts/NAME.sh --laptop``."""
    environment = os.environ | {"STEPS": str(steps), "OUT": str(folder)} | {k: str(v) for k, v in settings.items()}
    command = ["bash", str(ROOT / "scripts" / f"{name}.sh"), "--laptop", *SMALL, *overrides]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_four_games_mixed_then_merged_then_nested_in_one_trajectory(tmp_path):
    (row,) = launch("FI3_nested", tmp_path / "run", 1, WARMUP_STEPS=1)
    (warm,) = [json.loads(line) for line in (tmp_path / "run/warmup/metrics.jsonl").read_text().splitlines()]
    assert [warm[f"train/{tag}/episodes"] for tag in TAGS] == [16.0] * 4
    assert "assets" in (tmp_path / "run/warmup/config.yaml").read_text()
    assert str(tmp_path / "run/warmup/merged") in (tmp_path / "run/config.yaml").read_text()
    games = ("0_math_lv3to5", "1_nash_new", "2_tictactoe", "3_undercover")
    parts = [row[f"train/ALL_MINT/sub/{game}/success"] for game in games]
    assert row["train/ALL_MINT/episodes"] == 16 and row["train/ALL_MINT/success"] <= min(parts)
    assert row["train/ALL_MINT/turns"] > 4 and row["train/ALL_MINT/invalid"] < 0.2  # a starter that can play them
    assert row["rollout/logprob_diff_max"] < 1e-3 and row["rollout/truncated"] == 0


def test_one_sub_task_a_step_in_the_order_of_the_schedule(tmp_path):
    rows = launch("FI3_cst", tmp_path / "run", 5, "trainer.save_freq=3")
    played = [[tag for tag in TAGS if f"train/{tag}/episodes" in row] for row in rows]
    assert played == [["MathTrain"], ["NashNew"], ["TicTacToe"], ["Undercover"], ["MathTrain"]]
    assert all(row["rollout/episodes"] == 32 for row in rows)


def test_the_shipped_starter_fits_the_laptop_form():
    assert sum(path.stat().st_size for path in STARTER.iterdir()) < 12e6
    rollout = compose("_23_FI3_nested", ["+form=laptop"]).actor_rollout_ref.rollout
    assert rollout.max_model_len <= AutoConfig.from_pretrained(STARTER).max_position_embeddings
