"""Mathematics as a one-seat task: one question, one answer.

``python -m ragen.env.math_lv3to5.env --config source=embedded`` plays it in the terminal.
"""

from __future__ import annotations

import random
from typing import Any

from ragen.env.base import SoloEnv
from ragen.env.math_lv3to5.config import MathConfig
from ragen.env.math_lv3to5.data import Problem, find_parquet, select_problems
from ragen.env.math_lv3to5.judge import judge
from ragen.env.math_lv3to5.rules import LEVELS, Exercise, draw_from_split, solve
from ragen.env.math_lv3to5.wording import tell, with_instruction


class MathEnv(SoloEnv):
    """One problem. After a reset ``problem`` holds question, answer and level, and ``exercise`` the
    numbers behind it (``None`` for a problem from a file)."""

    def __init__(self, config: MathConfig | None = None):
        super().__init__()
        self.config = config or MathConfig()
        self._path = None
        self.exercise: Exercise | None = None
        if self.config.source == "parquet":  # found here, read on first use, shared by all envs of the process
            self._path = find_parquet(self.config.data_path, self.config.split)

    def start(self, rng: random.Random) -> str:
        if self._path is not None:
            self.problem = rng.choice(select_problems(self._path, self.config.levels))
        else:
            self.exercise = draw_from_split(rng, rng.choice(self.config.levels or LEVELS), self.config.split)
            self.problem = Problem(tell(rng, self.exercise), str(solve(self.exercise)), self.exercise.level)
        return with_instruction(rng, self.problem.question)

    def play(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        if not action.strip():
            return self._obs, self.config.invalid_penalty, False, {"valid": False, "feedback": "The answer is empty. Try again."}
        success = judge(self.problem.answer, action, self.config.judge_timeout)
        reward = self.config.success_reward if success else self.config.failure_reward
        return "", reward, True, {"success": success, "metrics": {"loss": float(not success)}}


if __name__ == "__main__":
    from ragen.env.terminal import play_in_terminal

    play_in_terminal("math_lv3to5")
