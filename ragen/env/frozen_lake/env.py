"""Frozen lake as a one-seat task.

``python -m ragen.env.frozen_lake.env`` plays it in the terminal.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from ragen.env.base import SoloEnv, derived_rng
from ragen.env.frozen_lake.config import FrozenLakeConfig
from ragen.env.frozen_lake.rules import DIRECTIONS, Cell, Map, draw_map, slip, step

TELLINGS = (
    "You (P) walk on a frozen lake to the goal G. '.' is ice, 'O' a hole: stepping into one ends the walk. Answer with Up, Down, Left or Right.",
    "Guide P over the ice '.' to G and keep out of the holes 'O'. One move at a time: Up, Down, Left or Right.",
    "On this map P is you, G is where you want to be, '.' carries you and 'O' does not. Which way do you go: Up, Down, Left or Right?",
    "Cross the lake from P to G. Cells marked 'O' are holes, cells marked '.' are safe. Move by answering Up, Down, Left or Right.",
)
SLIPPERY = " The ice is slippery: you may slide to either side of where you aim."


class LakeView(NamedTuple):
    """What the observation says, for scripted players."""

    lake: Map
    at: Cell


class FrozenLakeEnv(SoloEnv):
    """Success: the goal was reached within ``max_steps``."""

    def __init__(self, config: FrozenLakeConfig | None = None):
        super().__init__()
        self.config = config or FrozenLakeConfig()

    def start(self, rng: random.Random) -> str:
        self.lake, self.at = draw_map(rng, self.config.size, self.config.frozen)
        self.steps, self._slips = 0, rng.getrandbits(62)
        self._rules = rng.choice(TELLINGS) + (SLIPPERY if self.config.slippery else "") + "\n"
        return self._picture()

    def rules(self, seat: int) -> str:
        return self._rules

    def public(self, seat: int) -> LakeView:
        return LakeView(self.lake, self.at)

    def legal(self, seat: int) -> tuple[str, ...]:
        return () if self._done else tuple(name.capitalize() for name in DIRECTIONS)

    def play(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        direction = action.strip().rstrip(".").lower()
        if direction not in DIRECTIONS:
            return self._obs, self.config.invalid_penalty, False, {"valid": False, "feedback": "Answer Up, Down, Left or Right."}
        if self.config.slippery:
            direction = slip(derived_rng("slip", self._slips, self.at, self.steps), direction)
        before, self.at = self.at, step(self.lake, self.at, direction)
        self.steps += 1
        ground = self.lake[self.at[0]][self.at[1]]
        success, fell = ground == "G", ground == "O"
        done = success or fell or self.steps >= self.config.max_steps
        reward = self.config.success_reward if success else 0.0
        info = {"success": success, "effective": self.at != before, "metrics": {"fell": float(fell), "steps": float(self.steps)}}
        return self._picture(), reward, done, info

    def _picture(self) -> str:
        rows = [list(row) for row in self.lake]
        rows[self.at[0]][self.at[1]] = {"O": "X", "G": "*"}.get(self.lake[self.at[0]][self.at[1]], "P")
        return "\n".join(" ".join(row) for row in rows)


if __name__ == "__main__":
    from ragen.env.terminal import play_in_terminal

    play_in_terminal("frozen_lake")
