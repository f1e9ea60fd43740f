"""Sokoban as pure functions. A cell is (row, column); boxes and targets are sorted tuples of cells."""

from __future__ import annotations

import random
from typing import NamedTuple

Cell = tuple[int, int]
DIRECTIONS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
OPPOSITE = {"up": "down", "down": "up", "left": "right", "right": "left"}
_TRIES = 60  # scrambles of one room before another is drawn


class Room(NamedTuple):
    """``walls``: rows of ``#`` and ``.``."""

    walls: tuple[str, ...]
    targets: tuple[Cell, ...]
    boxes: tuple[Cell, ...]
    player: Cell


def solved(room: Room) -> bool:
    return room.boxes == room.targets


def move(room: Room, direction: str) -> Room:
    """The room after a step, pushing a box if one is in the way; the same room if it is blocked."""
    to = _next(room.player, direction)
    if _wall(room, to):
        return room
    if to in room.boxes:
        beyond = _next(to, direction)
        if _wall(room, beyond) or beyond in room.boxes:
            return room
        room = _with_box(room, to, beyond)
    return room._replace(player=to)


def pull_back(room: Room, direction: str, pull: bool) -> Room | None:
    """The inverse of a step: walk in ``direction``, dragging the box behind along if ``pull``.
    ``None`` if there is no room for it. Undone by :func:`move` in the opposite direction."""
    to, behind = _next(room.player, direction), _next(room.player, OPPOSITE[direction])
    if _wall(room, to) or to in room.boxes or (pull and behind not in room.boxes):
        return None
    if pull:
        room = _with_box(room, behind, room.player)
    return room._replace(player=to)


def draw_level(rng: random.Random, size: int, boxes: int, walls: float, scramble: int) -> tuple[Room, list[str]]:
    """A level that can be solved, and ``scramble`` steps that solve it.

    It is played backwards from a solved room, boxes dragged off their targets, until none stands on
    one; the steps back, reversed, are a solution.
    """
    while True:
        start = _draw_solved_room(rng, size, boxes, walls)
        for _ in range(_TRIES if start else 0):
            room, back = start, []
            for _ in range(scramble):
                options = [(d, p, r) for d in DIRECTIONS for p in (True, False) if (r := pull_back(room, d, p))]
                if not options:
                    break
                dragging = [o for o in options if o[1]]
                direction, _, room = rng.choice(dragging if dragging and rng.random() < 0.6 else options)
                back.append(direction)
            if len(back) == scramble and not set(room.boxes) & set(room.targets):
                return room, [OPPOSITE[d] for d in reversed(back)]


def _draw_solved_room(rng: random.Random, size: int, boxes: int, walls: float) -> Room | None:
    inner = [(r, c) for r in range(1, size - 1) for c in range(1, size - 1)]
    floor = [cell for cell in inner if rng.random() >= walls]
    if len(floor) < 3 * boxes + 3:
        return None
    rows = tuple("".join("." if (r, c) in floor else "#" for c in range(size)) for r in range(size))
    *targets, player = rng.sample(floor, boxes + 1)
    return Room(rows, tuple(sorted(targets)), tuple(sorted(targets)), player)


def _next(cell: Cell, direction: str) -> Cell:
    dr, dc = DIRECTIONS[direction]
    return cell[0] + dr, cell[1] + dc


def _wall(room: Room, cell: Cell) -> bool:
    return room.walls[cell[0]][cell[1]] == "#"


def _with_box(room: Room, old: Cell, new: Cell) -> Room:
    return room._replace(boxes=tuple(sorted({*room.boxes, new} - {old})))
