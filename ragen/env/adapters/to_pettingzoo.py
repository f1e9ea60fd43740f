"""An Env as a PettingZoo AEC environment: every seat is an agent, ``seat_0``, ``seat_1``, ...

Players that act at once are asked one after another; the env shows none of them what the others
chose. A refused reply costs its penalty and the same agent is asked again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pettingzoo import AECEnv

from ragen.env.adapters.answer_space import AnswerSpace
from ragen.env.base import AnyText, Env, SeatOutcome
from ragen.env.seating import by_seat


class TextObservation(str):
    """A text with the ``dtype`` that PettingZoo's ``api_test`` asks every observation for."""

    dtype = np.dtype(str)


class PettingZooGame(AECEnv):
    """``env``: any game. ``max_turn``: replies of all agents together before the episode is
    truncated; ``None``: no limit. Observations are ``rules + observation``. ``infos[agent]`` holds
    ``valid``, ``feedback`` and ``trained``, at the end ``success`` and the game's metrics."""

    def __init__(self, env: Env, *, max_turn: int | None = None, name: str = "ragen", render_mode: str | None = None):
        super().__init__()
        self.env, self._max_turn, self.render_mode = env, max_turn, render_mode
        self.metadata = {"name": name, "render_modes": ["ansi"], "is_parallelizable": False}
        self.possible_agents = [f"seat_{seat}" for seat in range(env.seats)]
        self._observation_spaces = {agent: AnyText() for agent in self.possible_agents}
        self._action_spaces = {a: AnswerSpace(lambda seat=s: self._legal(seat)) for s, a in enumerate(self.possible_agents)}
        self.agents: list[str] = []
        self._stream = 0

    def observation_space(self, agent: str) -> AnyText:
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> AnswerSpace:
        return self._action_spaces[agent]

    def _legal(self, seat: int) -> tuple[str, ...] | None:
        return self.env.legal(seat) if self.agents and seat in self.env.acting() else None

    def reset(self, seed: int | None = None, options: dict | None = None) -> None:
        if seed is None:  # without a seed: the next game of the last stream
            self._stream += 1
            seed = self._stream
        self._stream = int(seed)
        self.env.reset(seed=int(seed))
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos: dict[str, dict[str, Any]] = {a: {"trained": s in self.env.trained_seats} for s, a in enumerate(self.agents)}
        self._turns = 0
        self.agent_selection = self.possible_agents[self.env.acting()[0]]

    def observe(self, agent: str) -> TextObservation:
        seat = self.possible_agents.index(agent)
        return TextObservation(self.env.rules(seat) + self.env.observe(seat))

    def step(self, action: str | None) -> None:
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        self._cumulative_rewards[agent] = 0.0
        self._clear_rewards()
        verdict = self.env.act(self.possible_agents.index(agent), action)
        self._turns += 1
        self.rewards[agent] = float(verdict.reward)
        self.infos[agent] |= {"valid": verdict.valid, "feedback": verdict.feedback}
        self._end_or_go_on(self.possible_agents.index(agent))
        self._accumulate_rewards()

    def _end_or_go_on(self, seat: int) -> None:
        acting = self.env.acting()
        if acting and (self._max_turn is None or self._turns < self._max_turn):
            later = [s for s in acting if s > seat]  # a simultaneous round goes on with who has not moved
            self.agent_selection = self.possible_agents[seat if seat in acting else (later or acting)[0]]
            return
        ended = dict.fromkeys(self.agents, True)
        if acting:
            self.truncations = ended
        else:
            self.terminations = ended
        for place, agent in enumerate(self.possible_agents):
            result = self.env.result(place, by_seat) or SeatOutcome(0.0, False)  # of a nest: for this seat in every sub-task
            self.rewards[agent] += float(result.reward)
            self.infos[agent] |= {"success": result.success and not acting, **result.metrics}
        self.agent_selection = self.agents[0]

    def render(self) -> str:
        return self.observe(self.agent_selection)

    def close(self) -> None:
        self.agents = []
