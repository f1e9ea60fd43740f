"""The paper's table: its columns, its published rows, and the row that a set of results makes."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ragen.eval.protocol import PAPER, of_result

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
#: of a result under the paper's protocol, where that is another score
PAPER_SCORES = {"MATH": "strict"}
GENERAL = ("MMLU", "MMLU-Pro", "Common", "Social")
PUBLISHED = Path(__file__).resolve().parents[2] / "docs" / "paper_results.csv"
#: an average printed with two places may differ so much from that of printed columns (per cent)
ROUNDING = 0.011


def table_row(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any] | None]:
    """Column -> score (``value, low, high``, as shares) of the results by benchmark; ``None`` where there is
    none. ``Avg``: the mean of the last four, with the interval of a sum of independent scores, if all are there
    and were made under one protocol."""
    row: dict[str, dict[str, Any] | None] = {}
    for column, (benchmark, score) in COLUMNS.items():
        result = results.get(benchmark, {})
        if of_result(result) == PAPER:
            score = PAPER_SCORES.get(column, score)
        found = result.get("scores", {}).get(score)
        row[column] = found if found and found["value"] is not None else None
    made = {of_result(results[COLUMNS[column][0]]) for column in GENERAL if row[column]}
    row["Avg"] = average([row[column] for column in GENERAL]) if len(made) == 1 else None
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
    """Every row of the paper's tables 2 to 7: ``table, model, setting, method, opponent, order``, the columns, ``Avg``
    (as printed) and ``Avg recomputed`` (the mean of the row's last four columns), in per cent."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    numbers = [*COLUMNS, "Avg", "Avg recomputed"]
    return [{**row, **{key: float(row[key]) for key in numbers}} for row in rows]


def distinct(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """``rows`` without those that an earlier table holds already: same model, same numbers."""
    found: dict[tuple, Mapping[str, Any]] = {}
    for row in rows:
        found.setdefault((row["model"], *(row[column] for column in COLUMNS)), row)
    return list(found.values())


def headlines(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of each model the untrained row and the one of highest average (by its columns): what a figure has room for."""
    found = []
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == model]
        best = max(mine, key=recomputed)
        found += [row for row in mine if row["method"] == "none" or row is best]
    return found


def label(row: Mapping[str, Any]) -> str:
    """What was trained, in a line; opponent and order where they set rows apart."""
    kind = [row["model"].removesuffix("-Instruct"), row["setting"] if row["setting"] not in ("informal", "formal") else ""]
    method = row["method"] if row["method"] != "none" else ""
    apart = [text for text in (row["opponent"] if row["table"] == "5" else "", row["order"]) if text]
    return " ".join(["paper:", *filter(None, [*kind, method]), *(f"({text})" for text in apart)])


def recomputed(row: Mapping[str, Any]) -> float:
    """The average that a row's own columns give, in per cent."""
    return round(sum(row[column] for column in GENERAL) / len(GENERAL), 2)
