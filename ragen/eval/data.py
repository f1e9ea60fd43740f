"""Rows of a benchmark: from a local file or from the Hugging Face hub, with their fields checked."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragen.eval.results import digest, hash_files

_KINDS = (".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet")


class NoData(FileNotFoundError):
    """A benchmark's default data is not on this machine."""


@dataclass(frozen=True)
class Source:
    """Where a benchmark's rows lie if nobody says. ``file``: beneath ``$GIFT_DATA`` or ``data/``
    (``scripts/download_data.sh`` fills it). ``hub``, ``config``, ``split``: on the hub; ``hub_file``: the file in
    its repository, where that says more than a configuration."""

    file: str
    hub: str
    config: str | None = None
    split: str = "test"
    hub_file: str | None = None


@dataclass(frozen=True)
class Rows:
    """``about``: path or name, number of rows and hash, for the result file."""

    rows: list[dict[str, Any]]
    about: dict[str, Any]


def load_rows(data: str | None, source: Source, labels: str | None = None) -> Rows:
    """The rows of ``data``: a file (JSON lines, also gzipped; JSON; CSV; parquet), or ``hub`` or a name
    (``ORG/NAME``) for the hub; ``None``: the local copy of ``source``. ``labels``: a file with one
    label a line, in the order of the rows, that becomes their ``label``.

    Raises ``FileNotFoundError`` where there is no such data, ``ValueError`` where it cannot be read.
    """
    if data is None:
        path = _local(source)
    elif data != "hub" and Path(data).exists():
        path = Path(data)
    elif data == "hub" or (data.count("/") == 1 and not data.startswith((".", "/", "~")) and not data.endswith(_KINDS)):
        return _from_hub(source.hub if data == "hub" else data, source)
    else:
        raise FileNotFoundError(f"--data: there is no file {data} (nor is it ORG/NAME on the Hugging Face hub)")
    if path.is_dir():
        raise ValueError(f"--data: {path} is a folder; name a file in it ({', '.join(_KINDS)})")
    rows, files = _read(path), [path]
    if labels is not None:
        rows, files = _with_labels(rows, Path(labels), path), [path, Path(labels)]
    if not rows:
        raise ValueError(f"--data: {path} holds no row")
    return Rows(rows, {"file": path.name, "rows": len(rows), "hash": hash_files(files)})


def _local(source: Source) -> Path:
    roots = [Path(root) for root in (os.environ.get("GIFT_DATA"), "data") if root]
    for root in roots:
        if (root / source.file).is_file():
            return root / source.file
    looked = " and ".join(str(root / source.file) for root in roots)
    raise NoData(
        f"no data: looked for {looked}. Give --data FILE, or --data hub for {source.hub}, or run scripts/download_data.sh"
    )


def _read(path: Path) -> list[dict[str, Any]]:
    name = path.name
    try:
        if name.endswith((".jsonl", ".jsonl.gz")):
            with (gzip.open if name.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
                return [_line(line, number, path) for number, line in enumerate(file, start=1) if line.strip()]
        if name.endswith(".json"):
            found = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(found, list):
                raise ValueError(f"--data: {path} must hold a list of objects, it holds {type(found).__name__}")
            return found
        if name.endswith(".csv"):
            with path.open(newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file))
        if name.endswith(".parquet"):
            import pyarrow.parquet as parquet

            return parquet.read_table(path).to_pylist()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--data: {path} cannot be read: {error}") from error
    raise ValueError(f"--data: {path} is of no kind that is known ({', '.join(_KINDS)})")


def _line(line: str, number: int, path: Path) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"--data: {path} line {number} is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"--data: {path} line {number} is no object")
    return row


def _with_labels(rows: list[dict[str, Any]], labels: Path, path: Path) -> list[dict[str, Any]]:
    if not labels.is_file():
        raise FileNotFoundError(f"--labels: there is no file {labels}")
    lines = labels.read_text(encoding="utf-8").split()
    if len(lines) != len(rows):
        raise ValueError(f"--labels: {labels} has {len(lines)} labels for {len(rows)} rows of {path}")
    return [{**row, "label": label} for row, label in zip(rows, lines, strict=True)]


def _from_hub(name: str, source: Source) -> Rows:
    import datasets

    own = name == source.hub
    config = source.config if own else None
    files = {source.split: source.hub_file} if own and source.hub_file else None
    try:
        found = datasets.load_dataset(name, config, split=source.split, data_files=files)
    except Exception as error:  # noqa: BLE001  the hub's client raises many kinds; all mean the same here
        raise FileNotFoundError(
            f"--data: the hub gives no {name} (config {config}, split {source.split}): {type(error).__name__}: {error}. "
            "Without a network, give a local file"
        ) from None
    rows = [dict(row) for row in found]
    return Rows(rows, {"hub": name, "config": config, "split": source.split, "rows": len(rows), "hash": digest(rows)})


def pick(row: Mapping[str, Any], names: Sequence[str], where: str) -> Any:
    """The first of ``names`` that ``row`` has; a dot goes into a nested object (``extra_info.answer``).
    Raises ``ValueError`` naming the row's fields if it has none."""
    for name in names:
        value: Any = row
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    raise ValueError(f"{where} has no field {' or '.join(map(repr, names))} (its fields: {', '.join(map(str, row))})")
