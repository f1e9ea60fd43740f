"""Runs every experiment script in its laptop form and writes what came of it as a table::

    python -m scripts.laptop_table --out outputs/laptop_table --table docs/laptop_scripts.md

A script that has run to its end (its folder holds ``wall.json``) is not run again, whatever ``--steps`` says.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = (
    "math nash tictactoe tictactoe_selfplay undercover FI1_mixed FI1_nested FI1_cst FI2_mixed FI2_nested FI2_cst "
    "FI3_mixed FI3_nested FI3_cst I2_mixed I2_nested I2_cst"
).split()
#: steps at either end whose training success is averaged: a single step plays few games
ENDS = 3

log = logging.getLogger(__name__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/laptop_table"))
    parser.add_argument("--table", type=Path, help="file to write the table to (default: OUT/table.md)")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("scripts", nargs="*", default=SCRIPTS, help="names without .sh (default: all)")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    rows = []
    for place, name in enumerate(args.scripts):
        log.info("%s.sh, %d of %d", name, place + 1, len(args.scripts))
        folder = args.out / name
        run_script(name, folder, args.steps)
        rows.append(summary(name, folder, args.steps))
        log.info("%s", rows[-1])
    table = args.table or args.out / "table.md"
    table.write_text("\n".join(["| script | steps | minutes | median step | success |", "|---|---|---|---|---|", *rows]) + "\n", encoding="utf-8")
    log.info("table in %s", table)


def run_script(name: str, folder: Path, steps: int) -> None:
    """Runs it unless it has; the wall time goes to ``wall.json`` beside its metrics. Raises
    ``RuntimeError`` naming the log if it fails."""
    if (folder / "wall.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    started = time.time()
    with (folder / "console.log").open("w") as console:
        command = ["bash", str(HERE / f"{name}.sh"), "--laptop"]
        environment = os.environ | {"STEPS": str(steps), "OUT": str(folder.resolve())}
        status = subprocess.run(command, stdout=console, stderr=subprocess.STDOUT, env=environment, check=False).returncode
    if status:
        raise RuntimeError(f"{name}.sh ended with status {status}; see {folder / 'console.log'}")
    (folder / "wall.json").write_text(json.dumps({"seconds": round(time.time() - started, 1)}))


def summary(name: str, folder: Path, steps: int) -> str:
    """A row of the table. Raises ``RuntimeError`` if the run did not reach ``steps``."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    trained = [row for row in rows if row["step"] > 0]
    if not trained or trained[-1]["step"] < steps:
        end = trained[-1]["step"] if trained else 0
        raise RuntimeError(f"{name}.sh: {folder}/metrics.jsonl ends at step {end}, not {steps}; remove the folder to run it anew")
    seconds = sorted(row["timing_s/step"] for row in trained)
    told = [ends(rows, key) for key in successes(rows, "val")] + [ends(trained, key, ENDS) for key in successes(trained, "train")]
    wall = json.loads((folder / "wall.json").read_text())["seconds"]
    return f"| `scripts/{name}.sh --laptop` | {len(trained)} | {wall / 60:.1f} | {seconds[len(seconds) // 2]:.2f} s | {'; '.join(told)} |"


def successes(rows: list[dict], phase: str) -> list[str]:
    """``PHASE/TAG/success`` of every tag, and of a nest's sub-tasks; not by opponent or role."""
    keys = {k for row in rows for k in row if k.startswith(f"{phase}/") and k.endswith("/success")}
    return sorted(k for k in keys if k.count("/") == 2 or "/sub/" in k)


def ends(rows: list[dict], key: str, width: int = 1) -> str:
    """``key`` at the beginning and at the end, as percentages, means over ``width`` steps."""
    values = [row[key] for row in rows if key in row]
    first, last = values[:width], values[-width:]
    return f"{key.removesuffix('/success')} {sum(first) / len(first):.0%} -> {sum(last) / len(last):.0%}"


if __name__ == "__main__":
    main()
