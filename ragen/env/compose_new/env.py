"""Several games one after another in one trajectory, as an :class:`~ragen.env.base.Env`.

The nest is always one of its sub-tasks: seats, trained seat, rules, observations and opponents are
that game's. When it ends, or its trained seat has used up its turns, the next begins.

A player goes through all sub-tasks, in whatever seat each game gives it. The policy's agents are numbered
by :mod:`ragen.env.seating`, and each is paid for what it did itself (:meth:`ComposeEnv.result`): over the
sub-tasks that have a seat for it, those not reached included.

``python -m ragen.env.compose_new.env`` plays one in the terminal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ragen.env import make_env
from ragen.env.base import Env, Outcome, SeatOutcome, SummaryRequest, Verdict, derived_rng
from ragen.env.compose_new.config import ComposeConfig, SubTask
from ragen.env.compose_new.rewards import combine, difficulty_weights
from ragen.env.seating import Entries, Seating, agent_seats, player_seats


@dataclass
class _Played:
    """What has happened in one sub-task. ``earned``: by valid turns, by seat (an inner nest pays at its
    end alone). By agent: ``replies`` given, and the place of the last one among all of the agent's."""

    begun: bool = False
    unfinished: bool = False
    earned: Counter = field(default_factory=Counter)
    replies: Counter = field(default_factory=Counter)
    last_reply: dict[int, int] = field(default_factory=dict)


