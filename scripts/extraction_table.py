"""How often each extraction rule is right, on replies that people labelled.

    GIFT_DATA=... python -m scripts.extraction_table            # as docs/evaluation.md has it
    GIFT_DATA=... python -m scripts.extraction_table --misses   # and every reply that is read otherwise than labelled

The labelled replies are in tests/eval/extraction (its README says who wrote and who labelled them). *Precision*: of the
replies that a rule decides when rules are tried in their order, the share read as labelled. *Recall*: of the replies
with an answer, the share that the rule alone reads as labelled. Rules were tuned on replies at even places of a file,
``held out`` are those at odd places; their author had read all of them when labelling, so the replies drawn afterwards are the fairer test.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ragen.eval import extract_letter, extract_maths
from ragen.eval.choice import MMLU, MMLU_PRO, SOCIAL, ChoiceBenchmark
from ragen.eval.data import load_rows
from ragen.eval.prompts import Template
from ragen.eval.reply_parts import answer_block, outside_blocks, squeezed, without_thoughts

_NUMBER_AND_UNIT = re.compile(r"([-$\\\d.,/]*\d)((?: (?!and\b|or\b)[A-Za-z]+){1,3})")
CASES = Path(__file__).parents[1] / "tests" / "eval" / "extraction"


@dataclass(frozen=True)
class Case:
    """``answers``: what the reply's answer may be read as, the label first; empty where it gives none. ``options``:
    the choices, of a multiple-choice question. ``pred``: what the data's own extractor read ("" for nothing)."""

    name: str
    reply: str
    answers: tuple[str, ...]
    options: tuple[str, ...] = ()
    pred: str | None = None


class Score(NamedTuple):
    """Counts of replies. ``decided``: read as something; ``right``: as labelled; ``answered``: labelled with an answer."""

    decided: int
    right: int
    answered: int

    @property
    def precision(self) -> float | None:
        return self.right / self.decided if self.decided else None

    @property
    def recall(self) -> float | None:
        return self.right / self.answered if self.answered else None


#: reads a reply: (case) -> (answer or None, rule)
Read = Callable[[Case], tuple[str | None, str]]


def read_choice(case: Case) -> tuple[str | None, str]:
    return extract_letter.letter(case.reply, case.options)


def read_maths(case: Case) -> tuple[str | None, str]:
    return extract_maths.maths(case.reply, True, False)[1:]


def choice_alone(rule: str) -> Read:
    """One rule of multiple choice by itself, in the answer block where there is one."""

    def read(case: Case) -> tuple[str | None, str]:
        text = without_thoughts(case.reply)
        part = answer_block(text) or outside_blocks(text)
        return extract_letter.RULES[rule](extract_letter.readable(part), case.options) or None, rule

    return read


def maths_alone(rule: str) -> Read:
    def read(case: Case) -> tuple[str | None, str]:
        text = squeezed(without_thoughts(extract_maths.usual_signs(case.reply)))
        return extract_maths.RULES[rule](text) or None, rule

    return read


def is_right(case: Case, found: str | None) -> bool:
    """Whether ``found`` is the label, spacing, dollar signs, a last full stop and a unit after a number aside."""
    wanted = {_normal(answer) for answer in case.answers}
    unit = _NUMBER_AND_UNIT.fullmatch(found or "")
    return found is not None and (_normal(found) in wanted or (unit is not None and _normal(unit[1]) in wanted))


def score(cases: Iterable[Case], read: Read, rule: str | None = None) -> Score:
    """Of all replies, or of those that ``rule`` decides."""
    decided = right = answered = 0
    for case in cases:
        found, by = read(case)
        answered += bool(case.answers)
        if found is not None and rule in (None, by):
            decided += 1
            right += is_right(case, found)
    return Score(decided, right, answered)


def halves(cases: Sequence[Case]) -> dict[str, Sequence[Case]]:
    return {"tuned on": cases[::2], "held out": cases[1::2]}


# -- labelled replies -----------------------------------------------------------------------------


def mistral() -> list[Case]:
    """210 replies of Mistral-7B-Instruct-v0.2 to MMLU-Pro, from ``$GIFT_DATA``."""
    folder = Path(os.environ["GIFT_DATA"]) / "mmlu_pro"
    with (CASES / "choice_mmlu_pro_labels.csv").open() as file:
        labels = {row["question_id"]: row["answer"] for row in csv.DictReader(file)}
    options, cases = _options(), []
    for row in _lines(folder / "model_outputs_sample.jsonl"):
        item = str(row["question_id"])
        answers = (labels[item],) if labels[item] else ()
        cases.append(Case(item, row["generated_text"], answers, options["mmlu_pro", item], row["pred"] or ""))
    return cases


def smollm2_choice(file: str = "choice_smollm2") -> list[Case]:
    """Replies of SmolLM2-135M-Instruct to this evaluation's prompts: 132, or 33 that were drawn after the rules were done
    (``choice_fresh``). The options are in ``$GIFT_DATA``."""
    options = _options()
    return [
        Case(row["id"], row["reply"], _answers(row), options[row["benchmark"], row["question"]])
        for row in _lines(CASES / f"{file}.jsonl")
    ]


