"""The checks of ``checks17.py`` (what was read in the libraries' sources), each a line: ``17-NAME`` for ``check_NAME``.

A check returns ``{"check", "device", "ok", ...}``; ``ok`` is None where it cannot run, ``why`` says why. Their names are read
from the file without importing it, which would import torch.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

from benchmarks.gpu.lines import Skipped, line, row

FILE = Path(__file__).with_name("checks17.py")


def _register(definition: ast.FunctionDef, with_engine: bool) -> None:
    what = " ".join((ast.get_docstring(definition) or "").split()).split(". ")[0]

    @line(f"17-{definition.name.removeprefix('check_')}", what[:110], 12, 140)
    def check(setting) -> list[dict]:
        from verl.workers.rollout.vllm_rollout import vllm_available

        if with_engine and not (vllm_available() and setting.on_gpu):
            raise Skipped("needs a GPU" if vllm_available() else "vLLM is not installed")
        found = getattr(importlib.import_module("benchmarks.gpu.checks17"), definition.name)()
        seen = ", ".join(f"{name} {value}" for name, value in found.items() if name not in ("check", "device", "ok"))
        if found["ok"] is None:
            raise Skipped(seen)
        return [row("holds", bool(found["ok"]), note=seen)]


if FILE.exists():
    for node in ast.parse(FILE.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("check_"):
            calls = {call.func.id for call in ast.walk(node) if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)}
            _register(node, with_engine="_engine" in calls)