class ComposeEnv(Env):
    """``success_rates``: of each sub-task by name, frozen for the step; set by the env manager and
    read only with ``reward_improve``."""

    def __init__(self, config: ComposeConfig):
        self.config = config
        self.tasks: tuple[SubTask, ...] = config.sub_tasks()
        self.envs = [make_env(task.env_type, dict(task.env_config)) for task in self.tasks]
        self.seats = max(env.seats for env in self.envs)
        self.success_rates = {}

    @property
    def success_rates(self) -> dict[str, float]:
        return self._success_rates

    @success_rates.setter
    def success_rates(self, rates: Mapping[str, float]) -> None:
        self._success_rates = dict(rates)
        for task, env in zip(self.tasks, self.envs, strict=True):
            if isinstance(env, ComposeEnv):  # its sub-tasks' rates are remembered under its own name
                prefix = f"{task.name}/sub/"
                env.success_rates = {name[len(prefix) :]: rate for name, rate in rates.items() if name.startswith(prefix)}

    def reset(self, *, seed: int) -> None:
        for i, env in enumerate(self.envs):
            env.reset(seed=derived_rng("compose_new", seed, i).getrandbits(31))
        self._order = list(range(len(self.envs)))
        if self.config.order == "shuffled":
            derived_rng("compose_new", seed, "order").shuffle(self._order)
        self._place = 0
        self._played = [_Played() for _ in self.envs]
        self._replies: Counter = Counter()
        self._settle()

    # -- which sub-task -------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        return self._place >= len(self._order)

    @property
    def current(self) -> int:
        """Index of the sub-task being played (after the end: the last one)."""
        return self._order[min(self._place, len(self._order) - 1)]

    @property
    def env(self) -> Env:
        return self.envs[self.current]

    @property
    def current_env_type(self) -> str:
        return getattr(self.env, "current_env_type", self.tasks[self.current].env_type)

    @property
    def trained_seats(self) -> tuple[int, ...]:
        return self.env.trained_seats

    @property
    def seats_now(self) -> int:
        return self.env.seats_now

    def sub_task_now(self) -> tuple[int, ...]:
        return (self._place, *self.env.sub_task_now())

    def player_info_now(self) -> list[dict]:
        inner = self.env.player_info_now()
        return list(self.tasks[self.current].player_info) if inner is None else inner

    def _agents_now(self) -> tuple[int, ...]:
        """Seats of the agents in the game being played."""
        return agent_seats(self.seats_now, self.trained_seats, self.player_info_now())

    def _settle(self) -> None:
        """Move on past sub-tasks in which nobody can act."""
        while not self.over:
            played = self._played[self.current]
            played.begun = True
            if self._may_act():
                return
            played.unfinished = bool(self.env.acting())
            self._place += 1

    def _may_act(self) -> tuple[int, ...]:
        limit, replies, agents = self.tasks[self.current].max_turn, self._played[self.current].replies, self._agents_now()

        def spent(seat: int) -> bool:
            return limit is not None and seat in agents and replies[agents.index(seat)] >= limit

        return tuple(seat for seat in self.env.acting() if not spent(seat))

    # -- the sub-task's own ---------------------------------------------------------------------

    def acting(self) -> tuple[int, ...]:
        return () if self.over else self._may_act()

    def rules(self, seat: int) -> str:
        if seat >= self.env.seats:
            return ""
        return f"Task {self._order.index(self.current) + 1} of {len(self.envs)}.\n{self.env.rules(seat)}"

    def observe(self, seat: int) -> str:
        return self.env.observe(seat) if seat < self.env.seats else ""

    def public(self, seat: int) -> Any:
        return self.env.public(seat) if seat < self.env.seats else None

    def legal(self, seat: int) -> tuple[str, ...] | None:
        return self.env.legal(seat) if seat < self.env.seats else None

    def role(self, seat: int) -> str:
        return self.env.role(seat) if seat < self.env.seats else ""

    def hidden(self, seat: int) -> tuple[str, ...]:
        """What the sub-task keeps from this seat, for the conformance check."""
        hidden = getattr(self.env, "hidden", None)
        return tuple(hidden(seat)) if hidden and seat < self.env.seats else ()

    def summary_request(self, seat: int) -> SummaryRequest | None:
        return self.env.summary_request(seat)

    def summarised(self, seat: int, text: str) -> None:
        self.env.summarised(seat, text)

    # -- moves ----------------------------------------------------------------------------------

    def act(self, seat: int, text: str) -> Verdict:
        """As the sub-task says, but what a valid turn earned is paid with the nest's reward; what a
        refused one lost is its own."""
        self._require_acting(seat)
        agents = self._agents_now()  # before the move: an inner nest may move on with it
        verdict = self.env.act(seat, text)
        if verdict.valid:
            self._played[self.current].earned[seat] += verdict.reward
            verdict = Verdict(True, verdict.effective, verdict.feedback, 0.0)
        self._count(seat, agents)
        return verdict

    def refused(self, seat: int) -> None:
        agents = self._agents_now()
        self.env.refused(seat)
        self._count(seat, agents)

    def _count(self, seat: int, agents: tuple[int, ...]) -> None:
        if seat in agents:
            agent, played = agents.index(seat), self._played[self.current]
            played.replies[agent] += 1
            played.last_reply[agent] = self._replies[agent]
            self._replies[agent] += 1
        self._settle()

    # -- the result -----------------------------------------------------------------------------

    def outcome(self) -> Outcome:
        agents, players = self._agents_now(), player_seats(self.seats_now, self.trained_seats)

        def of(seat: int) -> SeatOutcome | None:
            if seat in agents:
                return self.result(agents.index(seat))
            return self.result(players.index(seat), player_seats) if seat in players else None

        return Outcome(tuple(of(seat) or SeatOutcome(0.0, False) for seat in range(self.seats)))

    def result(self, number: int, seating: Seating = agent_seats, player_info: Entries = ()) -> SeatOutcome | None:
        """Over the sub-tasks in which that player takes part. ``player_info`` is not read: the sub-tasks
        have their own. ``turn_rewards`` are an agent's alone: nobody else's replies are counted."""
        results = {i: env.result(number, seating, self.tasks[i].player_info) for i, env in enumerate(self.envs)}
        mine = {i: result for i, result in results.items() if result is not None}
        if not mine:
            return None
        weights = difficulty_weights([t.name for t in self.tasks], self.success_rates if self.config.reward_improve else {})
        rewards, metrics, parts, successes = [], {}, {}, []
        for i, result in mine.items():
            played, name = self._played[i], f"sub/{self.tasks[i].name}"
            if not played.begun:
                rewards.append(0.0)
                successes.append(False)
                continue
            success = result.success and not played.unfinished
            reward = self._earned(i, number, seating) + result.reward
            rewards.append(reward * weights[self.tasks[i].name] if success else reward)
            successes.append(success)
            metrics[f"{name}/success"] = float(success)
            metrics[f"{name}/unfinished"] = float(played.unfinished)
            metrics.update({f"{name}/{key}": float(value) for key, value in result.metrics.items()})
            if seating is agent_seats and number in played.last_reply:
                parts[played.last_reply[number]] = rewards[-1] / len(mine)
        if self.config.reward_when == "all_ended" and (not self.over or any(played.unfinished for played in self._played)):
            return SeatOutcome(0.0, False, metrics)
        total = combine(rewards, self.config.reward_mode)
        return SeatOutcome(total, self.over and all(successes), metrics, parts if self.config.credit == "subtask" else {})

    def _earned(self, i: int, number: int, seating: Seating) -> float:
        env = self.envs[i]
        if isinstance(env, ComposeEnv):
            return 0.0  # it pays what its valid turns earned with its own result
        return self._played[i].earned[seating(env.seats, env.trained_seats, self.tasks[i].player_info)[number]]


if __name__ == "__main__":
    import sys

    from ragen.env.terminal import play_in_terminal

    arguments = sys.argv[1:]
    if not any("base_env_list" in argument for argument in arguments):
        arguments += ["--config", "base_env_list=[{env_type: nash_new}, {env_type: tictactoe}, {env_type: undercover}]"]
    play_in_terminal("compose_new", arguments)
