"""The study's runs are equal in what they play, and its figure and table say what the metrics say."""

import csv
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from ragen.trainer.config import compose, validate_config
from scripts.laptop_table import summary
from scripts.study.__main__ import SUCCESS, TRAINING, write
from scripts.study.draw import band, smooth
from scripts.study.runs import MODES, overrides


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_plays_384_sub_tasks_a_step_and_makes_one_update(mode):
    given = overrides(mode, 1, 60, Path("run"))
    config = compose(given[1], given[2:])
    for step in validate_config(config, check_machine=False).steps:
        assert step.episodes * (3 if mode == "nested" else 1) == 384 and len(step.mini_batches) == 1


def write_runs(folder: Path, seeds) -> None:
    for m, mode in enumerate(MODES):
        for seed in seeds:
            run = folder / f"{mode}-{seed}"
            run.mkdir(parents=True)
            rows = [{"step": 0} | {key: 0.25 for key in SUCCESS.values()}]
            rows += [{"step": s} | {key: s + seed for key in TRAINING.values()} for s in range(1, 5)]
            rows[-1] |= {key: 0.5 + 0.1 * m + 0.01 * seed for key in SUCCESS.values()}
            (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_table_figure_and_raw_metrics_agree_with_the_runs(tmp_path):
    write_runs(tmp_path / "runs", [1, 3])
    write(tmp_path / "runs", tmp_path / "docs", [1, 3])
    table = (tmp_path / "docs" / "table.md").read_text().splitlines()
    assert len({line.count("|") for line in table}) == 1 and len(table) == 2 + len(MODES)
    assert table[3].startswith("| nested | 25.0% -> 62.0% (61.0%, 63.0%) |") and "62.0% (61.0%, 63.0%)" in table[3]
    with (tmp_path / "docs" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = [r["value"] for r in rows if (r["mode"], r["seed"], r["step"], r["metric"]) == ("cst", "3", "4", "val/NashNew/success")]
    assert found == ["0.73"]
    svg = ElementTree.parse(tmp_path / "docs" / "figure.svg").getroot()
    lines = svg.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == len(MODES) * len(SUCCESS | TRAINING)


def test_bands_and_means():
    assert smooth([(1, 2.0), (2, 4.0), (3, 9.0)], 2) == [(1, 2.0), (2, 3.0), (3, 6.5)]
    assert band([[(1, 1.0), (2, 5.0)], [(1, 3.0)]]) == [(1, 2.0, 1.0, 3.0)]


def test_the_table_of_launchers_refuses_a_run_that_did_not_get_there(tmp_path):
    rows = [{"step": 0, "val/T/success": 0.25}]
    rows += [{"step": s, "train/T/success": s / 4, "timing_s/step": 2.0} for s in (1, 2, 3, 4)]
    rows[-1]["val/T/success"] = 0.5
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "wall.json").write_text('{"seconds": 90}')
    assert summary("x", tmp_path, 4) == "| `scripts/x.sh --laptop` | 4 | 1.5 | 2.00 s | val/T 25% -> 50%; train/T 50% -> 75% |"
    with pytest.raises(RuntimeError, match="ends at step 4, not 5"):
        summary("x", tmp_path, 5)
