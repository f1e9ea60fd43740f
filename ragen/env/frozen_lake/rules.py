"""The lake as pure functions: maps with a way to the goal, and steps on them.

A map is a tuple of rows, ``.`` ice, ``O`` hole, ``G`` goal; a cell is (row, column).
"""

from __future__ import annotations

import random
from collections import deque

Map = tuple[str, ...]
Cell = tuple[int, int]
#: in turning order, so that a slip to either side is a neighbour in this list
DIRECTIONS = {"up": (-1, 0), "right": (0, 1), "down": (1, 0), "left": (0, -1)}


def draw_map(rng: random.Random, size: int, frozen: float) -> tuple[Map, Cell]:
    """A map and a start from which the goal can be reached."""
    while True:
        cells = [["." if rng.random() < frozen else "O" for _ in range(size)] for _ in range(size)]
        start, goal = rng.sample([(r, c) for r in range(size) for c in range(size)], 2)
        cells[start[0]][start[1]], cells[goal[0]][goal[1]] = ".", "G"
        lake = tuple("".join(row) for row in cells)
        if shortest_path(lake, start) is not None:
            return lake, start


def shortest_path(lake: Map, start: Cell) -> list[str] | None:
    """Directions from ``start`` to the goal over ice, fewest first; ``None`` if there is no way."""
    queue, came = deque([start]), {start: []}
    while queue:
        cell = queue.popleft()
        if lake[cell[0]][cell[1]] == "G":
            return came[cell]
        for name in DIRECTIONS:
            after = step(lake, cell, name)
            if after not in came and lake[after[0]][after[1]] != "O":
                came[after] = [*came[cell], name]
                queue.append(after)
    return None


def step(lake: Map, cell: Cell, direction: str) -> Cell:
    """Where a step leads; the edge of the map holds one back."""
    dr, dc = DIRECTIONS[direction]
    row, column = cell[0] + dr, cell[1] + dc
    return (row, column) if 0 <= row < len(lake) and 0 <= column < len(lake) else cell


def slip(rng: random.Random, direction: str) -> str:
    """The way a foot really goes on slippery ice: as aimed, or to either side, a third each."""
    names = list(DIRECTIONS)
    return names[(names.index(direction) + rng.choice((-1, 0, 1))) % 4]
