"""Multiple choice as a one-seat task: answer with a letter.

``python -m ragen.env.mmlu.env`` plays it in the terminal.
"""

from __future__ import annotations

import random
import re
from typing import Any

from ragen.env.base import SoloEnv
from ragen.env.mmlu.config import MmluConfig
from ragen.env.mmlu.data import LETTERS, load_questions

INSTRUCTIONS = (
    "Answer with the letter of the right choice.",
    "Which one is right? Give its letter.",
    "Choose one and reply with its letter only.",
    "Exactly one choice is right. Name its letter.",
)
_LETTER = re.compile(r"\(?([A-Za-z])\)?[.:]?")


class MmluEnv(SoloEnv):
    """One question. After a reset ``question`` is the row and ``order`` the places of the choices shown."""

    def __init__(self, config: MmluConfig | None = None):
        super().__init__()
        self.config = config or MmluConfig()

    def start(self, rng: random.Random) -> str:
        self.question = rng.choice(load_questions(self.config.data_path, self.config.subjects))
        self.order = list(range(len(self.question.choices)))
        if self.config.shuffle_choices:
            rng.shuffle(self.order)
        choices = "\n".join(f"{letter}. {self.question.choices[i]}" for letter, i in zip(LETTERS, self.order, strict=False))
        return f"{self.question.question}\n{choices}\n{rng.choice(INSTRUCTIONS)}"

    def legal(self, seat: int) -> tuple[str, ...]:
        return () if self._done else tuple(LETTERS[: len(self.order)])

    def play(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        match = _LETTER.fullmatch(action.strip())
        place = LETTERS.index(match[1].upper()) if match else len(self.order)
        if place >= len(self.order):
            told = f"Answer with a letter from A to {LETTERS[len(self.order) - 1]}."
            return self._obs, self.config.invalid_penalty, False, {"valid": False, "feedback": told}
        success = self.order[place] == self.question.answer
        reward = self.config.success_reward if success else self.config.failure_reward
        return "", reward, True, {"success": success, "metrics": {"loss": float(not success)}}


if __name__ == "__main__":
    from ragen.env.terminal import play_in_terminal

    play_in_terminal("mmlu")
