"""CommonGen: one sentence that holds all concepts. Coverage is computed; whether the sentence is as good as a
person's is for a judge model to say."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from ragen.eval import extract, protocol, stats
from ragen.eval.commongen_words import bare, covered
from ragen.eval.data import Rows, Source, pick
from ragen.eval.prompts import Template
from ragen.eval.questions import Question, QuestionBenchmark
from ragen.eval.win_or_tie import LOSS, TIE, WIN, WinOrTie

SOURCE = Source("commongen/commongen_lite.jsonl", "allenai/commongen_lite", None, "train")
_PARTS = {"N": "noun", "V": "verb"}
_REQUEST = "Reply with the sentence."
_USUAL_REQUEST = "Reply with the sentence alone."


class CommonGenBenchmark(QuestionBenchmark):
    """Scores: ``coverage`` (mean share of concepts in the sentence of the flexible reading), ``strict`` and
    ``flexible`` (all concepts are there), and with a ``judge`` ``win_or_tie`` against one of the row's human
    references. Rows without references are asked and covered, not judged, and counted as ``without_references``."""

    name = "commongen"
    means = ("coverage",)

    def __init__(self, data: Rows, template: Template, judge: WinOrTie | None = None):
        self._template, self._judge, self.protocol = template, judge, template.protocol
        self.primary = "win_or_tie" if judge else "flexible"
        self.questions = [self._question(row, place) for place, row in enumerate(data.rows)]
        self.data = data.about
        self.prompt = {**template.about(_USUAL_REQUEST, _REQUEST), "judge": judge.about if judge else None}

    def _question(self, row: Mapping[str, Any], place: int) -> Question:
        where = f"{self.name}: row {place + 1}"
        concepts = pick(row, ("concept_set", "concepts"), where)
        if isinstance(concepts, str) or not concepts:
            raise ValueError(f"{where}: concept_set must be a list of words, got {concepts!r}")
        references = [_reference(r, where) for r in row.get("human_annotations") or ()]
        turns = self._template.turns(_task(list(concepts)), _USUAL_REQUEST, _REQUEST)
        item_id = str(row["id"]) if row.get("id") is not None else str(place)
        return Question(item_id, turns, list(concepts), {"concepts": str(len(concepts))}, {"references": references})

    def grade(self, questions: Sequence[Question], replies: Sequence[str]) -> list[dict[str, Any]]:
        return [self._grade(question, reply) for question, reply in zip(questions, replies, strict=True)]

    def _grade(self, question: Question, reply: str) -> dict[str, Any]:
        paper = self._template.paper
        found = protocol.sentence(reply) if paper else sentence(reply, self._template.think, self._template.usual)
        strict, flexible = (covered(question.gold, text or "") for text in (found.strict, found.flexible))
        verdict = "invalid" if found.flexible is None else "correct" if all(flexible) else "wrong"
        return {
            "extracted": found.as_row(), "strict": int(all(strict)), "flexible": int(all(flexible)),
            "coverage": sum(flexible) / len(flexible), "vote": extract.vote(found.flexible), "verdict": verdict,
        }  # fmt: skip

    def judge(self, questions: Sequence[Question], rows: list[dict[str, Any]], seed: int) -> None:
        if self._judge is None:
            return
        wanted = [
            (q, row) for q, row in zip(questions, rows, strict=True) if q.details["references"] and row["extracted"] is not None
        ]
        cases = [(f"{q.id}/{row['sample']}", q.gold, row["extracted"]["flexible"], q.details["references"]) for q, row in wanted]
        for (_, row), judged in zip(wanted, self._judge.compare(cases, seed), strict=True):
            row["judged"] = judged

    def summarise_more(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        if self._judge is None:
            return {}
        judged = [row["judged"] for row in rows if "judged" in row]
        results = [j["result"] for j in judged if j["result"] is not None]
        answered = [row for row in rows if row["extracted"] is not None]
        counts = {
            "without_references": len(answered) - len(judged),
            "judged": len(results),
            "unjudged": len(judged) - len(results),
        }
        tally = {name: results.count(name) for name in (WIN, TIE, LOSS)}
        return {
            "counts": counts | {"judge_retries": sum(j["attempts"] - 1 for j in judged if j["attempts"])},
            "scores": {
                "win_or_tie": stats.share(tally[WIN] + tally[TIE], len(results)),
                **{n: stats.share(tally[n], len(results)) for n in tally},
            },
        }

    def scripted_reply(self, name: str, question: Question, rng: random.Random) -> str:
        """``perfect`` names every concept, ``random`` each with probability one half."""
        concepts = [bare(c) for c in question.gold]
        chosen = {"perfect": lambda: concepts, "random": lambda: [c for c in concepts if rng.random() < 0.5]}[name]()
        return self._template.reply(f"There is {', '.join(chosen) or 'nothing'}.", "{answer}")


def sentence(reply: str, think: bool, usual: bool) -> extract.Extracted:
    """The sentence in a reply. Strict: the answer block of a reply that keeps the form, or (``usual``) a reply
    of one line. Flexible: the answer block, else the first line that is not empty after thoughts, without a
    leading "Sentence:" and quotation marks."""
    text = extract.without_thoughts(reply).strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    strict = (lines[0] if len(lines) == 1 else None) if usual else extract.strict_text(reply, think)
    block = extract.answer_block(text)
    if block is not None:
        return extract.Extracted(strict, block, "answer block")
    if not lines or lines[0].startswith("<"):
        return extract.Extracted(strict, None)
    first = lines[0].removeprefix("- ").removeprefix("Sentence:").strip().strip('"“”')
    return extract.Extracted(strict, first or None, "first line")


def _task(concepts: Sequence[str]) -> str:
    named = [f"{bare(c)} ({_PARTS[c[-1]]})" if c[-2:-1] == "_" and c[-1] in _PARTS else c for c in concepts]
    return f"Write one short, simple sentence about everyday life that uses all of these words, in any form: {', '.join(named)}."


def _reference(value: Any, where: str) -> str:
    text = value.get("ref") if isinstance(value, Mapping) else value
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{where}: human_annotations must hold sentences or objects with a 'ref', got {value!r}")
    return text.strip()
