"""Parts of a reply that every extraction rule reads: thoughts, answer block, box.

A reply is text that a model wrote, of any length and shape, so everything here takes time linear in its length.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ragen.llm_agent.reply_format import parse_reply

_ANSWER_BLOCK = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
#: what can open, close or be escaped in a box: ``\boxed{``, ``\{``, ``{``, ``}``
_BRACES = re.compile(r"(?P<box>\\(?:boxed|fbox) ?\{)|\\[{}]|[{}]")
_NESTED = 2  # boxes directly in a box that are opened
_BARE_BOX = re.compile(r"\\boxed (\w+)")
_SPACES = re.compile(r"[^\S\n]+")
_LINES = re.compile(r" ?\n\s*")
_JOIN = re.compile(r"[$\\()\[\] ]*(?:,|and|or|, and|, or)[$\\()\[\] ]*")


class Extracted(NamedTuple):
    """``strict`` and ``flexible``: the answer, ``None`` for none. ``rule``: which one found the flexible one."""

    strict: str | None
    flexible: str | None
    rule: str = ""

    def as_row(self) -> dict[str, str | None]:
        return self._asdict()


def without_thoughts(text: str) -> str:
    """What follows the last ``</think>``."""
    return text.rsplit("</think>", 1)[-1]


def answer_block(text: str) -> str | None:
    """What the last ``<answer>...</answer>`` holds."""
    found = _ANSWER_BLOCK.findall(text)
    return found[-1].strip() or None if found else None


def outside_blocks(text: str) -> str:
    """``text`` without its answer blocks."""
    return _ANSWER_BLOCK.sub(" ", text)


def strict_text(reply: str, think: bool) -> str | None:
    """The answer of a reply that keeps the form, whatever it is."""
    parsed = parse_reply(reply, think)
    return parsed.answer or None if parsed.ok else None


def boxed(text: str) -> str | None:
    r"""What the last ``\boxed{...}`` (or ``\fbox``) with balanced braces holds, the outer one where a
    box is part of another. Boxes with nothing but a comma, "and" or "or" between them are one listing: ``\boxed{2}, \boxed{3}``
    gives ``2, 3``. A box without braces holds one word: ``\boxed 8``."""
    boxes = _boxes(squeezed(text))
    for _ in range(_NESTED):
        if len(boxes) == 1 and _BRACES.match(boxes[0]):
            boxes = _boxes(boxes[0]) or boxes
    return ", ".join(boxes) if boxes else None


def _boxes(text: str) -> list[str]:
    open_, closed = [], []  # places where a brace opened (-1: not a box); (start, end) of what outermost boxes hold
    for m in _BRACES.finditer(text):
        if m["box"]:
            open_.append(m.end())
        elif m[0] == "{":
            open_.append(-1)
        elif m[0] == "}" and open_ and (start := open_.pop()) >= 0 and text[start : m.start()].strip():
            while closed and closed[-1][0] > start:  # nested in this one
                closed.pop()
            closed.append((start, m.start()))
    if not closed:
        bare = _BARE_BOX.findall(text)
        return bare[-1:]
    last = len(closed) - 1
    while last and _JOIN.fullmatch(_between(text, closed[last - 1][1], closed[last][0])):
        last -= 1
    return [text[start:end].strip() for start, end in closed[last:]]


def _between(text: str, end: int, start: int) -> str:
    """What lies between a box that ends at ``end`` and the one that starts before ``start``, up to 40 characters."""
    between = text[end + 1 : min(start, end + 60)]
    return between.removesuffix("{").rstrip().removesuffix("boxed").removesuffix("fbox").removesuffix("\\")


def squeezed(text: str) -> str:
    """Runs of white space as one space, or one line break where they hold one: patterns need not count spaces."""
    return _LINES.sub("\n", _SPACES.sub(" ", text))


def half_width(text: str) -> str:
    """Full-width letters, digits and punctuation, as Chinese and Japanese text has them, in their usual form."""
    return unicodedata.normalize("NFKC", text)


#: a rule gives the answer, ``None`` where it finds nothing, or ``""`` where it finds that there is no single answer
Rule = Callable[[str], str | None]


def first(rules: Sequence[tuple[str, Rule]], text: str) -> tuple[str | None, str]:
    """(answer, rule) of the first rule that finds something, ``(None, rule)`` where what it finds is no single answer."""
    for name, rule in rules:
        found = rule(text)
        if found is not None:
            return found or None, name
    return None, ""
