"""The form of a reply: ``<think>...</think><answer>...</answer>``, or the answer block alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LAST_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


@dataclass(frozen=True)
class ParsedReply:
    """``ok``: the reply follows the form; ``answer`` and ``thought`` are stripped of white space."""

    ok: bool
    answer: str = ""
    thought: str = ""


def format_instruction(enable_think: bool) -> str:
    """The sentence that tells a policy how to reply."""
    if enable_think:
        return "Reply as <think>your thoughts</think><answer>your answer</answer>."
    return "Reply as <answer>your answer</answer>."


def format_feedback(enable_think: bool) -> str:
    """What a policy is told after a reply off the form."""
    return "That reply was not in the form asked for. " + format_instruction(enable_think)


def parse_reply(text: str, enable_think: bool) -> ParsedReply:
    """Strict reading of a policy's reply: the blocks, each once, and nothing beside them. In time linear in the text."""
    thought, rest = "", text.strip()
    if enable_think:
        head, closed, rest = rest.partition("</think>")
        if not closed or not head.startswith("<think>"):
            return ParsedReply(False)
        thought, rest = head.removeprefix("<think>"), rest.lstrip()
    if not rest.startswith("<answer>") or not rest.endswith("</answer>"):
        return ParsedReply(False)
    answer = rest.removeprefix("<answer>").removesuffix("</answer>")
    if any(tag in thought or tag in answer for tag in _TAGS):
        return ParsedReply(False)
    return ParsedReply(True, answer.strip(), thought.strip())


def in_thought(text: str) -> bool:
    """Whether ``text`` ends inside a thought: the last ``<think>`` is not closed."""
    return text.rfind("<think>") > text.rfind("</think>")


def with_opening(text: str) -> str:
    """``text`` with the ``<think>`` that a server's chat template wrote for the model, where only its end came back."""
    opened, closed = text.find("<think>"), text.find("</think>")
    return f"<think>{text}" if closed >= 0 and not 0 <= opened < closed else text


def find_answer(text: str) -> str:
    """Lenient reading, for players that are not trained: the last answer block, else what is left
    once thoughts are removed (all before a ``</think>`` that was never opened included)."""
    blocks = _LAST_ANSWER.findall(text)
    return (blocks[-1] if blocks else _THOUGHTS.sub("", with_opening(text))).strip()
