"""Rows of a question benchmark summed up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ragen.eval import stats

Row = Mapping[str, Any]


def summarise(bench, rows: Sequence[Row], samples: int, seconds: float) -> dict[str, Any]:
    """Counts, scores with intervals, by category, tokens. Questions that could not be asked (a prompt too
    long for the model, a server that failed) are in ``counts`` and in no score; an answered one without an
    answer to be found is ``invalid`` and not right."""
    by_question: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_question[row["id"]].append(row)
    kinds = sorted({kind for row in rows for kind in row["categories"]})
    more = bench.summarise_more(rows)
    return {
        "primary": bench.primary,
        "counts": {**count(rows, len(by_question), samples), **more.get("counts", {})},
        "scores": {**scores(by_question, samples, bench.means), **more.get("scores", {})},
        "by_category": {kind: _by_category(by_question, kind, samples, bench.means) for kind in kinds},
        "tokens": {side: sum(row[f"{side}_tokens"] or 0 for row in rows) for side in ("prompt", "reply")},
        "seconds": seconds,
    }


def count(rows: Sequence[Row], questions: int, samples: int) -> dict[str, int]:
    verdicts = [row["verdict"] for row in rows]
    answered = [row for row in rows if row["extracted"] is not None]
    return {
        "questions": questions,
        "samples": samples,
        "answered": len(answered),
        "too_long": verdicts.count("too_long"),
        "failed": verdicts.count("failed"),
        "invalid": verdicts.count("invalid"),
        "off_format": sum(row["extracted"]["strict"] is None for row in answered),
        "cut": sum(row["cut"] for row in answered),
    }


def scores(by_question: Mapping[str, Sequence[Row]], samples: int, means: Sequence[str] = ()) -> dict[str, dict]:
    """``strict``, ``flexible``, ``invalid`` and ``off_format``; with several samples also ``majority`` and
    ``pass@k`` (k = 1, 2, 4, ...), all by the flexible answer. The unit is the question: with one sample a
    Wilson interval, with several one for bounded means over the questions' means."""
    answered = {i: [row for row in rows if row["extracted"] is not None] for i, rows in by_question.items()}
    answered = {i: rows for i, rows in answered.items() if rows}
    found = {key: _over_questions([[row[key] for row in rows] for rows in answered.values()]) for key in ("strict", "flexible")}
    found["invalid"] = _over_questions([[int(row["verdict"] == "invalid") for row in rows] for rows in answered.values()])
    found["off_format"] = _over_questions(
        [[int(row["extracted"]["strict"] is None) for row in rows] for rows in answered.values()]
    )
    for key in means:
        found[key] = stats.mean([_mean([row[key] for row in rows]) for rows in answered.values()], (0.0, 1.0))
    if samples > 1:
        found |= _of_several(answered, samples)
    return found


def _of_several(answered: Mapping[str, Sequence[Row]], samples: int) -> dict[str, dict]:
    found = {"majority": stats.share(sum(_majority_is_right(rows) for rows in answered.values()), len(answered))}
    k = 1
    while k <= samples:  # the estimator needs k samples; a question with fewer answers is left out
        values = [
            stats.pass_at_k(len(rows), sum(row["flexible"] for row in rows), k) for rows in answered.values() if len(rows) >= k
        ]
        found[f"pass@{k}"] = stats.mean(values, (0.0, 1.0))
        k *= 2
    return found


def _majority_is_right(rows: Sequence[Row]) -> bool:
    winner = stats.majority([row["vote"] for row in rows])
    return winner is not None and bool(next(row["flexible"] for row in rows if row["vote"] == winner))


def _over_questions(values: Sequence[Sequence[int]]) -> dict:
    if all(len(v) == 1 for v in values):
        return stats.share(sum(v[0] for v in values), len(values))
    return stats.mean([_mean(v) for v in values], (0.0, 1.0))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _by_category(by_question: Mapping[str, Sequence[Row]], kind: str, samples: int, means: Sequence[str]) -> dict[str, dict]:
    groups: dict[str, dict[str, Sequence[Row]]] = defaultdict(dict)
    for i, rows in by_question.items():
        if kind in rows[0]["categories"]:
            groups[rows[0]["categories"][kind]][i] = rows
    return {name: scores(group, samples, means) for name, group in sorted(groups.items())}
