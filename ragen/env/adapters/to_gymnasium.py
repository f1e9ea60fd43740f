"""An Env as a Gymnasium environment: the trained seat is the agent, others are played for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium

from ragen.env.adapters.answer_space import AnswerSpace
from ragen.env.base import AnyText, Env, Verdict

#: ``reply(env, seat, seed, attempt)``: the answer of a seat that is not the agent's
Reply = Callable[[Env, int, int, int], str]


class GymnasiumGame(gymnasium.Env):
    """``env``: a game with one trained seat. ``reply``: who plays the other seats, e.g.
    ``ragen.players.sync.opponents([{type: scripted, name: perfect}], "tictactoe")``; not needed for
    one seat. ``max_turn``: replies of the agent before the episode is truncated; ``None``: no limit.

    Observations are ``rules + observation`` at the start and ``feedback + observation`` later;
    actions are answers as text. The reward of a step is what the reply earned, on the last step
    plus the result of the game; ``info`` then has ``success`` and the game's metrics. A nest is one
    episode. An opponent that makes no legal move in ``attempts`` tries raises ``RuntimeError``.
    """

    metadata = {"render_modes": ["ansi"]}

    def __init__(self, env: Env, reply: Reply | None = None, *, max_turn: int | None = None, attempts: int = 3, render_mode: str | None = None):
        if env.seats > 1 and reply is None:
            raise ValueError(f"GymnasiumGame: {type(env).__name__} has {env.seats} seats; give reply=, which plays the others")
        self.env, self._reply, self._max_turn, self._attempts = env, reply, max_turn, attempts
        self.render_mode = render_mode
        self.observation_space = AnyText()
        self.action_space = AnswerSpace(lambda: env.legal(self.seat) if self._playing else None)
        self._playing = False

    @property
    def seat(self) -> int:
        """The agent's seat now."""
        return self.env.trained_seats[0]

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        self._seed = int(seed)
        self.env.reset(seed=self._seed)
        self._playing, self._turns = True, 0
        self._others_move()
        self._rules = self.env.rules(self.seat)
        return self._rules + self.env.observe(self.seat), {"seed": seed, "seat": self.seat}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if not self._playing:
            raise ValueError("step() after the game ended: call reset(seed=...) first")
        verdict = self.env.act(self.seat, action)
        self._turns += 1
        reward = verdict.reward
        self._others_move()
        terminated = not self.env.acting()
        truncated = not terminated and self._max_turn is not None and self._turns >= self._max_turn
        info: dict[str, Any] = {"valid": verdict.valid, "effective": verdict.effective}
        if terminated or truncated:
            self._playing = False
            result = self.env.outcome()[self.seat]
            reward += result.reward
            info |= {"success": result.success and terminated, **result.metrics}
        return self._told(verdict), float(reward), terminated, truncated, info

    def render(self) -> str:
        return self.env.observe(self.seat)

    def _told(self, verdict: Verdict) -> str:
        rules, old = self.env.rules(self.seat), self._rules
        self._rules = rules
        feedback = verdict.feedback + "\n" if verdict.feedback else ""
        return feedback + (rules if rules != old else "") + self.env.observe(self.seat)

    def _others_move(self) -> None:
        """Everybody else, until the agent must move or the game is over. In a simultaneous round the
        others move first; the env shows nobody what they did."""
        tries = 0
        while others := [s for s in self.env.acting() if s not in self.env.trained_seats]:
            if self.env.act(others[0], self._reply(self.env, others[0], self._seed, tries)).valid:
                tries = 0
            else:
                tries += 1
            if tries >= self._attempts:
                raise RuntimeError(f"the player in seat {others[0]} of {type(self.env).__name__} made no legal move in {tries} attempts")
