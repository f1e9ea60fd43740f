"""Two sets of evaluation rules: ours (``gift``) and the paper's (``paper``), chosen by ``--protocol``.

What ``paper`` changes, after the reference implementation's evaluation scripts (arXiv 2601.05633; every difference that
remains is in docs/fidelity.md):

- games: an off-form or illegal reply ends the game, which is not won; an opponent has one attempt, and its illegal move
  ends the game too; each turn is asked without the turns before it; the first move against X is uniform; voters are told
  what their role aims at; the reply is read by the functions below;
- questions: the text between ``<answer>`` and ``</answer>`` is all that is read, whatever is around it;
- decoding and prompt: :data:`PAPER_SETTINGS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ragen.eval.extract import Extracted
from ragen.llm_agent.reply_format import ParsedReply

GIFT, PAPER = "gift", "paper"
PROTOCOLS = (GIFT, PAPER)

#: settings that the paper's protocol fixes; ``max_turn`` ``None``: the benchmark's own
PAPER_SETTINGS: dict[str, Any] = {
    "system_prompt": "You're a helpful assistant. ", "think": True, "temperature": 0.5, "top_p": 1.0, "top_k": -1,
    "max_tokens": 600, "max_turn": None, "window": -1, "forfeit_on_invalid": True,
}  # fmt: skip

#: ``(reply, enable_think) -> ParsedReply``, as :func:`ragen.llm_agent.reply_format.parse_reply`
Read = Callable[[str, bool], ParsedReply]

_OPEN, _CLOSE = "<answer>", "</answer>"
_THOUGHT_THEN_ANSWER = re.compile(r"</think>\s*<answer>")
_CELL = re.compile(r"\(\s*(\d+)\s*,\s*(\d+)\s*\)")


def settings_of(protocol: str, layers: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """``layers`` (all settings) under ``protocol``; ``given`` are those of the command line. Raises ``ValueError`` where
    the command line contradicts the protocol."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"--protocol must be one of {PROTOCOLS}, got {protocol!r}")
    if protocol == GIFT:
        return dict(layers)
    for key, value in PAPER_SETTINGS.items():
        if given.get(key, value) != value:
            fixed = "the benchmark's own" if value is None else repr(value)
            raise ValueError(f"--{key} {given[key]!r}: the paper's protocol has {fixed}; leave the option out, or use --protocol gift")
    return {**layers, **PAPER_SETTINGS}


def of_result(result: Mapping[str, Any]) -> str:
    """The protocol of a result; results older than the option are ours."""
    return result.get("protocol", GIFT)


# -- games ----------------------------------------------------------------------------------------


def game_limits(read: Read) -> dict[str, Any]:
    """The paper's fields of :class:`ragen.llm_agent.episode.EpisodeLimits`."""
    return {"forfeit_on_invalid": True, "opponent_retries": 0, "window": -1, "read": read}


def read_form(text: str, enable_think: bool) -> ParsedReply:
    """``<think>..</think><answer>..</answer>`` at the end of the reply; anything may precede it."""
    body = text.removesuffix("\n")
    ends = [match.span() for match in _THOUGHT_THEN_ANSWER.finditer(body)]
    if not ends or not body.endswith(_CLOSE):
        return ParsedReply(False)
    opened = body.rfind("<think>", 0, ends[-1][0])
    if opened < 0:
        return ParsedReply(False)
    thought_end, answer_start = next(span for span in ends if span[0] >= opened)
    if answer_start > len(body) - len(_CLOSE):
        return ParsedReply(False)
    return ParsedReply(True, body[answer_start : -len(_CLOSE)].strip(), body[opened + len("<think>") : thought_end].strip())


def read_cell(text: str, enable_think: bool) -> ParsedReply:
    """Tic-tac-toe: the form, and in its answer the first ``(row,column)``."""
    parsed = read_form(text, enable_think)
    cell = _CELL.search(parsed.answer)
    return ParsedReply(True, f"({cell[1]},{cell[2]})", parsed.thought) if cell else ParsedReply(False)


def read_action(text: str, enable_think: bool) -> ParsedReply:
    """Matrix games: an answer block that is a number and nothing else; the form around it does not count."""
    answer = (answer_block(text) or "").strip()
    return ParsedReply(answer.isdecimal(), answer)


# -- questions ------------------------------------------------------------------------------------


def answer_block(text: str) -> str | None:
    """The text from the first ``<answer>`` to the last ``</answer>``, thoughts included; ``None`` without both."""
    start, end = text.find(_OPEN), text.rfind(_CLOSE)
    return text[start + len(_OPEN) : end] if 0 <= start <= end - len(_OPEN) else None


def choice(reply: str, last_letter: str) -> Extracted:
    """The first capital letter from A to ``last_letter`` in the answer block that no letter precedes and a full stop,
    white space or the block's end follows."""
    block = answer_block(reply)
    found = re.search(rf"(?<![A-Za-z])[A-{last_letter}](?=[.\s]|\Z)", block.strip()) if block is not None else None
    letter = found[0] if found else None
    return Extracted(letter, letter, "answer block" if letter else "")


def maths(reply: str) -> Extracted:
    """Strict: the answer block. Flexible: the block, or the whole reply where there is none."""
    block = (answer_block(reply) or "").strip() or None
    if answer_block(reply) is not None:
        return Extracted(block, block, "answer block" if block else "")
    return Extracted(None, reply.strip() or None, "whole reply")


def sentence(reply: str) -> Extracted:
    """CommonGen: the answer block or nothing."""
    block = (answer_block(reply) or "").strip() or None
    return Extracted(block, block, "answer block" if block else "")
