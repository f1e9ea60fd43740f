"""The paper's table: its columns, its published rows, and the row that a set of results makes."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: column -> (benchmark, score) of a result file; the last four make the average
COLUMNS: dict[str, tuple[str, str]] = {
    "MATH": ("math500", "flexible"),
    "Matrix": ("nash_new", "right"),
    "TicTacToe": ("tictactoe", "win"),
    "Spy": ("undercover", "win"),
    "MMLU": ("mmlu", "flexible"),
    "MMLU-Pro": ("mmlu_pro", "flexible"),
    "Common": ("commongen", "win_or_tie"),
    "Social": ("social_i_qa", "flexible"),
}
GENERAL = ("MMLU", "MMLU-Pro", "Common", "Social")
PUBLISHED = Path(__file__).resolve().parents[2] / "docs" / "paper_results.csv"


def table_row(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any] | None]:
    """Column -> score (``value, low, high``, as shares) of the results by benchmark; ``None`` where there is
    none. ``Avg``: the mean of the last four, with the interval of a sum of independent scores, if all are there."""
    row: dict[str, dict[str, Any] | None] = {}
    for column, (benchmark, score) in COLUMNS.items():
        found = results.get(benchmark, {}).get("scores", {}).get(score)
        row[column] = found if found and found["value"] is not None else None
    row["Avg"] = average([row[column] for column in GENERAL])
    return row


def average(scores: list[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    if any(score is None for score in scores):
        return None
    n = len(scores)
    middle = sum(s["value"] for s in scores) / n
    below = sum((s["value"] - s["low"]) ** 2 for s in scores) ** 0.5 / n
    above = sum((s["high"] - s["value"]) ** 2 for s in scores) ** 0.5 / n
    return {"value": middle, "low": middle - below, "high": middle + above}


def published(path: Path = PUBLISHED) -> list[dict[str, Any]]:
    """The paper's rows as far as they are known here: ``model, method``, the columns and ``Avg`` in per cent
    (``None``: not known), ``Avg recomputed`` where the columns give another average than the printed one."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    numbers = [*COLUMNS, "Avg", "Avg recomputed"]
    return [{**row, **{key: float(row[key]) if row[key] else None for key in numbers}} for row in rows]


def recomputed(row: Mapping[str, Any]) -> float | None:
    """The average that a row's own columns give, in per cent; ``None`` if one is not known."""
    values = [row[column] for column in GENERAL]
    return None if None in values else round(sum(values) / len(values), 2)
