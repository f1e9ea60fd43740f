"""Multiple choice: MMLU, MMLU-Pro and SocialIQA."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ragen.env.base import derived_rng
from ragen.env.mmlu.env import INSTRUCTIONS
from ragen.eval import extract, protocol
from ragen.eval.data import Rows, Source, pick
from ragen.eval.extract import LETTERS
from ragen.eval.prompts import Template
from ragen.eval.questions import Question, QuestionBenchmark

_USUAL_REQUEST = 'Think step by step, then finish with "The answer is (X)", where X is the letter of the right choice.'
_USUAL_FORM = "The answer is ({answer})."


@dataclass(frozen=True)
class Item:
    """One question with its choices. ``right``: place of the right one. ``thoughts``: worked reasoning that
    a few-shot example may show."""

    id: str
    question: str
    choices: tuple[str, ...]
    right: int
    category: str
    thoughts: str = ""


@dataclass(frozen=True)
class ChoiceKind:
    """A benchmark's fields: ``read(row, place, where)`` makes an :class:`Item`. ``category``: kind of category.
    ``paper_letters``: the last letter that the paper's reading knows."""

    name: str
    source: Source
    few_shot_source: Source | None
    category: str | None
    read: Callable[[Mapping[str, Any], int, str], Item]
    paper_letters: str = "D"


class ChoiceBenchmark(QuestionBenchmark):
    """``examples``: few-shot items, of which each question is shown up to ``shots`` of its own category."""

    def __init__(self, kind: ChoiceKind, data: Rows, template: Template, examples: Rows | None = None, shots: int = 0):
        self.name, self._template, self.protocol, self._paper_letters = kind.name, template, template.protocol, kind.paper_letters
        if template.paper and shots:
            raise ValueError(f"--shots {shots}: the paper's protocol shows no examples; leave the option out, or use --protocol gift")
        items = _items(kind, data)
        by_category: dict[str, list[Item]] = {}
        for item in _items(kind, examples) if examples else ():
            by_category.setdefault(item.category, []).append(item)
        short = sorted({i.category for i in items if len(by_category.get(i.category, ())) < shots})
        if short:
            raise ValueError(
                f"--shots {shots}: {kind.few_shot_source.file if kind.few_shot_source else kind.name} "
                f"has fewer examples of {', '.join(short[:5])}"
            )
        self.questions = [self._question(kind, item, by_category.get(item.category, [])[:shots]) for item in items]
        self.data = {**data.about, "few_shot": examples.about if examples else None}
        self.prompt = {**template.about(_USUAL_REQUEST, "one of the training's instructions"), "shots": shots}

    def _question(self, kind: ChoiceKind, item: Item, examples: Sequence[Item]) -> Question:
        # which of the instructions: a function of the question alone, so that models are compared on one prompt
        request = derived_rng("choice", kind.name, item.id).choice(INSTRUCTIONS)
        turns = []
        for example in examples:
            turns += self._template.turns(_text(example), _USUAL_REQUEST, request)
            turns.append({"role": "assistant", "content": self._shown(example)})
        turns += self._template.turns(_text(item), _USUAL_REQUEST, request)
        categories = {kind.category: item.category} if kind.category else {}
        return Question(item.id, turns, LETTERS[item.right], categories, {"choices": item.choices})

    def _shown(self, example: Item) -> str:
        answer = LETTERS[example.right]
        if self._template.usual:
            return f"{example.thoughts} {_USUAL_FORM}".strip().replace("{answer}", answer)
        thoughts = f"<think>{example.thoughts}</think>" if self._template.think else ""
        return f"{thoughts}<answer>{answer}</answer>"

    def grade(self, questions: Sequence[Question], replies: Sequence[str]) -> list[dict[str, Any]]:
        return [self._grade(question, reply) for question, reply in zip(questions, replies, strict=True)]

    def _grade(self, question: Question, reply: str) -> dict[str, Any]:
        if self._template.paper:
            found = protocol.choice(reply, self._paper_letters)
        else:
            found = extract.choice(reply, self._template.think, self._template.usual, question.details["choices"])
        flexible = int(found.flexible == question.gold)
        verdict = "invalid" if found.flexible is None else "correct" if flexible else "wrong"
        return {
            "extracted": found.as_row(), "strict": int(found.strict == question.gold), "flexible": flexible,
            "vote": found.flexible, "verdict": verdict,
        }  # fmt: skip

    def scripted_reply(self, name: str, question: Question, rng: random.Random) -> str:
        letters = LETTERS[: len(question.details["choices"])]
        return self._template.reply({"random": rng.choice(letters), "perfect": question.gold}[name], _USUAL_FORM)


