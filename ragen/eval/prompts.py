"""How questions are put: as in training, or in the benchmark's usual form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ragen.eval.protocol import GIFT, PAPER
from ragen.llm_agent.reply_format import format_instruction

TEMPLATES = ("train", "usual")


@dataclass(frozen=True)
class Template:
    """``kind``: ``train`` (the sentence on ``<think>`` and ``<answer>`` that every trained prompt begins with,
    then the question) or ``usual`` (the question and the benchmark's own request for a form, e.g. a box).
    ``think``: of the training form. ``protocol``: who reads the reply, we or the paper
    (:mod:`ragen.eval.protocol`), which asks for the training form."""

    kind: str = "train"
    think: bool = True
    protocol: str = GIFT

    def __post_init__(self) -> None:
        if self.kind not in TEMPLATES:
            raise ValueError(f"--template must be one of {TEMPLATES}, got {self.kind!r}")
        if self.paper and (self.usual or not self.think):
            raise ValueError("the paper's protocol asks for <think> and <answer>: leave --template usual and --no-think out, or use --protocol gift")

    @property
    def paper(self) -> bool:
        return self.protocol == PAPER

    @property
    def usual(self) -> bool:
        return self.kind == "usual"

    def turns(self, question: str, usual_request: str, train_request: str) -> list[dict[str, str]]:
        """The messages for a question; the request is what the prompt asks for in each kind."""
        if self.usual:
            return [{"role": "user", "content": f"{question}\n{usual_request}"}]
        return [{"role": "user", "content": f"{format_instruction(self.think)}\n{question}\n{train_request}"}]

    def reply(self, answer: str, usual_form: str) -> str:
        """A reply in the form asked for, as scripted repliers give it. ``usual_form`` has an ``{answer}``."""
        if self.usual:
            return usual_form.replace("{answer}", answer)
        return f"{'<think></think>' if self.think else ''}<answer>{answer}</answer>"

    def about(self, usual_request: str, train_request: str) -> dict[str, Any]:
        """For the result file."""
        return {
            "template": self.kind,
            "think": None if self.usual else self.think,
            "request": usual_request if self.usual else train_request,
        }
