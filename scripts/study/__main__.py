"""Nested, mixed and CST on F+I2 with the starter of all games, several seeds each::

    python -m scripts.study --out outputs/study_fi2 --docs docs/study_fi2

Writes ``figure.svg``, ``table.md`` and ``metrics.csv`` (success, reward and training metrics of every step) to the folder of
``--docs``. Runs that are there already are not run again.
"""

from __future__ import annotations

import argparse
import csv
import logging
import time
from pathlib import Path
from statistics import fmean

from scripts.study.draw import Curves, figure, smooth
from scripts.study.runs import MODES, read_metrics, run

#: titles of the panels and the metrics behind them
SUCCESS = {
    "maths: success": "val/MathTest/success",
    "matrix game: success": "val/NashNew/success",
    "tic-tac-toe: success": "val/TicTacToe/success",
}
TRAINING = {"entropy of the replies": "actor/entropy", "gradient norm": "actor/grad_norm", "reply tokens a turn": "rollout/response_length"}
#: besides every success and reward, what goes to metrics.csv
KEPT = {*TRAINING.values(), "actor/pg_loss", "actor/lr", "rollout/groups_with_signal", "rollout/groups_total", "rollout/invalid", "timing_s/step"}
SMOOTH = 5  # steps, of the training curves

log = logging.getLogger(__name__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/study_fi2"))
    parser.add_argument("--docs", type=Path, default=Path("docs/study_fi2"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    todo = [(mode, seed) for seed in args.seeds for mode in MODES]
    started = time.time()
    for place, (mode, seed) in enumerate(todo):
        run(mode, seed, args.steps, args.out / f"{mode}-{seed}")
        spent = time.time() - started
        log.info("%s, seed %d done; %d of %d, %.0f s left", mode, seed, place + 1, len(todo), spent / (place + 1) * (len(todo) - place - 1))
    write(args.out, args.docs, args.seeds)
    log.info("figure, table and metrics in %s", args.docs)


def write(out: Path, docs: Path, seeds: list[int]) -> None:
    """Figure, table and raw metrics from the runs in ``out``."""
    docs.mkdir(parents=True, exist_ok=True)
    rows = {(mode, seed): read_metrics(out / f"{mode}-{seed}") for mode in MODES for seed in seeds}
    panels: dict[str, Curves] = {}
    for title, key in (SUCCESS | TRAINING).items():
        width = 1 if title in SUCCESS else SMOOTH
        panels[title] = {mode: [smooth(curve(rows[mode, seed], key), width) for seed in seeds] for mode in MODES}
    (docs / "figure.svg").write_text(figure(panels), encoding="utf-8")
    (docs / "table.md").write_text(table(rows, seeds), encoding="utf-8")
    keys = sorted({k for found in rows.values() for row in found for k in row if k.endswith(("/success", "/reward")) or k in KEPT})
    with (docs / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["mode", "seed", "step", "metric", "value"])
        for (mode, seed), found in rows.items():
            writer.writerows([mode, seed, row["step"], key, f"{row[key]:.6g}"] for row in found for key in keys if key in row)


def curve(rows: list[dict], key: str) -> list[tuple[float, float]]:
    return [(row["step"], row[key]) for row in rows if key in row]


def table(rows: dict, seeds: list[int]) -> str:
    """First and last value of every task's validation, and the training curves' ends."""
    lines = ["| | " + " | ".join([*SUCCESS, "all three", *TRAINING]) + " |", "|---" * (len(SUCCESS) + len(TRAINING) + 2) + "|"]
    for mode in MODES:
        cells, finals = [], []
        for key in SUCCESS.values():
            found = [curve(rows[mode, seed], key) for seed in seeds]
            finals.append([c[-1][1] for c in found])
            cells.append(f"{fmean(c[0][1] for c in found):.1%} -> {fmean(finals[-1]):.1%} ({', '.join(f'{v:.1%}' for v in finals[-1])})")
        means = [fmean(values) for values in zip(*finals, strict=True)]
        cells.append(f"{fmean(means):.1%} ({', '.join(f'{v:.1%}' for v in means)})")
        for key in TRAINING.values():
            found = [curve(rows[mode, seed], key) for seed in seeds]
            first, last = (fmean(v for c in found for _, v in part(c)) for part in (lambda c: c[:SMOOTH], lambda c: c[-SMOOTH:]))
            cells.append(f"{first:.3g} -> {last:.3g}")
        lines.append(f"| {mode} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
