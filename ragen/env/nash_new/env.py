"""Matrix games as a one-seat task: read a game, name the action of a Nash equilibrium.

``python -m ragen.env.nash_new.env`` plays it in the terminal.
"""

from __future__ import annotations

import random
import re
from typing import Any, NamedTuple

from ragen.env.base import SoloEnv
from ragen.env.nash_new.config import PAPER_GAMES, SIGN_FLIPPED, NashConfig
from ragen.env.nash_new.rules import ROLES, MatrixGame, generate_game, right_actions
from ragen.env.nash_new.wording import PRESENTATIONS, Telling, action_names, question

_ANSWER = re.compile(r"(?:action\s+)?[\"'(\[]?\s*([A-Za-z0-9]+)\s*[\"')\]]?\.?", re.IGNORECASE)


class NashView(NamedTuple):
    """What the observation says, for scripted players: payoffs ``[row action][column action]`` as
    shown, the seat's role and the names of its actions."""

    role: str
    row: tuple[tuple[int, ...], ...]
    column: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]


class NashEnv(SoloEnv):
    """One question. After a reset: ``game_name``, ``side``, ``sign``, ``offset`` and
    ``presentation`` say what was drawn; ``game`` is it as shown; ``right`` the answers that count."""

    def __init__(self, config: NashConfig | None = None):
        super().__init__()
        self.config = config or NashConfig()

    def start(self, rng: random.Random) -> str:
        cfg = self.config
        self.side = rng.choice(ROLES) if cfg.role == "random" else cfg.role
        self.sign = rng.choice((1, -1))
        if cfg.source == "paper":
            self.game_name = rng.choice(cfg.games)
            base = MatrixGame(*PAPER_GAMES[self.game_name])
            self.sign = self.sign if cfg.sign_flip and self.game_name in SIGN_FLIPPED else 1
        else:
            size = rng.choice(cfg.size)
            self.game_name, self.sign = f"generated_{size}x{size}", 1
            base = generate_game(rng, size).game
        self.offset = rng.choice(cfg.offsets)
        self.presentation = rng.choice(cfg.presentations)
        self.game = base.transformed(self.sign, self.offset)
        # the offset moves no equilibrium: solving without it lets the cache serve all offsets
        self.right = right_actions(base.transformed(self.sign, 0), self.side, cfg.equilibrium)
        telling = self._telling(rng)
        self._names = telling.me
        return f"{PRESENTATIONS[self.presentation](telling)}\n{question(rng, telling)}"

    def _telling(self, rng: random.Random) -> Telling:
        mine, theirs = self.game
        if self.side == "column":
            mine, theirs = (tuple(zip(*m, strict=True)) for m in (theirs, mine))
        me, other = action_names(rng, len(mine), len(mine[0]), self.config.labels)
        return Telling(self.side, mine, theirs, me, other)

    def role(self, seat: int) -> str:
        return self.side

    def public(self, seat: int) -> NashView:
        return NashView(self.side, self.game.row, self.game.column, self._names)

    def legal(self, seat: int) -> tuple[str, ...]:
        return () if self._done else self._names

    def play(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        match = _ANSWER.fullmatch(action.strip())
        name = match[1].upper() if match else ""
        if name not in self._names:
            told = f"That is not one of your actions ({', '.join(self._names)}). Try again."
            return self._obs, self.config.invalid_penalty, False, {"valid": False, "feedback": told}
        success = self._names.index(name) in self.right
        reward = self.config.success_reward if success else self.config.failure_reward
        return "", reward, True, {"success": success, "metrics": {"loss": float(not success)}}


if __name__ == "__main__":
    from ragen.env.terminal import play_in_terminal

    play_in_terminal("nash_new")
