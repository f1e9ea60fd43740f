"""The record of what was said, kept within a length.

A description longer than a statement may be is cut (:func:`heard`) before it enters the record. The rule
for the record: the oldest descriptions are left out whole, one after another, until the rest fits, and
the record says how many. If the newest alone is too long, its end is cut and marked with ``...``.
"""

from __future__ import annotations

from collections.abc import Sequence

#: (player number from 1, what was said)
Statement = tuple[int, str]


def line(statement: Statement) -> str:
    return f"Player {statement[0]}: {statement[1]}"


def one_line(text: str) -> str:
    """White space collapsed: a description cannot pretend to be another player's line."""
    return " ".join(text.split())


def heard(text: str, max_chars: int) -> str:
    """What the others hear of a description: at most ``max_chars`` characters, its end cut and marked with ``...``."""
    return text if len(text) <= max_chars else text[: max_chars - 3].rstrip() + "..."


def cut(statements: Sequence[Statement], max_chars: int) -> tuple[int, tuple[Statement, ...]]:
    """``(how many of the oldest are left out, the rest)``; the rest's lines, with their line
    breaks, have at most ``max_chars`` characters."""
    kept, room = [], max_chars
    for statement in reversed(statements):
        room -= len(line(statement)) + 1
        if room < 0:
            break
        kept.append(statement)
    if statements and not kept:
        player, text = statements[-1]
        spare = max(max_chars - len(line((player, ""))) - 4, 0)
        kept = [(player, text[:spare] + "...")]
    return len(statements) - len(kept), tuple(reversed(kept))


def record(left_out: int, statements: Sequence[Statement]) -> str:
    """The lines as they are shown."""
    head = [f"({left_out} earlier description{'s' if left_out > 1 else ''} left out)"] if left_out else []
    return "\n".join(head + [line(s) for s in statements])