def written_choice() -> list[Case]:
    return [
        Case(row["id"], row["reply"], _answers(row), tuple(row["choices"] or (f"choice {i} of many" for i in range(row["options"]))))
        for row in _lines(CASES / "choice_written.jsonl")
    ]


def maths(which: str) -> list[Case]:
    """``which``: ``smollm2`` (54 real replies to GSM8K and MATH500) or ``written``."""
    return [Case(row["id"], row["reply"], _answers(row)) for row in _lines(CASES / f"maths_{which}.jsonl")]


def _options() -> dict[tuple[str, str], tuple[str, ...]]:
    """(benchmark, question) -> its choices."""
    found = {}
    for kind in (MMLU, MMLU_PRO, SOCIAL):
        for question in ChoiceBenchmark(kind, load_rows(None, kind.source), Template()).questions:
            found[kind.name, question.id] = tuple(question.details["choices"])
    return found


def _answers(row: dict) -> tuple[str, ...]:
    return (() if row["answer"] is None else (row["answer"],)) + tuple(row.get("also", ()))


def _lines(path: Path) -> list[dict]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _normal(text: str) -> str:
    return "".join(text.split()).replace("$", "").rstrip(".")


# -- the table ------------------------------------------------------------------------------------


def table(title: str, cases: Sequence[Case], read: Read, alone: Callable[[str], Read], rules: Iterable[str], tuned: bool = True) -> str:
    """A Markdown table, a rule a line, then all of them in their order; ``tuned``: and on both halves of the replies."""
    pred = cases[0].pred is not None
    read = _once(read)
    lines = [
        f"{title}: {len(cases)} replies, {sum(bool(c.answers) for c in cases)} with an answer",
        "",
        "| rule | decides | right | precision | recall, alone |" + (" agrees with `pred` |" if pred else ""),
        "| --- | --- | --- | --- | --- |" + (" --- |" if pred else ""),
    ]
    for rule in rules:
        told, by_itself = score(cases, read, rule), score(cases, alone(rule))
        if told.decided or by_itself.decided:
            lines.append(_row(rule, told, by_itself.recall) + (_agreement(cases, read, rule) if pred else ""))
    for name, part in {"all": cases, **(halves(cases) if tuned else {})}.items():
        told = score(part, read)
        lines.append(_row(f"**{name}**", told, told.recall) + (_agreement(part, read) if pred else ""))
    return "\n".join(lines)


def _once(read: Read) -> Read:
    """``read``, each case once."""
    known: dict[str, tuple[str | None, str]] = {}

    def remembered(case: Case) -> tuple[str | None, str]:
        if case.name not in known:
            known[case.name] = read(case)
        return known[case.name]

    return remembered


def _row(name: str, told: Score, recall: float | None) -> str:
    shares = " | ".join("" if share is None else f"{share:.3f}" for share in (told.precision, recall))
    return f"| {name} | {told.decided} | {told.right} | {shares} |"


def _agreement(cases: Sequence[Case], read: Read, rule: str | None = None) -> str:
    readings = [(case, *read(case)) for case in cases]
    mine = [(case.pred, found or "") for case, found, by in readings if rule is None or (found and by == rule)]
    return f" {sum(a == b for a, b in mine)} of {len(mine)} |"


def misses(cases: Iterable[Case], read: Read) -> str:
    lines = []
    for case in cases:
        found, rule = read(case)
        if (found is not None or case.answers) and not is_right(case, found):
            reply = case.reply if len(case.reply) < 300 else f"{case.reply[:120]} ... {case.reply[-160:]}"
            lines.append(f"{case.name}: labelled {case.answers or None}, read {found!r} by {rule or 'no rule'}: {reply!r}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--misses", action="store_true", help="print every reply that is read otherwise than labelled")
    args = parser.parse_args()
    if "GIFT_DATA" not in os.environ:
        parser.error("GIFT_DATA is not set: it must name the folder with mmlu/, mmlu_pro/ and social_i_qa/")
    for title, cases, choices in (
        ("Multiple choice, Mistral-7B on MMLU-Pro", mistral(), True),
        ("Multiple choice, SmolLM2-135M on our prompts", smollm2_choice(), True),
        ("Multiple choice, SmolLM2-135M, drawn and labelled afterwards", smollm2_choice("choice_fresh"), True),
        ("Multiple choice, written for shapes that those lack", written_choice(), True),
        ("Maths, SmolLM2-135M on our prompts", maths("smollm2"), False),
        ("Maths, written", maths("written"), False),
    ):
        read, alone = (read_choice, choice_alone) if choices else (read_maths, maths_alone)
        print(table(title, cases, read, alone, (extract_letter if choices else extract_maths).RULES, "afterwards" not in title), end="\n\n")
        if args.misses:
            print(misses(cases, read), end="\n\n")


if __name__ == "__main__":
    main()
