"""The answer in a reply, by rules that stand here and are tested one by one.

``strict`` is what the form asked for holds, or nothing. ``flexible`` tries rules in turn; each returns the last
thing in the reply that matches it. Thoughts are not searched: what stands before the last ``</think>`` is
dropped first (an unclosed ``<think>`` drops nothing).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ragen.llm_agent.reply_format import parse_reply

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Extracted(NamedTuple):
    """``strict`` and ``flexible``: the answer, ``None`` for none. ``rule``: which one found the flexible one."""

    strict: str | None
    flexible: str | None
    rule: str = ""

    def as_row(self) -> dict[str, str | None]:
        return self._asdict()


_ANSWER_BLOCK = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_NUMBER = r"[-+]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?"
_LAST_NUMBER = re.compile(_NUMBER)
_HASHES = re.compile(r"####\s*(\S[^\n]*)")
_SAID = re.compile(r"(?:answer|result|solution)\s*(?:is|:|=)\s*:?\s*([^\n]+)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\.(?:\s|$)")
_LETTER_ALONE = re.compile(r"\(?\s*([A-Za-z])\s*\)?\s*[.:]?")
_LETTER_AND_TEXT = re.compile(r"\(?([A-Z])\)?\s*[.:)]?\s*(\S.*)", re.DOTALL)
_LETTER_SAID = re.compile(
    r"(?:(?i:answer|choice|option)(?:\s+(?i:is|was|would\s+be))?\s*(?::|\s)?\s*(?i:option\s+|choice\s+)?)[*$]{0,2}\(?\{?([A-Z])(?![A-Za-z'’])"
)


def answer_block(text: str) -> str | None:
    """What the last ``<answer>...</answer>`` holds."""
    found = _ANSWER_BLOCK.findall(text)
    return found[-1].strip() or None if found else None


def boxed(text: str) -> str | None:
    r"""What the last ``\boxed{...}`` (or ``\fbox``) with balanced braces holds."""
    for start in reversed([m.end() for m in re.finditer(r"\\(?:boxed|fbox)\s*\{", text)]):
        depth = 1
        for i in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[i], 0) if text[i - 1] != "\\" else 0
            if depth == 0:
                return text[start:i].strip() or None
    return None


def without_thoughts(text: str) -> str:
    """What follows the last ``</think>``."""
    return text.rsplit("</think>", 1)[-1]


# -- mathematics --------------------------------------------------------------------------------


def maths(reply: str, think: bool, usual: bool) -> Extracted:
    r"""Strict: the ``<answer>`` block of a reply that keeps the form, or (``usual``) the last ``\boxed{}``.
    Flexible, the first that is there: answer block (the box in it, if there is one), box, GSM8K's ``####``,
    "the answer is ...", last number."""
    strict = boxed(without_thoughts(reply)) if usual else _strict_block(reply, think)
    text = without_thoughts(reply)
    rules = (
        ("answer block", _block_or_box),
        ("boxed", boxed),
        ("####", lambda t: _last(_HASHES, t)),
        ("said", _said),
        ("last number", lambda t: _last(_LAST_NUMBER, t)),
    )
    return Extracted(strict, *_first(rules, text))


def number(text: str) -> str:
    """A number as GSM8K compares it: no thousands separators, currency or unit around its last number."""
    found = _last(_LAST_NUMBER, text)
    return (found or text).replace(",", "").replace("$", "").removeprefix("+").rstrip(".")


def vote(text: str | None) -> str | None:
    """What two samples must share to count as one answer: the text, spacing and case aside."""
    return None if text is None else re.sub(r"\s+|\\[!,;:]|\$", "", text).rstrip(".").casefold() or None


def _said(text: str) -> str | None:
    found = _last(_SAID, text)
    return None if found is None else _SENTENCE_END.split(found)[0].strip().strip("*").strip() or None


def _block_or_box(text: str) -> str | None:
    block = answer_block(text)
    return None if block is None else boxed(block) or block


# -- multiple choice ----------------------------------------------------------------------------


def choice(reply: str, think: bool, usual: bool, options: Sequence[str]) -> Extracted:
    """The letter of one of ``options``. Strict: a letter alone in the ``<answer>`` block of a reply that keeps
    the form, or (``usual``) "answer is X" / "answer: X" or nothing but a letter. Flexible: see :func:`letter`."""
    n = len(options)
    if usual:
        text = without_thoughts(reply)
        strict = said_letter(text, n) or _letter_alone(text, n)
    else:
        block = _strict_block(reply, think)
        strict = _letter_alone(block, n) if block is not None else None
    return Extracted(strict, *letter(reply, options))


def letter(reply: str, options: Sequence[str]) -> tuple[str | None, str]:
    """Flexible, the first that is there: in the answer block and, failing that, in the whole text: a letter
    alone; a letter with its option ("B. Paris"); an option's own text; a box with a letter; "answer is X" or
    "answer: X". (letter, rule)"""
    text, n = without_thoughts(reply), len(options)
    block = answer_block(text)
    rules = (
        ("letter alone", lambda t: _letter_alone(t, n)),
        ("letter and option", lambda t: _letter_and_option(t, options)),
        ("option text", lambda t: _option_text(t, options)),
        ("boxed letter", lambda t: _boxed_letter(t, n)),
        ("said", lambda t: said_letter(t, n)),
    )
    for part in (text,) if block is None else (block, text):
        found, rule = _first(rules, part)
        if found:
            return found, rule
    return None, ""


def said_letter(text: str, n: int) -> str | None:
    """The last "answer is X", "answer: X" with a capital letter of the first ``n`` that ends there
    ("the answer is A"; not "the answer is Any")."""
    return next((found for found in reversed(_LETTER_SAID.findall(text)) if found in LETTERS[:n]), None)


def _letter_alone(text: str, n: int) -> str | None:
    match = _LETTER_ALONE.fullmatch(text.strip())
    return match[1].upper() if match and match[1].upper() in LETTERS[:n] else None


def _letter_and_option(text: str, options: Sequence[str]) -> str | None:
    match = _LETTER_AND_TEXT.fullmatch(text.strip())
    if not match or match[1] not in LETTERS[: len(options)]:
        return None
    return match[1] if _plain(match[2]) == _plain(options[LETTERS.index(match[1])]) else None


def _option_text(text: str, options: Sequence[str]) -> str | None:
    said = _plain(text)
    places = [i for i, option in enumerate(options) if said and _plain(option) == said]
    return LETTERS[places[0]] if len(places) == 1 else None


def _boxed_letter(text: str, n: int) -> str | None:
    found = boxed(text)
    return _letter_alone(re.sub(r"\\text\{(.*)\}", r"\1", found), n) if found else None


def _plain(text: str) -> str:
    return text.strip().rstrip(".").casefold()


# -- shared -------------------------------------------------------------------------------------


def _strict_block(reply: str, think: bool) -> str | None:
    parsed = parse_reply(reply, think)
    return parsed.answer or None if parsed.ok else None


def strict_text(reply: str, think: bool) -> str | None:
    """The answer of a reply that keeps the form, whatever it is."""
    return _strict_block(reply, think)


def _last(pattern: re.Pattern, text: str) -> str | None:
    found = pattern.findall(text)
    return found[-1].strip() or None if found else None


def _first(rules, text: str) -> tuple[str | None, str]:
    for name, rule in rules:
        found = rule(text)
        if found is not None:
            return found, name
    return None, ""
