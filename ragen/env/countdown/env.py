"""Countdown as a one-seat task: combine the numbers into the target.

``python -m ragen.env.countdown.env`` plays it in the terminal.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from ragen.env.base import SoloEnv
from ragen.env.countdown.config import CountdownConfig
from ragen.env.countdown.rules import draw_puzzle, evaluate, uses

TELLINGS = (
    "Make {target} from the numbers {numbers}, using {how}. Allowed are + - * / and parentheses. Answer with the expression alone.",
    "Numbers: {numbers}. Target: {target}. Write an arithmetic expression with + - * / that equals the target and uses {how}.",
    "Combine {numbers} with + - * / and parentheses so that the result is {target}. Use {how}. Give the expression.",
    "Which expression of {numbers} equals {target}? Use {how}, and only + - * / and parentheses.",
)


class CountdownView(NamedTuple):
    """What the observation says, for scripted players."""

    numbers: tuple[int, ...]
    target: int


class CountdownEnv(SoloEnv):
    """One puzzle. After a reset ``numbers``, ``target`` and one ``solution`` are known."""

    def __init__(self, config: CountdownConfig | None = None):
        super().__init__()
        self.config = config or CountdownConfig()

    def start(self, rng: random.Random) -> str:
        cfg = self.config
        self.numbers, self.target, self.solution = draw_puzzle(rng, cfg.numbers, cfg.largest, cfg.max_target)
        how = "every number exactly once" if cfg.use_all else "each number at most once"
        return rng.choice(TELLINGS).format(target=self.target, numbers=", ".join(map(str, self.numbers)), how=how)

    def public(self, seat: int) -> CountdownView:
        return CountdownView(self.numbers, self.target)

    def play(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        try:
            value, used = evaluate(action.split("=")[0])
        except ValueError as error:
            return self._refuse(f"That is not an expression: {error}. Try again.")
        if not uses(used, self.numbers, self.config.use_all):
            return self._refuse("That does not use the given numbers as asked. Try again.")
        success = value == self.target
        reward = self.config.success_reward if success else self.config.failure_reward
        return f"That is {value}.", reward, True, {"success": success, "metrics": {"loss": float(not success)}}

    def _refuse(self, why: str) -> tuple[str, float, bool, dict[str, Any]]:
        return self._obs, self.config.invalid_penalty, False, {"valid": False, "feedback": why}


if __name__ == "__main__":
    from ragen.env.terminal import play_in_terminal

    play_in_terminal("countdown")
