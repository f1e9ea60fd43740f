"""The core of every question benchmark: ask in chunks, grade, keep, sum up.

A benchmark says what its questions are and how a reply is graded; this file asks a replier, whoever it is,
and writes a result that a killed run can go on with.
"""

from __future__ import annotations

import logging
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ragen.env.base import derived_rng
from ragen.eval.cli import Settings
from ragen.eval.progress import Progress
from ragen.eval.protocol import GIFT
from ragen.eval.question_scores import summarise
from ragen.eval.results import ResultFiles, versions
from ragen.eval.samples import pick, tell_question
from ragen.llm_agent.episode import request_seed

logger = logging.getLogger(__name__)

#: what can become of a question; of the last two nothing is known of the model's answer, and no score counts them
ANSWERED, TOO_LONG, FAILED = "answered", "too_long", "failed"


@dataclass(frozen=True)
class Question:
    """``turns``: the messages before the reply, the system prompt aside. ``gold``: what is right, as the
    benchmark keeps it. ``categories``: kind of category -> this question's."""

    id: str
    turns: list[dict[str, str]]
    gold: Any
    categories: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """One reply that is wanted: a sample of a question."""

    question: Question
    sample: int
    seed: int


@dataclass(frozen=True)
class Answer:
    """What came back. ``tokens`` are (prompt, reply), ``None`` where nobody counts them. ``cut``: the reply
    ran into the token limit."""

    text: str = ""
    status: str = ANSWERED
    tokens: tuple[int | None, int | None] = (None, None)
    cut: bool = False
    error: str = ""


class QuestionBenchmark(ABC):
    """``data``: where the questions come from and their hash, ``prompt``: how they are asked; both go into
    the result. ``protocol``: whose reading of a reply. ``primary``: the score to compare by. ``means``: row keys that are averaged as they are
    (numbers of 0 to 1) besides the yes/no scores ``strict`` and ``flexible``."""

    name: str
    questions: Sequence[Question]
    data: Mapping[str, Any]
    prompt: Mapping[str, Any]
    protocol: str = GIFT
    primary = "flexible"
    means: tuple[str, ...] = ()

    @abstractmethod
    def grade(self, questions: Sequence[Question], replies: Sequence[str]) -> list[dict[str, Any]]:
        """For each reply: ``extracted`` (``strict``, ``flexible``, ``rule``), the scores ``strict`` and
        ``flexible`` (0 or 1), ``vote`` (what samples vote for, ``None`` for nothing) and ``verdict``
        (correct, wrong, invalid)."""

    @abstractmethod
    def scripted_reply(self, name: str, question: Question, rng: random.Random) -> str:
        """The reply of the scripted replier ``name`` (random, perfect), in the form that the prompt asks for."""

    def judge(self, questions: Sequence[Question], rows: list[dict[str, Any]], seed: int) -> None:  # noqa: B027  most have none
        """A second pass over graded rows (a judge model), which may add to them."""

    def summarise_more(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """``scores`` and ``counts`` that only this benchmark has."""
        return {}


def evaluate_questions(bench: QuestionBenchmark, settings: Settings, replier, samples: int = 1) -> dict[str, Any]:
    """Ask every question ``samples`` times and write the result; returns it. A killed run goes on after its
    last whole chunk; a finished one is returned as it is."""
    run = _describe(bench, settings, replier, samples)
    files = ResultFiles(settings.output, bench.name)
    if known := files.finished(run):
        logger.info("%s: already evaluated, nothing to do (%s)", bench.name, files.result)
        return known
    questions = bench.questions[: settings.limit]
    chunks = files.open_chunks(run)
    size = settings.chunk_size
    finished = min(len(chunks.done) * size, len(questions))
    progress = Progress(bench.name, len(questions) * samples, done=finished * samples)
    for start in range(finished, len(questions), size):
        started = time.perf_counter()
        rows = _ask(bench, questions[start : start + size], settings, replier, samples, progress)
        chunks.add({"rows": rows, "seconds": time.perf_counter() - started})
    progress.close()
    rows = [row for chunk in chunks.done for row in chunk["rows"]]
    seconds = sum(chunk["seconds"] for chunk in chunks.done)
    return files.write(run, summarise(bench, rows, samples, seconds), rows, _samples(rows))


def _describe(bench: QuestionBenchmark, settings: Settings, replier, samples: int) -> dict[str, Any]:
    return {
        "benchmark": bench.name,
        "protocol": bench.protocol,
        "model": replier.identity,
        "data": {**bench.data, "limit": settings.limit},
        "prompt": {**bench.prompt, "system_prompt": settings.system_prompt},
        "sampling": {**settings.sampling, "samples": samples},
        "seed": settings.seed,
        "chunk_size": settings.chunk_size,
        "versions": versions(),
    }


def _ask(
    bench: QuestionBenchmark, questions: Sequence[Question], settings: Settings, replier, samples: int, progress: Progress
) -> list[dict[str, Any]]:  # fmt: skip
    replier.new_chunk()
    requests = [
        Request(question, k, request_seed(settings.seed, "eval", bench.name, question.id, k))
        for question in questions
        for k in range(samples)
    ]
    answers = replier.reply(requests, bench, settings, progress.add)
    asked = [(request, answer) for request, answer in zip(requests, answers, strict=True) if answer.status == ANSWERED]
    grades = iter(bench.grade([request.question for request, _ in asked], [answer.text for _, answer in asked]))
    rows = [
        _row(request, answer, next(grades) if answer.status == ANSWERED else None)
        for request, answer in zip(requests, answers, strict=True)
    ]
    bench.judge([request.question for request in requests], rows, settings.seed)
    return rows


def _row(request: Request, answer: Answer, grade: Mapping[str, Any] | None) -> dict[str, Any]:
    question = request.question
    none = {"extracted": None, "strict": None, "flexible": None, "vote": None, "verdict": answer.status}
    row = {
        "id": question.id,
        "sample": request.sample,
        "categories": question.categories,
        "prompt": question.turns[-1]["content"],
        "reply": answer.text,
        "gold": question.gold,
        **(grade or none),
        "prompt_tokens": answer.tokens[0],
        "reply_tokens": answer.tokens[1],
        "cut": answer.cut,
    }
    row["success"] = row["flexible"]
    return row | ({"error": answer.error} if answer.error else {})


def scripted_text(bench: QuestionBenchmark, name: str, request: Request) -> str:
    """The scripted reply to a request; its randomness follows from the request's seed."""
    return bench.scripted_reply(name, request.question, derived_rng("scripted", name, request.seed))


def _samples(rows: Sequence[Mapping[str, Any]]) -> str:
    verdicts = ("correct", "wrong", "invalid", TOO_LONG, FAILED)
    return pick({verdict: [row for row in rows if row["verdict"] == verdict] for verdict in verdicts}, tell_question)
