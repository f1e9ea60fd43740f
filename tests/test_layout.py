"""Imports point one way (docs/decisions.md): verl never knows ragen, and within ragen nobody looks upward."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: lower rooms first: a file may import from its own room and from those before it
ORDER = ["ragen.env", "ragen.players", "ragen.llm_agent", "ragen.workers", "ragen.trainer", "ragen.eval", "ragen.report", "ragen.play"]
#: entry points that stand in a lower room for the user's sake, and what the display is to the loop
EXEMPT = {
    ("ragen/env/terminal.py", "ragen.players"),  # python -m ragen.env.NAME.env
    ("ragen/players/policy.py", "ragen.llm_agent"),  # a past self talks through the policy's own chat format
    ("ragen/trainer/agent_trainer.py", "ragen.report"),  # the console
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def room(module: str) -> str | None:
    return next((r for r in ORDER if module == r or module.startswith(r + ".")), None)


def test_verl_never_imports_ragen():
    for path in (ROOT / "verl").rglob("*.py"):
        assert not [m for m in imports(path) if m == "ragen" or m.startswith("ragen.")], path


@pytest.mark.parametrize("own", ORDER)
def test_ragen_imports_point_one_way(own):
    for path in (ROOT / own.replace(".", "/")).rglob("*.py"):
        for module in imports(path):
            target = room(module)
            name = path.relative_to(ROOT).as_posix()
            if target and ORDER.index(target) > ORDER.index(own) and (name, target) not in EXEMPT:
                pytest.fail(f"{name} imports {module}: {target} is above {own}")


def test_nobody_imports_the_scripts():
    for package in ("verl", "ragen", "reason_test"):
        for path in (ROOT / package).rglob("*.py"):
            assert not [m for m in imports(path) if m.split(".")[0] in ("scripts", "tests", "train")], path


def test_library_code_logs_and_does_not_print():
    # command lines, and DataProto.print_size, which prints in VeRL too
    mains = {"__main__.py", "terminal.py", "run.py", "compare.py", "watch.py", "cli.py", "judge_worker.py", "game_benchmarks.py", "protocol.py"}
    for package in ("verl", "ragen"):
        for path in (ROOT / package).rglob("*.py"):
            if path.name in mains:
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            calls = [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "print"]
            assert not calls, f"{path}: print on lines {calls}"


def test_the_style_that_pyproject_asks_for_is_kept():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
