"""Several games one after another in one trajectory, as an :class:`~ragen.env.base.Env`.

The nest is always one of its sub-tasks: seats, trained seat, rules, observations and opponents are
that game's. When it ends, or its trained seat has used up its turns, the next begins.

*Agents*: a player in the sense of the episode goes through all sub-tasks, in whatever seat each
game gives it. Agent 0 sits in the trained seat, agent 1 in the first of the others, and so on;
rewards are kept by agent.

``python -m ragen.env.compose_new.env`` plays one in the terminal.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ragen.env import make_env
from ragen.env.base import Env, Outcome, SeatOutcome, SummaryRequest, Verdict, derived_rng
from ragen.env.compose_new.config import ComposeConfig, SubTask
from ragen.env.compose_new.rewards import combine, difficulty_weights


@dataclass
class _Played:
    """What has happened in one sub-task, by agent: what valid turns earned, replies given, the
    place of the last reply among all of the agent's."""

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
        self.success_rates: dict[str, float] = {}

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

    def player_info_now(self) -> list[dict]:
        inner = self.env.player_info_now()
        return list(self.tasks[self.current].player_info) if inner is None else inner

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
        limit, replies = self.tasks[self.current].max_turn, self._played[self.current].replies
        trained = self.env.trained_seats

        def spent(seat: int) -> bool:
            return limit is not None and seat in trained and replies[self._agent(self.current, seat)] >= limit

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
        verdict = self.env.act(seat, text)
        if verdict.valid:
            self._played[self.current].earned[self._agent(self.current, seat)] += verdict.reward
            verdict = Verdict(True, verdict.effective, verdict.feedback, 0.0)
        self._count(seat)
        return verdict

    def refused(self, seat: int) -> None:
        self.env.refused(seat)
        self._count(seat)

    def _count(self, seat: int) -> None:
        agent, played = self._agent(self.current, seat), self._played[self.current]
        played.replies[agent] += 1
        played.last_reply[agent] = self._replies[agent]
        self._replies[agent] += 1
        self._settle()

    # -- agents ---------------------------------------------------------------------------------

    def _agents(self, i: int) -> list[int]:
        """Seats of sub-task ``i`` by agent: trained ones, then those the policy plays against
        itself, then the rest (the episode numbers them so)."""
        trained, entries = self.envs[i].trained_seats, self.tasks[i].player_info
        others = [seat for seat in range(self.envs[i].seats) if seat not in trained]
        entry = [entries[min(n, len(entries) - 1)] if entries else {} for n in range(len(others))]
        policy = [s for s, e in zip(others, entry, strict=True) if e.get("type") == "policy" and not e.get("checkpoint")]
        return [*trained, *policy, *(s for s in others if s not in policy)]

    def _agent(self, i: int, seat: int) -> int:
        return self._agents(i).index(seat)

    # -- the result -----------------------------------------------------------------------------

    def outcome(self) -> Outcome:
        seats = self._agents(self.current)
        nobody = SeatOutcome(0.0, False)
        return Outcome(tuple(self._agent_outcome(seats.index(s)) if s in seats else nobody for s in range(self.seats)))

    def _agent_outcome(self, agent: int) -> SeatOutcome:
        weights = difficulty_weights([t.name for t in self.tasks], self.success_rates if self.config.reward_improve else {})
        rewards, metrics, parts, successes = [], {}, {}, []
        mine = [i for i in range(len(self.tasks)) if agent < self.envs[i].seats]
        for i in mine:
            played, name = self._played[i], f"sub/{self.tasks[i].name}"
            if not played.begun:
                rewards.append(0.0)
                successes.append(False)
                continue
            result = self.envs[i].outcome()[self._agents(i)[agent]]
            success = result.success and not played.unfinished
            reward = played.earned[agent] + result.reward
            rewards.append(reward * weights[self.tasks[i].name] if success else reward)
            successes.append(success)
            metrics[f"{name}/success"] = float(success)
            metrics[f"{name}/unfinished"] = float(played.unfinished)
            metrics.update({f"{name}/{key}": float(value) for key, value in result.metrics.items()})
            if agent in played.last_reply:
                parts[played.last_reply[agent]] = rewards[-1] / len(mine)
        if self.config.reward_when == "all_ended" and (not self.over or any(played.unfinished for played in self._played)):
            return SeatOutcome(0.0, False, metrics)
        total = combine(rewards, self.config.reward_mode)
        return SeatOutcome(total, self.over and all(successes), metrics, parts if self.config.credit == "subtask" else {})


if __name__ == "__main__":
    import sys

    from ragen.env.terminal import play_in_terminal

    arguments = sys.argv[1:]
    if not any("base_env_list" in argument for argument in arguments):
        arguments += ["--config", "base_env_list=[{env_type: nash_new}, {env_type: tictactoe}, {env_type: undercover}]"]
    play_in_terminal("compose_new", arguments)
