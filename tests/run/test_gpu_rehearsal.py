"""`python -m benchmarks gpu` on a CPU: every line with Ray, vLLM and flash-attn out of reach, and what a bad line does to the others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: in every process: the packages are not there, and a file says that this was so
BLOCKED = """
import os, pathlib, sys

ABSENT = {"ray", "vllm", "flash_attn"}

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *rest):
        return None if name.split(".")[0] in ABSENT else self.finder.find_spec(name, *rest)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
pathlib.Path(os.environ["SEEN"], str(os.getpid())).touch()
"""

BAD_LINES = """
import os, sys, time
sys.path.insert(0, os.environ["ROOT"])
from benchmarks.gpu.lines import Skipped, line, row

@line("good", "", 1)
def good(setting):
    print("noise of a library")
    return [row("three", 3.0, "x", at_least=2.0)]

@line("dies", "", 1)
def dies(setting):
    os._exit(7)

@line("raises", "", 1)
def raises(setting):
    raise KeyError("lost")

@line("hangs", "", 1, limit_s=1)
def hangs(setting):
    time.sleep(600)

@line("lacks", "", 1)
def lacks(setting):
    raise Skipped("no harp")

@line("short", "", 1)
def short(setting):
    return [row("half", 0.5, at_least=1.0)]
"""


def run_gpu(folder, site: str, *options: str) -> tuple[subprocess.CompletedProcess, dict]:
    """The command with `site` executed at the start of each of its processes; (what it printed, its JSON)."""
    seen, path = folder / "seen", folder / "site"
    for made in (seen, path):
        made.mkdir(exist_ok=True)
    (path / "sitecustomize.py").write_text(site)
    env = {**os.environ, "PYTHONPATH": str(path), "SEEN": str(seen), "ROOT": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks", "gpu", "--device", "cpu", "--tiny", "--output", str(folder / "out"), *options]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=550)
    return done, json.loads((folder / "out" / "gpu.json").read_text())


@pytest.mark.slow
def test_every_line_runs_without_ray_and_vllm(tmp_path):
    done, results = run_gpu(tmp_path, BLOCKED)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = results["lines"]
    own = {name: result["status"] for name, result in lines.items() if not name.startswith("17-")}
    assert {name for name, status in own.items() if status == "skipped"} == {"sleep", "offload"}, lines
    assert len(own) >= 15 and {result["status"] for result in lines.values()} == {"ok", "skipped"}
    missed = [(name, row) for name, result in lines.items() for row in result.get("rows", ()) if row["met"] is False]
    assert not missed
    held = {name for name, result in lines.items() for row in result.get("rows", ()) if row["met"]}
    assert held >= {"run", "packed", "varlen", "checkpoint", "export", "nccl-ranks"}
    assert len(list((tmp_path / "seen").iterdir())) >= 6, "driver, lines, tests and ranks each ran without the packages"
    assert "vLLM is not installed" in lines["sleep"]["error"]


def test_a_line_that_fails_hangs_or_dies_leaves_the_others_alone(tmp_path):
    names = ("good", "dies", "raises", "hangs", "lacks", "short")
    done, results = run_gpu(tmp_path, BAD_LINES, "--only", *names)
    lines = results["lines"]
    assert done.returncode == 1 and list(lines) == list(names), done.stdout + done.stderr
    assert [lines[name]["status"] for name in names] == ["ok", "failed", "failed", "failed", "skipped", "ok"]
    assert "exit status 7" in lines["dies"]["error"] and "KeyError: 'lost'" in lines["raises"]["error"]
    assert "no answer within 5 s" in lines["hangs"]["error"] and lines["lacks"]["error"] == "no harp"
    table = (tmp_path / "out" / "gpu.md").read_text()
    assert "| good | three | 3 x | >= 2 | yes |" in table and "| short | half | 0.5  | >= 1 | NO |" in table
    assert "targets missed: short: half" in table
    # one line again: what was found before stays
    _, results = run_gpu(tmp_path, BAD_LINES.replace("0.5", "2.5"), "--only", "short")
    assert list(results["lines"]) == list(names) and results["lines"]["short"]["rows"][0]["met"] is True


def test_a_name_that_no_line_has_is_refused(tmp_path):
    done = subprocess.run([sys.executable, "-m", "benchmarks", "gpu", "--only", "warp"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "no line is called warp" in done.stderr


def test_verls_counting_of_operations():
    """By hand for two sequences of a model with one block: VeRL counts embedding and head, and the whole square."""
    from benchmarks.gpu.lines_update import verl_flops
    from verl.utils.model_shape import ModelShape

    shape = ModelShape(vocab=10, hidden=4, layers=1, heads=2, kv_heads=1, head_dim=2, intermediate=6)
    block = 4 * (4 + 2 + 2 + 4) + 3 * 4 * 6
    assert verl_flops(shape, [3, 5]) == 6 * (block + 2 * 10 * 4) * 8 + 12 * 4 * (9 + 25)
