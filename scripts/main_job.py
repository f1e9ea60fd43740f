"""The main job, as ``make train`` runs it: train to the end, merge the last checkpoint, play it, report.

    python scripts/main_job.py --config-name _0_laptop [key=value ...]

An unfinished run resumes where it was; after a finished one a fresh folder beside it is taken
(``outputs/_0_laptop``, ``outputs/_0_laptop-2``, ...). Every part is a command of its own that can be
run by hand; this file only strings them together.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from verl.utils.gpus import visible_gpus  # noqa: E402

DONE = "summary.json"
EVAL_GAMES = 256


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-name", default="_0_laptop")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="where run folders lie")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_args()

    folder = run_folder(args.outputs, args.config_name)
    print(f"Run folder {folder} ({'resuming' if (folder / 'metrics.jsonl').exists() else 'new'})", flush=True)
    overrides = [*one_rank_a_gpu(), *args.overrides, f"trainer.default_local_dir={folder}"]
    try:
        _run(sys.executable, "train.py", "--config-name", args.config_name, *overrides)
        merged = merge_last(folder)
        results = play(merged, folder) if plays_tictactoe(folder) else {}
        _run(sys.executable, "-m", "ragen.report", str(folder), quiet=True)
    except subprocess.CalledProcessError as error:
        return error.returncode
    except KeyboardInterrupt:
        return 130
    summary = summarise(folder, merged, results)
    (folder / DONE).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(table(summary))
    return 0


def one_rank_a_gpu() -> list[str]:
    """On a machine with GPUs: one rank on each of them. Without any, the config's number of CPU ranks stands."""
    gpus = len(visible_gpus())
    return [f"trainer.n_gpus_per_node={gpus}"] if gpus else []


def run_folder(outputs: Path, name: str) -> Path:
    """The first of NAME, NAME-2, NAME-3, ... that has not come to its end."""
    number = 1
    while (folder := outputs / (name if number == 1 else f"{name}-{number}")) and (folder / DONE).exists():
        number += 1
    return folder


def merge_last(folder: Path) -> Path:
    """The last checkpoint as a Hugging Face folder, ``RUN/merged``."""
    step = int((folder / "latest_checkpointed_iteration.txt").read_text())
    target = folder / "merged"
    _run(
        sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp", "--overwrite",
        "--local_dir", str(folder / f"global_step_{step}" / "actor"), "--target_dir", str(target), quiet=True,
    )  # fmt: skip
    return target


def plays_tictactoe(folder: Path) -> bool:
    rows = read_metrics(folder)
    return any(key.startswith("val/TicTacToe/") for row in rows for key in row)


def play(merged: Path, folder: Path) -> dict[str, dict]:
    """Games of the merged model, on seeds that neither training nor validation uses."""
    results = {}
    for opponent in ("random", "perfect"):
        output = folder / "eval" / f"tictactoe_{opponent}.json"
        _run(
            sys.executable, "reason_test/tictactoe.py", "--model_path", str(merged), "--opponent", opponent,
            "--games", str(EVAL_GAMES), "--config", str(folder / "config.yaml"), "--output", str(output), quiet=True,
        )  # fmt: skip
        results[opponent] = json.loads(output.read_text(encoding="utf-8"))
    return results


def read_metrics(folder: Path) -> list[dict]:
    with (folder / "metrics.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def summarise(folder: Path, merged: Path, results: dict[str, dict]) -> dict:
    """First and last validation, what the run cost, where everything lies."""
    rows = read_metrics(folder)
    validated = [row for row in rows if any(key.startswith("val/") for key in row)]
    numbers = [key for key in validated[-1] if key.startswith("val/") and "/opponent/" not in key] if validated else []
    return {
        "folder": str(folder),
        "merged": str(merged),
        "report": str(folder / "report.html"),
        "steps": rows[-1]["step"],
        "seconds": sum(v for row in rows for k, v in row.items() if k in ("timing_s/step", "timing_s/testing", "timing_s/save_checkpoint")),
        "before": {key: validated[0].get(key) for key in numbers},
        "after": {key: validated[-1].get(key) for key in numbers},
        "merged_model": results,
    }


def table(summary: dict) -> str:
    """The before/after table that a person reads at the end."""
    wanted = ("success", "draw", "loss", "invalid", "unfinished", "reward")
    lines = ["", f"{'validation':34} {'before':>8} {'after':>8}"]
    for key, after in summary["after"].items():
        if key.rsplit("/", 1)[1] in wanted:
            before = summary["before"][key]
            lines.append(f"{key:34} {'-' if before is None else format(before, '8.3f'):>8} {after:8.3f}")
    for opponent, result in summary["merged_model"].items():
        scores = result["scores"]
        win = scores["win"]
        lines.append(
            f"merged model against {opponent}, {EVAL_GAMES} new games: win {win['value']:.3f} "
            f"[{win['low']:.3f}, {win['high']:.3f}], loss {scores['loss']['value']:.3f}"
        )
    lines += [
        "", f"{summary['steps']} steps in {summary['seconds'] / 60:.1f} minutes of training and validation",
        f"curves and episodes   {summary['report']}", f"metrics               {summary['folder']}/metrics.jsonl",
        f"merged model          {summary['merged']}",
    ]  # fmt: skip
    return "\n".join(lines)


def _run(*command: str, quiet: bool = False) -> None:
    """Run a part from the project's folder; with ``quiet`` its output is shown only if it fails."""
    if not quiet:
        subprocess.run(command, check=True, cwd=ROOT)
        return
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        raise subprocess.CalledProcessError(done.returncode, command)


if __name__ == "__main__":
    raise SystemExit(main())
