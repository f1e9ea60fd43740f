"""Boards and payoff tables in plain text, for the terminal (the page draws its own)."""

from __future__ import annotations

import re

_CELL = re.compile(r"\(?\s*([1-3])\s*[,;\s]\s*([1-3])\s*\)?")


def board_text(public: object, answer: str = "") -> str:
    """The state ``public`` that was shown before a turn, the answer's move in brackets; empty for
    games without a drawing (their prompt says it all)."""
    if isinstance(public, dict):
        row, column = public.get("A") or public.get("row"), public.get("B") or public.get("column")
        return _payoffs(str(public.get("role") or "row"), row, column, list(public.get("names") or ()), answer) if _matrix(row) and _matrix(column) else ""
    if not isinstance(public, (list, tuple)) or len(public) < 2:
        return ""
    if isinstance(public[0], str) and re.fullmatch(r"[.XO]{9}", public[0]):
        match = _CELL.fullmatch(answer.strip())
        return _marks(public[0], 3, 3, (int(match[1]) - 1) * 3 + int(match[2]) - 1 if match else -1, str(public[1]))
    if isinstance(public[0], (list, tuple)) and len(public[0]) >= 3 and isinstance(public[0][0], str) and isinstance(public[0][1], int):
        cells, rows, columns = public[0][:3]
        return _marks(cells, rows, columns, _dropped(cells, rows, columns, answer), str(public[1])) if len(cells) == rows * columns else ""
    if len(public) >= 3 and _matrix(public[1]) and _matrix(public[2]):
        return _payoffs(str(public[0]), public[1], public[2], list(public[3]) if len(public) > 3 else [], answer)
    return ""


def _matrix(value: object) -> bool:
    return (
        isinstance(value, (list, tuple)) and bool(value)
        and all(isinstance(row, (list, tuple)) and len(row) == len(value[0]) and all(isinstance(v, (int, float)) for v in row) for row in value)
    )  # fmt: skip


def _dropped(cells: str, rows: int, columns: int, answer: str) -> int:
    match = re.search(r"\d+", answer)
    column = int(match[0]) - 1 if match else -1
    if not 0 <= column < columns:
        return -1
    return next((r * columns + column for r in reversed(range(rows)) if cells[r * columns + column] == "."), -1)


def _marks(cells: str, rows: int, columns: int, move: int, mark: str) -> str:
    def cell(i: int) -> str:
        if i != move:
            return f" {cells[i].replace('.', '·')} "
        return f"[{mark if cells[i] == '.' else cells[i]}]"

    return "\n".join("".join(cell(r * columns + c) for c in range(columns)) for r in range(rows))


def _payoffs(role: str, row, column, names: list, answer: str) -> str:
    """``row,column`` payoffs; ``*`` a pure equilibrium; the answer's row or column in brackets."""
    said = re.sub(r"[^A-Za-z0-9]", "", re.sub(r"(?i)action", "", answer)).upper()
    labels = [str(n).upper() for n in names]
    picked = labels.index(said) if said in labels else -1

    def label(i: int, side: str) -> str:
        if side != role:
            return str(i + 1)
        name = str(names[i]) if i < len(names) else str(i + 1)
        return f"[{name}]" if i == picked else name

    best_row = [max(r[j] for r in row) for j in range(len(row[0]))]
    best_column = [max(r) for r in column]
    grid = [[""] + [label(j, "column") for j in range(len(row[0]))]]
    for i, values in enumerate(row):
        star = ["*" if v == best_row[j] and column[i][j] == best_column[i] else "" for j, v in enumerate(values)]
        grid.append([label(i, "row")] + [f"{v:g},{column[i][j]:g}{star[j]}" for j, v in enumerate(values)])
    widths = [max(len(line[k]) for line in grid) for k in range(len(grid[0]))]
    return "\n".join("  ".join(text.rjust(w) for text, w in zip(line, widths, strict=True)) for line in grid)
