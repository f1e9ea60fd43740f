"""A run folder, read: its configuration, its metrics and where its trajectories lie."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ragen.report.warnings import number

METRICS = "metrics.jsonl"
_TRAJECTORIES = re.compile(r"(train|val)_step_(\d+)\.jsonl")
#: config keys in which two runs of one experiment may differ: the seed and where the run is written
_UP_TO_SEED = re.compile(
    r"(^|\.)(seed|seeds|experiment_name|project_name|default_local_dir|default_hdfs_dir|run_dir|output_dir|resume_mode|"
    r"resume_from_path|rollout_data_dir|validation_data_dir)(\.|$)"
)
_SECRET = re.compile(r"(^|[._])(api_key|apikey|secret|password|authorization|access_token|auth_token)$", re.IGNORECASE)


class ReportError(ValueError):
    """A folder or file that cannot be reported on; the message says which and what would help."""


@dataclass
class Run:
    """``metrics``: rows of ``metrics.jsonl`` by step, oldest first. ``files``: (phase, step) ->
    trajectory file. ``config``: dotted key -> value, secrets masked. ``group``: runs of one group
    are one curve with a band."""

    folder: Path
    name: str
    metrics: list[dict] = field(default_factory=list)
    config: dict[str, object] = field(default_factory=dict)
    files: dict[tuple[str, int], Path] = field(default_factory=dict)
    group: str = ""

    def tags(self, phase: str) -> list[str]:
        """Tags with a success curve in ``phase`` ("train" or "val"), in order of appearance."""
        found = dict.fromkeys(key for row in self.metrics for key in row)
        return [k.split("/")[1] for k in found if k.startswith(f"{phase}/") and k.endswith("/success") and k.count("/") == 2]

    def series(self, key: str) -> list[tuple[int, float]]:
        """(step, value) of each step that logs a finite ``key``."""
        values = ((row["step"], number(row, key)) for row in self.metrics)
        return [(step, value) for step, value in values if value is not None and math.isfinite(value)]


def load_run(folder: str | Path, name: str = "") -> Run:
    """Read a run folder. A last line that is still being written is left out; anything else that
    cannot be read raises :class:`ReportError`."""
    folder = Path(folder)
    path = folder / METRICS
    if not path.is_file():
        near = sorted(p.parent.name for p in folder.glob(f"*/{METRICS}"))[:5] if folder.is_dir() else []
        hint = f"; did you mean one of its runs: {', '.join(near)}?" if near else "; name the folder a run wrote (trainer.default_local_dir)"
        raise ReportError(f"{folder}: no {METRICS} there{hint}")
    run = Run(folder, name or folder.resolve().name)
    run.metrics = read_metrics(path)
    if not run.metrics:
        raise ReportError(f"{path}: empty: the run has not finished its first step")
    run.config = _read_config(folder / "config.yaml")
    for file in sorted((folder / "trajectories").glob("*.jsonl")):
        if match := _TRAJECTORIES.fullmatch(file.name):
            run.files[match[1], int(match[2])] = file
    return run


def read_metrics(path: Path) -> list[dict]:
    """Rows by step. A step logged in several rows is merged, the later value wins (a resumed run)."""
    rows: dict[int, dict] = {}
    lines = path.read_text(encoding="utf-8").split("\n")
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            step = int(row["step"])
        except (ValueError, TypeError, KeyError) as fault:
            if i == len(lines) - 1:  # no line end yet: the trainer is writing it
                break
            raise ReportError(f"{path}, line {i + 1}: not a metrics row with a step ({fault!r}): {line[:80]}") from fault
        rows.setdefault(step, {}).update(row, step=step)
    return [rows[step] for step in sorted(rows)]


def _read_config(path: Path) -> dict[str, object]:
    if not path.is_file():
        return {}
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as fault:
        raise ReportError(f"{path}: not YAML ({fault}); delete it to report without the configuration") from fault
    return {key: "***" if _SECRET.search(key) and value else value for key, value in _flat(tree or {}).items()}


def _flat(tree: object, prefix: str = "") -> dict[str, object]:
    if isinstance(tree, Mapping) and tree:
        items = [(str(k), v) for k, v in tree.items()]
    elif isinstance(tree, list) and any(isinstance(x, Mapping) for x in tree):
        items = [(str(i), v) for i, v in enumerate(tree)]
    else:
        return {prefix.rstrip("."): tree}
    return {key: value for name, sub in items for key, value in _flat(sub, f"{prefix}{name}.").items()}


def load_runs(arguments: Sequence[str], grouping: str = "seed") -> list[Run]:
    """Runs named ``RUN`` or ``NAME=RUN``. Runs given one NAME are one group; the others are grouped
    when their configurations are equal up to the seed (``grouping="seed"``) or not at all
    (``"none"``). Folders of one name are told apart by their parents."""
    named = [(name if path else "", path or name) for name, _, path in (_split_name(a) for a in arguments)]
    runs = [load_run(path, name) for name, path in named]
    given = [name for name, _ in named]
    often = Counter(run.name for run in runs)
    for run, name in zip(runs, given, strict=True):
        if not name and often[run.name] > 1:
            run.name = f"{run.folder.resolve().parent.name}/{run.folder.resolve().name}"
    groups: dict[object, list[Run]] = {}
    for i, run in enumerate(runs):
        same = {k: v for k, v in run.config.items() if not _UP_TO_SEED.search(k)}
        by_config = grouping == "seed" and same
        key = ("name", given[i]) if given[i] else ("config", json.dumps(same, sort_keys=True, default=str)) if by_config else i
        groups.setdefault(key, []).append(run)
    for members in groups.values():
        for run in members:
            run.group = _group_name([m.name for m in members])
    for members in groups.values():  # runs given one name stay apart in lists
        if len(members) > 1 and len({run.name for run in members}) == 1:
            for run in members:
                run.name = f"{run.name} · {run.folder.resolve().name}"
    return runs


def _split_name(argument: str) -> tuple[str, str, str]:
    return (argument, "", "") if Path(argument).exists() else argument.partition("=")


def _group_name(names: list[str]) -> str:
    """What the names share, without a trailing ``_seed``."""
    if len(names) == 1 or len(set(names)) == 1:
        return names[0]
    common = names[0]
    for name in names[1:]:
        while not name.startswith(common):
            common = common[:-1]
    common = re.sub(r"[\W_]*(seed|s)?[\W_]*$", "", common)
    return common or names[0]
