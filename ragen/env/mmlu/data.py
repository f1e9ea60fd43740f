"""Questions from a JSON-lines file, read once a process, and the embedded sample."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ragen.env.mmlu.sample import SAMPLE

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Question(NamedTuple):
    """``answer``: place of the right choice, from 0."""

    question: str
    choices: tuple[str, ...]
    answer: int
    subject: str


@lru_cache(maxsize=32)
def load_questions(data_path: str | None, subjects: tuple[str, ...] | None) -> tuple[Question, ...]:
    """Questions of ``data_path`` (``None``: the embedded sample) on ``subjects``. Raises ``ValueError``
    naming file and line for a row that cannot be used, and if nothing is left."""
    rows = tuple(Question(*row) for row in SAMPLE) if data_path is None else _read(Path(data_path))
    chosen = tuple(q for q in rows if subjects is None or q.subject in subjects)
    if not chosen:
        there = ", ".join(sorted({q.subject for q in rows})[:20])
        raise ValueError(f"mmlu: subjects {subjects} pick no question of {data_path or 'the embedded sample'} (subjects: {there})")
    return chosen


def _read(path: Path) -> tuple[Question, ...]:
    if not path.is_file():
        raise ValueError(f"mmlu: data_path: there is no file {path}")
    questions = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            try:
                questions.append(_question(json.loads(line)))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"mmlu: {path} line {number}: needs question, choices and answer: {error!r}") from error
    return tuple(questions)


def _question(row: dict) -> Question:
    choices = tuple(map(str, row["choices"] if "choices" in row else row["options"]))
    answer = row["answer"]
    if isinstance(answer, str):
        answer = int(answer) if answer.isdigit() else LETTERS.index(answer.strip().upper())
    if not 0 <= answer < len(choices) <= len(LETTERS):
        raise ValueError(f"answer {row['answer']!r} is not one of {len(choices)} choices")
    return Question(str(row["question"]), choices, answer, str(row.get("subject") or row.get("category") or ""))