def _text(item: Item) -> str:
    return item.question + "\n" + "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, item.choices, strict=False))


def _items(kind: ChoiceKind, data: Rows) -> list[Item]:
    return [kind.read(row, place, f"{kind.name}: row {place + 1}") for place, row in enumerate(data.rows)]


def _listed(value: Any, where: str) -> tuple[str, ...]:
    """Choices as a list, also where a CSV file holds its text."""
    if isinstance(value, str):
        import ast

        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            raise ValueError(f"{where}: choices must be a list, got {value[:60]!r}") from None
    return tuple(map(str, value))


def _place(answer: Any, choices: int, where: str) -> int:
    """0, "0" or "A" -> 0. Raises ``ValueError`` for what is none of the choices."""
    text = str(answer).strip()
    place = int(text) if text.isdigit() else LETTERS.index(text) if len(text) == 1 and text in LETTERS else -1
    if not 0 <= place < choices:
        raise ValueError(f"{where}: answer {answer!r} is none of {choices} choices")
    return place


def _mmlu(row: Mapping[str, Any], place: int, where: str) -> Item:
    if "choices" not in row and "A" in row:  # the original CSV files: question, A, B, C, D, answer
        choices = tuple(str(row[letter]) for letter in LETTERS if letter in row)
    else:
        choices = _listed(pick(row, ("choices",), where), where)
    right = _place(pick(row, ("answer",), where), len(choices), where)
    return Item(str(place), str(pick(row, ("question",), where)), choices, right, str(pick(row, ("subject",), where)))


def _mmlu_pro(row: Mapping[str, Any], place: int, where: str) -> Item:
    choices = _listed(pick(row, ("options",), where), where)
    right = _place(pick(row, ("answer_index", "answer"), where), len(choices), where)
    thoughts = str(row.get("cot_content") or "").removeprefix("A:").strip()
    thoughts = thoughts.rsplit("The answer is", 1)[0].strip()
    item_id = str(row["question_id"]) if row.get("question_id") is not None else str(place)
    return Item(item_id, str(pick(row, ("question",), where)), choices, right, str(pick(row, ("category",), where)), thoughts)


def _social(row: Mapping[str, Any], place: int, where: str) -> Item:
    context, question = (str(pick(row, (name,), where)) for name in ("context", "question"))
    choices = tuple(str(pick(row, (name,), where)) for name in ("answerA", "answerB", "answerC"))
    label = str(pick(row, ("label",), where)).strip()
    if label not in ("1", "2", "3", "A", "B", "C"):
        raise ValueError(f"{where}: label {label!r} is none of 1, 2, 3 (rows without labels need --labels FILE.lst)")
    right = int(label) - 1 if label.isdigit() else LETTERS.index(label)
    return Item(str(place), f"{context}\n{question}", choices, right, "")


MMLU = ChoiceKind(
    "mmlu", Source("mmlu/mmlu_test_sample.jsonl", "cais/mmlu", "all"), Source("mmlu/mmlu_dev.jsonl", "cais/mmlu", "all", "dev"),
    "subject", _mmlu,
)  # fmt: skip
MMLU_PRO = ChoiceKind(
    "mmlu_pro", Source("mmlu_pro/mmlu_pro_test_sample.jsonl", "TIGER-Lab/MMLU-Pro"),
    Source("mmlu_pro/mmlu_pro_validation.jsonl", "TIGER-Lab/MMLU-Pro", None, "validation"), "category", _mmlu_pro, "J",
)  # fmt: skip
#: allenai/social_i_qa is a loading script, which `datasets` no longer runs; this is the same data as parquet
SOCIAL = ChoiceKind("social_i_qa", Source("social_i_qa/dev.jsonl", "lighteval/siqa", None, "validation"), None, None, _social)
