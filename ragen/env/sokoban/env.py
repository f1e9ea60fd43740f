"""Sokoban as a one-seat task.

``python -m ragen.env.sokoban.env`` plays it in the terminal.
"""

from __future__ import annotations

import random
from typing import Any

from ragen.env.base import SoloEnv
from ragen.env.sokoban.config import SokobanConfig
from ragen.env.sokoban.rules import DIRECTIONS, Room, draw_level, move, solved

LEGEND = "'#' is wall, '.' floor, P you, X a box, O a target, V a box on a target, S you on a target."
TELLINGS = (
    "Push every box onto a target. You can push one box at a time and never pull. Answer with Up, Down, Left or Right.",
    "This is sokoban: move P so that all boxes X stand on targets O. Boxes are pushed, not pulled. Your move is Up, Down, Left or Right.",
    "Bring the boxes to the targets by walking into them from behind. Reply with one step: Up, Down, Left or Right.",
    "You work in a store room and shove boxes to marked places. Say Up, Down, Left or Right to take one step.",
)


class SokobanEnv(SoloEnv):
    """Success: every box stood on a target within ``max_steps``. After a reset, ``solution`` solves it."""

    def __init__(self, config: SokobanConfig | None = None):
        super().__init__()
        self.config = config or SokobanConfig()

    def start(self, rng: random.Random) -> str:
        cfg = self.config
        self.room, self.solution = draw_level(rng, cfg.size, cfg.boxes, cfg.walls, cfg.scramble)
        self.steps = 0
        self._rules = f"{rng.choice(TELLINGS)} {LEGEND}\n"
        return self._picture()

    def rules(self, seat: int) -> str:
        return self._rules

    def public(self, seat: int) -> Room:
        return self.room

    def legal(self, seat: int) -> tuple[str, ...]:
        return () if self._done else tuple(name.capitalize() for name in DIRECTIONS)

    def play(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        direction = action.strip().rstrip(".").lower()
        if direction not in DIRECTIONS:
            return self._obs, self.config.invalid_penalty, False, {"valid": False, "feedback": "Answer Up, Down, Left or Right."}
        before, self.room = self.room, move(self.room, direction)
        self.steps += 1
        success = solved(self.room)
        placed = len(set(self.room.boxes) & set(self.room.targets)) / self.config.boxes
        info = {"success": success, "effective": self.room != before, "metrics": {"boxes_placed": placed, "steps": float(self.steps)}}
        done = success or self.steps >= self.config.max_steps
        return self._picture(), self.config.success_reward if success else 0.0, done, info

    def _picture(self) -> str:
        cells = [list(row) for row in self.room.walls]
        for r, c in self.room.targets:
            cells[r][c] = "O"
        for r, c in self.room.boxes:
            cells[r][c] = "V" if cells[r][c] == "O" else "X"
        r, c = self.room.player
        cells[r][c] = "S" if cells[r][c] == "O" else "P"
        return "\n".join("".join(row) for row in cells)


if __name__ == "__main__":
    from ragen.env.terminal import play_in_terminal

    play_in_terminal("sokoban")
