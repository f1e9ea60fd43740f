"""Mathematics: MATH500, the SimpleRL-Zoo test file and GSM8K."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ragen.env.base import derived_rng
from ragen.env.math_lv3to5.judge import judge_many
from ragen.env.math_lv3to5.wording import INSTRUCTIONS
from ragen.eval import extract, protocol
from ragen.eval.data import Rows, Source, pick
from ragen.eval.prompts import Template
from ragen.eval.questions import Question, QuestionBenchmark

_USUAL_REQUEST = r"Reason step by step and put the final answer within \boxed{}."
_USUAL_FORM = r"The answer is \boxed{{answer}}."
_QUESTION = ("problem", "extra_info.question", "question")
_ANSWER = ("reward_model.ground_truth", "extra_info.answer", "answer", "gt_answer")


@dataclass(frozen=True)
class MathKind:
    """``numbers``: answers are plain numbers after ``####`` (GSM8K), compared as numbers."""

    name: str
    source: Source
    numbers: bool = False


MATH500 = MathKind("math500", Source("math/math500.jsonl", "HuggingFaceH4/MATH-500"))
SIMPLERL = MathKind(
    "simplerl_test",
    Source(
        "math/simplelr_qwen_level3to5/test.parquet",
        "hkust-nlp/SimpleRL-Zoo-Data",
        hub_file="simplelr_qwen_level3to5/test.parquet",
    ),
)
GSM8K = MathKind("gsm8k", Source("math/gsm8k_test.jsonl", "openai/gsm8k", "main"), numbers=True)


class MathBenchmark(QuestionBenchmark):
    """Answers are compared by the task's own judge under a time limit (``judge_timeout`` seconds of CPU time)."""

    def __init__(self, kind: MathKind, data: Rows, template: Template, judge_timeout: float = 5.0):
        self.name, self._kind, self._template, self._timeout = kind.name, kind, template, judge_timeout
        made = [self._question(row, place) for place, row in enumerate(data.rows)]
        self.questions = [question for question in made if question is not None]
        left_out = len(made) - len(self.questions)
        self.data = {**data.about, "left_out_empty": left_out}
        self.prompt = template.about(_USUAL_REQUEST, "one of the training's instructions")
        self.protocol, self.primary = template.protocol, "strict" if template.paper else "flexible"

    def _question(self, row: Mapping[str, Any], place: int) -> Question | None:
        where = f"{self.name}: row {place + 1}"
        text, gold = (str(pick(row, names, where)).strip() for names in (_QUESTION, _ANSWER))
        if self._kind.numbers:
            if "####" not in gold:
                raise ValueError(f"{where}: answer has no '#### number' at its end: {gold[-60:]!r}")
            gold = extract.number(gold.rsplit("####", 1)[1])
        if not text or not gold:
            return None
        item_id = str(row.get("unique_id") or place)
        request = derived_rng("maths", self.name, item_id).choice(INSTRUCTIONS)
        categories = {key: str(row[key]) for key in ("level", "subject") if row.get(key) is not None}
        return Question(item_id, self._template.turns(text, _USUAL_REQUEST, request), gold, categories)

    def grade(self, questions: Sequence[Question], replies: Sequence[str]) -> list[dict[str, Any]]:
        found = [self._extract(reply) for reply in replies]
        wanted = {
            (q.gold, answer)
            for q, e in zip(questions, found, strict=True)
            for answer in (e.strict, e.flexible)
            if answer is not None
        }
        pairs = sorted(wanted)  # each comparison once, however many samples agree
        right = dict(zip(pairs, judge_many([(gold, self._read(answer)) for gold, answer in pairs], self._timeout), strict=True))
        return [self._grade(question.gold, e, right) for question, e in zip(questions, found, strict=True)]

    def _extract(self, reply: str) -> extract.Extracted:
        return protocol.maths(reply) if self._template.paper else extract.maths(reply, self._template.think, self._template.usual)

    def _read(self, answer: str) -> str:
        return extract.number(answer) if self._kind.numbers else answer

    def _grade(self, gold: str, found: extract.Extracted, right: Mapping[tuple[str, str], bool]) -> dict[str, Any]:
        strict, flexible = (answer is not None and right[gold, answer] for answer in (found.strict, found.flexible))
        verdict = "invalid" if found.flexible is None else "correct" if flexible else "wrong"
        return {
            "extracted": found.as_row(), "strict": int(strict), "flexible": int(flexible),
            "vote": extract.vote(found.flexible), "verdict": verdict,
        }  # fmt: skip

    def scripted_reply(self, name: str, question: Question, rng: random.Random) -> str:
        """``random``: one of the numbers 0 to 9."""
        answer = {"random": str(rng.randrange(10)), "perfect": question.gold}[name]
        return self._template.reply(answer, _USUAL_FORM)
