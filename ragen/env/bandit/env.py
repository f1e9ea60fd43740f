"""Multi-armed bandit as a one-seat task: find the lever that pays most often.

``python -m ragen.env.bandit.env`` plays it in the terminal.
"""

from __future__ import annotations

import random
import re
from typing import Any

from ragen.env.bandit.config import BanditConfig
from ragen.env.bandit.rules import draw_bandit, pull
from ragen.env.base import SoloEnv

TELLINGS = (
    "There are {arms} levers, numbered 1 to {arms}. Each pays 1 or 0, one of them more often than the rest. You have {pulls} pulls. Earn as much as you can; answer with the number of a lever.",
    "A machine has levers 1 to {arms}, and each pays out 1 with a chance of its own. Pull {pulls} times, one lever at a time, to collect the most. Name the lever by its number.",
    "You may pull a lever {pulls} times. Levers 1 to {arms} pay 1 or nothing, with chances you do not know. Which one do you pull? Give its number.",
    "Choose among {arms} slot machines, 1 to {arms}, {pulls} times in all. A win is worth 1. One machine wins clearly more often. Reply with a machine's number.",
)
_NUMBER = re.compile(r"\D{0,10}?(\d)\.?")


class BanditEnv(SoloEnv):
    """Success: the best lever was pulled more than any other."""

    def __init__(self, config: BanditConfig | None = None):
        super().__init__()
        self.config = config or BanditConfig()

    def start(self, rng: random.Random) -> str:
        self.bandit = draw_bandit(rng, self.config.arms, self.config.gap)
        self.counts = [0] * self.config.arms
        self._rules = rng.choice(TELLINGS).format(arms=self.config.arms, pulls=self.config.pulls) + "\n"
        return f"Pull 1 of {self.config.pulls}."

    def rules(self, seat: int) -> str:
        return self._rules

    def legal(self, seat: int) -> tuple[str, ...]:
        return () if self._done else tuple(str(a + 1) for a in range(self.config.arms))

    def play(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        match = _NUMBER.fullmatch(action.strip())
        arm = int(match[1]) - 1 if match else -1
        if not 0 <= arm < self.config.arms:
            return self._obs, self.config.invalid_penalty, False, {"valid": False, "feedback": f"Name a lever from 1 to {self.config.arms}."}
        paid = pull(self.bandit, arm, self.counts[arm])
        self.counts[arm] += 1
        done = sum(self.counts) == self.config.pulls
        others = max(n for a, n in enumerate(self.counts) if a != self.bandit.best)
        best_share = self.counts[self.bandit.best] / sum(self.counts)
        told = f"Lever {arm + 1} paid {paid}."
        obs = told if done else f"{told} Pull {sum(self.counts) + 1} of {self.config.pulls}."
        success = done and self.counts[self.bandit.best] > others
        return obs, paid / self.config.pulls, done, {"success": success, "metrics": {"best_lever": best_share}}


if __name__ == "__main__":
    from ragen.env.terminal import play_in_terminal

    play_in_terminal("bandit")
