"""A judge model compares a sentence with a person's; which stands first is drawn by the seed."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from ragen.env.base import derived_rng
from ragen.eval.commongen_words import bare
from ragen.eval.extract import answer_block, without_thoughts
from ragen.llm_agent.episode import request_seed
from ragen.players.base import PlayerError

logger = logging.getLogger(__name__)

WIN, TIE, LOSS = "win", "tie", "loss"

#: asks a judge: (messages, seed) -> a future of an object with the reply's ``text``, or of a string
Ask = Callable[[list[dict[str, str]], int], Future]
#: id, concepts, the model's sentence (``None``: it gave none), the human references
Case = tuple[str, Sequence[str], str | None, Sequence[str]]

_PROMPT = """Two people each wrote a sentence that should use all of these words, in any form: {concepts}.

A: {a}
B: {b}

Which sentence is better: does it use all the words, does it make sense, is it fluent and natural? A missing word weighs most.
Reply with <answer>A</answer>, <answer>B</answer>, or <answer>tie</answer> if they are equally good."""
_VERDICT = re.compile(r"\W*(?:sentence\s+)?(a|b|tie)\b\W*", re.IGNORECASE)


class WinOrTie:
    """``attempts``: how often a judge is asked whose verdict cannot be read (A, B or tie). A judge that fails
    (:class:`PlayerError`, after the client's own retries) is asked again within the same limit. What stays
    without a verdict is unjudged: neither win nor loss. ``about``: who judges, for the result file."""

    def __init__(self, ask: Ask, about: dict[str, Any], attempts: int = 3):
        self._ask, self._attempts = ask, attempts
        self.about = {**about, "attempts": attempts}

    def compare(self, cases: Sequence[Case], seed: int) -> list[dict[str, Any]]:
        """For each case ``result`` (win, tie, loss of the model; ``None``: unjudged), ``model_is`` (A or B),
        ``reference``, ``verdicts`` (what the judge said) and ``attempts``. A model without a sentence loses unasked."""
        judged = [self._prepare(case, seed) for case in cases]
        open_places = [i for i, case in enumerate(cases) if case[2] is not None]
        for attempt in range(self._attempts):
            futures = [self._ask(judged[i]["messages"], request_seed(seed, "judge", cases[i][0], attempt)) for i in open_places]
            for i, future in zip(open_places, futures, strict=True):
                self._take(judged[i], future)
            open_places = [i for i in open_places if judged[i]["result"] is None]
        if open_places:
            logger.warning("%d comparisons stay unjudged after %d attempts each", len(open_places), self._attempts)
        for one in judged:
            one.pop("messages")
        return judged

    def _prepare(self, case: Case, seed: int) -> dict[str, Any]:
        item, concepts, said, references = case
        rng = derived_rng("win or tie", seed, item)
        reference, first = rng.choice(list(references)), rng.random() < 0.5
        if said is None:
            return {"result": LOSS, "model_is": None, "reference": reference, "verdicts": [], "attempts": 0, "messages": []}
        a, b = (said, reference) if first else (reference, said)
        text = _PROMPT.format(concepts=", ".join(map(bare, concepts)), a=" ".join(a.split()), b=" ".join(b.split()))
        return {
            "result": None, "model_is": "A" if first else "B", "reference": reference, "verdicts": [], "attempts": 0,
            "messages": [{"role": "user", "content": text}],
        }  # fmt: skip

    def _take(self, judged: dict[str, Any], future: Future) -> None:
        judged["attempts"] += 1
        try:
            said = future.result()
        except PlayerError as failure:
            judged["verdicts"].append(f"failed: {failure}")
            return
        text = said if isinstance(said, str) else said.text
        judged["verdicts"].append(text[-200:])
        verdict = read_verdict(text)
        if verdict == TIE:
            judged["result"] = TIE
        elif verdict is not None:
            judged["result"] = WIN if verdict == judged["model_is"] else LOSS


def read_verdict(text: str) -> str | None:
    """``A``, ``B`` or ``tie``: what the last answer block says, or the whole reply where it says nothing else."""
    text = without_thoughts(text)
    match = _VERDICT.fullmatch(answer_block(text) or text.strip())
    return None if match is None else TIE if match[1].lower() == TIE else match[1].upper()
