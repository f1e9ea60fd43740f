"""A few rows of a result as text for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_EACH = 3


def pick(kinds: Mapping[str, Sequence[Mapping[str, Any]]], tell: Callable[[Mapping[str, Any]], str]) -> str:
    """The first few rows of each kind, under a heading."""
    parts = []
    for kind, rows in kinds.items():
        parts.append(f"##### {kind}: {len(rows)} in all" + (f", the first {min(_EACH, len(rows))}\n" if rows else "\n"))
        parts += [tell(row) for row in rows[:_EACH]]
    return "\n".join(parts)


def tell_game(row: Mapping[str, Any]) -> str:
    """A game: what the model was told and said, how it ended."""
    kind = ", ".join(row["categories"].values())
    head = f"=== game {row['id']} ({kind}, against {row['opponent'] or 'nobody'}): {row['status']}, reward {row['reward']:g}"
    lines = [head, *(_said(message) for message in row["messages"] if message["role"] != "system")]
    if row["replies"] and row["replies"][-1]["feedback"]:
        lines.append(f"--- feedback\n{row['replies'][-1]['feedback']}")
    return "\n".join(lines) + "\n"


def tell_question(row: Mapping[str, Any]) -> str:
    """A question: what was asked and replied, what was read out of it."""
    extracted = row["extracted"] or {"strict": None, "flexible": None, "rule": ""}
    lines = [
        f"=== question {row['id']}, sample {row['sample']}: {row['verdict']}",
        f"--- told\n{row['prompt']}",
        f"--- model\n{row['reply']}",
        f"--- strict {extracted['strict']!r}, flexible {extracted['flexible']!r} ({extracted['rule'] or 'no rule'}), "
        f"gold {row['gold']!r}",
    ]
    return "\n".join(lines + ([f"--- error\n{row['error']}"] if row.get("error") else [])) + "\n"


def _said(message: Mapping[str, str]) -> str:
    return f"--- {'model' if message['role'] == 'assistant' else 'told'}\n{message['content']}"
