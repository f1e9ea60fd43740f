"""The answer in a reply: what callers use, from where it is written.

``strict`` is what the form asked for holds, or nothing. ``flexible`` tries rules in turn. Thoughts are not searched: what
stands before the last ``</think>`` is dropped first (an unclosed ``<think>`` drops nothing).
"""

from __future__ import annotations

from ragen.eval.extract_letter import LETTERS, choice, letter
from ragen.eval.extract_maths import maths, number, vote
from ragen.eval.reply_parts import Extracted, answer_block, boxed, strict_text, without_thoughts

__all__ = [
    "LETTERS", "Extracted", "answer_block", "boxed", "choice", "letter", "maths", "number", "strict_text", "vote", "without_thoughts",
]  # fmt: skip
