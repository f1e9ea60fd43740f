"""One game as a coroutine: who acts, what they are shown, what they earn.

The episode knows no engine and no process. It awaits replies (``ragen.llm_agent.tasks``) and leaves
behind one :class:`Trajectory` an agent. An *agent* is one conversation with the policy: the trained
seat (in a nest, the trained seats of the sub-tasks in turn), and in self-play every policy seat.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ragen.env.base import Env, SeatOutcome, Verdict
from ragen.env.seating import agent_seats, entry_of
from ragen.llm_agent.ctx_manager import ChatTokens, Conversation
from ragen.llm_agent.overlong import OverlongRule
from ragen.llm_agent.reply_format import ParsedReply, find_answer, format_feedback, format_instruction, parse_reply
from ragen.llm_agent.tasks import Gather, Generate
from ragen.llm_agent.thinking import reply_within
from ragen.llm_agent.trajectory import ABORTED, FINISHED, FORFEIT, TRUNCATED, UNFINISHED, Trajectory, Turn
from ragen.players.base import Player, PlayerError, SeatView
from ragen.players.summary import summary_view
from verl.workers.rollout.base import Reply, SamplingParams

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpisodeSpec:
    """Which game: ``group`` and ``member`` place it in the step's batch, ``seed`` is the group's."""

    tag: str
    env_type: str
    group: int
    member: int
    seed: int


@dataclass(frozen=True)
class EpisodeLimits:
    """``max_turn``: replies of one agent. ``window``: earlier turns a prompt shows, 0 for all, -1 for none.
    ``opponent_retries``: refused replies an opponent may give in one position before the episode
    is aborted. ``max_model_len``: longest prompt plus reply, in tokens. ``max_think_tokens``: of a reply, spent on
    thoughts (``None``: no limit of their own). ``overlong``: what becomes of replies at their limit.
    ``forfeit_on_invalid``: an invalid reply of the policy, or of an opponent that has no retries left, ends the game
    without a winner (status ``forfeit``). ``read``: how the policy's reply is taken apart."""

    max_turn: int
    max_model_len: int
    enable_think: bool = True
    format_penalty: float = -0.1
    window: int = 0
    opponent_retries: int = 2
    max_think_tokens: int | None = None
    overlong: OverlongRule = OverlongRule()
    forfeit_on_invalid: bool = False
    read: Callable[[str, bool], ParsedReply] = parse_reply


@dataclass(frozen=True)
class Sampling:
    """Sampling of the policy; ``run_key`` is all that a request's own seed depends on besides
    group, member, agent and turn: (run seed, phase, step)."""

    run_key: tuple
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1


def request_seed(*key) -> int:
    """A 63-bit seed that is a pure function of ``key``."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1


class OutOfTurns(Exception):
    pass


class OutOfRoom(Exception):
    pass


class Forfeited(PlayerError):
    """The text says what an opponent did; empty where the policy's own reply was invalid."""


@dataclass
class Agent:
    """One conversation with the policy and what came of it. ``seat`` and ``role``: in a nest those of the
    last sub-task that it had a seat in. ``feedback``, ``refused`` (replies in a row): of this sub-task."""

    index: int
    conversation: Conversation
    shown_rules: str | None = None
    feedback: str = ""
    refused: int = 0
    turns: list[Turn] = field(default_factory=list)
    seat: int = 0
    role: str = ""


@dataclass(frozen=True)
class _Request:
    """A reply of the policy that is about to be sampled. ``public``: the position it answers."""

    prompt: list[int]
    params: SamplingParams
    public: Any


class Episode:
    """``make_player(entry, env_type) -> Player`` builds the opponents of a ``player_info`` list; an
    entry ``{type: policy}`` without checkpoint is the policy itself (self-play)."""

    def __init__(
        self, spec: EpisodeSpec, env: Env, chat: ChatTokens, limits: EpisodeLimits, sampling: Sampling,
        player_info: list[dict], make_player: Callable[[dict, str], Player],
    ):  # fmt: skip
        self.spec, self.env, self.chat, self.limits, self.sampling = spec, env, chat, limits, sampling
        self.player_info, self.make_player = player_info, make_player
        self.agents: dict[int, Agent] = {}
        self.opponents: dict[str, None] = {}
        self.attempts: dict[int, int] = {}  # of opponents in this position, by seat
        self.feedback: dict[int, str] = {}
        self._sub_task: tuple[int, ...] = ()

    async def run(self) -> list[Trajectory]:
        self.env.reset(seed=self.spec.seed)
        self._sub_task = self.env.sub_task_now()
        status, error = FINISHED, ""
        for seat in self.env.trained_seats:  # so that an episode aborted before its first turn is counted too
            self._agent(seat)
        try:
            while acting := self.env.acting():
                self._enter_sub_task()
                await self._summarise(acting)
                await self._play(acting)
                self._end_on_invalid()
        except Forfeited as forfeit:
            status, error = FORFEIT, str(forfeit)
        except OutOfTurns:
            status = UNFINISHED
        except OutOfRoom:
            status = TRUNCATED
        except PlayerError as failure:
            status, error = ABORTED, str(failure)
        return [self._trajectory(agent, status, error) for _, agent in sorted(self.agents.items())]

    def _end_on_invalid(self) -> None:
        """Where an invalid reply ends the game: after all who acted at once have been judged."""
        if self.limits.forfeit_on_invalid and any(agent.turns and not agent.turns[-1].valid for agent in self.agents.values()):
            raise Forfeited

    def _enter_sub_task(self) -> None:
        """Where a nest has moved on, forget what was said of replies in the last sub-task, and reseat the agents."""
        if self.env.sub_task_now() == self._sub_task:
            return
        self._sub_task = self.env.sub_task_now()
        self.attempts.clear()
        self.feedback.clear()
        for agent in self.agents.values():
            agent.feedback, agent.refused = "", 0
        for index, seat in enumerate(self._agent_seats()):
            if index in self.agents:
                self._agent(seat)

    # -- a round: who acts now, at once -----------------------------------------------------------

    async def _play(self, acting: Sequence[int]) -> None:
        """Ask all seats in ``acting``, then play their moves in order. Nobody is asked unless everybody can be,
        so that no reply is sampled in vain; a player that fails keeps nobody's reply from being judged."""
        agents = [self._agent(seat) for seat in acting]
        for agent in agents:
            if agent is not None and len(agent.turns) >= self.limits.max_turn:
                raise OutOfTurns
        requests = [self._request(agent, seat) if agent else None for agent, seat in zip(agents, acting, strict=True)]
        asked = [self._reply(*one) for one in zip(agents, acting, requests, strict=True)]
        moves = [await asked[0]] if len(asked) == 1 else await Gather(asked)
        failures = [self._apply(*one) for one in zip(agents, acting, moves, strict=True)]
        for failure in failures:
            if failure is not None:
                raise failure

    async def _reply(self, agent: Agent | None, seat: int, request: _Request | None) -> str | Turn | PlayerError:
        try:
            return await (self._policy_reply(agent, seat, request) if agent else self._opponent_reply(seat))
        except PlayerError as failure:
            return failure

    def _apply(self, agent: Agent | None, seat: int, move: str | Turn | PlayerError) -> PlayerError | None:
        """Play one move. Returns the failure of a player who gave none, or none that is legal."""
        if isinstance(move, PlayerError):
            return move
        late = self.env.sub_task_now() != self._sub_task or seat not in self.env.acting()  # another's move ended the round
        try:
            if agent is not None:
                (self._refuse_late if late else self._apply_policy)(agent, seat, move)
            elif not late:
                self._apply_opponent(seat, move)
        except PlayerError as failure:
            return failure
        return None

    # -- seats ----------------------------------------------------------------------------------

    def _entries(self) -> Sequence[dict]:
        """``player_info`` of the game being played."""
        entries = self.env.player_info_now()
        return self.player_info if entries is None else entries

    def _entry(self, seat: int) -> dict:
        """The ``player_info`` entry in an untrained seat."""
        entry = entry_of(seat, self.env.seats_now, self.env.trained_seats, self._entries())
        if entry is None:
            env_type, tag = getattr(self.env, "current_env_type", self.spec.env_type), self.spec.tag
            where = f"custom_envs.{tag}.env_config.player_info"
            if self.env.player_info_now() is not None:
                where = f"the player_info of this sub-task of {tag} (a nest's own is not read)"
            raise ValueError(f"{tag}: seat {seat} of {env_type} has no player; list opponents in {where}")
        return entry

    def _agent_seats(self) -> tuple[int, ...]:
        return agent_seats(self.env.seats_now, self.env.trained_seats, self._entries())

    def _agent(self, seat: int) -> Agent | None:
        """The agent in ``seat``, if the policy sits there."""
        seats = self._agent_seats()
        if seat not in seats:
            return None
        index = seats.index(seat)
        if index not in self.agents:
            self.agents[index] = Agent(index, Conversation(self.chat, window=self.limits.window))
        agent = self.agents[index]
        agent.seat, agent.role = seat, self.env.role(seat)
        return agent

    # -- the policy -----------------------------------------------------------------------------

    def _prompt_text(self, agent: Agent, seat: int) -> tuple[str, str]:
        """What the agent is told now, and the rules if they are new to it."""
        rules = self.env.rules(seat)
        new = rules if rules != agent.shown_rules else ""
        if new and not new.endswith("\n"):
            new += "\n"
        first = agent.shown_rules is None or bool(new)
        agent.shown_rules = rules
        if first:  # before the observation, so that what changes stands at the end of every prompt
            new += format_instruction(self.limits.enable_think) + "\n"
        feedback = agent.feedback + "\n" if agent.feedback else ""
        return feedback + new + self.env.observe(seat), new

    def _request(self, agent: Agent, seat: int) -> _Request:
        """Raises :class:`OutOfRoom` where the prompt leaves no room for a reply."""
        public = self.env.public(seat)
        prompt = agent.conversation.prompt_for(*self._prompt_text(agent, seat))
        room = self.limits.max_model_len - len(prompt)
        if room < 1:
            raise OutOfRoom
        key = (*self.sampling.run_key, self.spec.group, self.spec.member, agent.index, len(agent.turns))
        params = SamplingParams(
            max_tokens=min(self.sampling.max_tokens, room),
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            top_k=self.sampling.top_k,
            seed=request_seed(*key),
            stop_token_ids=self.chat.stop_ids,
        )
        return _Request(list(prompt), params, public)

    async def _policy_reply(self, agent: Agent, seat: int, request: _Request) -> Turn:
        budget = self.limits.max_think_tokens if self.limits.enable_think else None
        reply = await reply_within(budget, self.chat, request.prompt, request.params, lambda *asked: self._sample(agent, seat, *asked))
        turn = agent.conversation.sampled(reply.ids, reply.logprobs, cut=reply.cut, mask=reply.mask)
        turn.public = request.public
        agent.turns.append(turn)
        return turn

    async def _sample(self, agent: Agent, seat: int, prompt: list[int], params: SamplingParams) -> Reply:
        """Where the policy's replies come from: the engine (an evaluation may seat others)."""
        return await Generate(prompt, params)

    def _apply_policy(self, agent: Agent, seat: int, turn: Turn) -> None:
        parsed = self.limits.read(turn.reply, self.limits.enable_think)
        if parsed.ok:
            verdict = self.env.act(seat, parsed.answer)
        else:
            verdict = self._off_form()
            self.env.refused(seat)
        self._judged(agent, turn, verdict)

    def _refuse_late(self, agent: Agent, seat: int, turn: Turn) -> None:
        """Of a reply that came too late to be played, the form alone can be judged."""
        parsed = self.limits.read(turn.reply, self.limits.enable_think)
        self._judged(agent, turn, Verdict(True, False) if parsed.ok else self._off_form())

    def _off_form(self) -> Verdict:
        return Verdict(False, False, format_feedback(self.limits.enable_think), self.limits.format_penalty)

    def _judged(self, agent: Agent, turn: Turn, verdict: Verdict) -> None:
        turn.valid, turn.effective, turn.reward = verdict.valid, verdict.effective, verdict.reward
        self.limits.overlong.apply(turn, self.sampling.max_tokens)
        turn.feedback = agent.feedback = verdict.feedback
        agent.refused = 0 if verdict.valid else agent.refused + 1

    # -- everybody else -------------------------------------------------------------------------

    async def _opponent_reply(self, seat: int) -> str:
        env_type = getattr(self.env, "current_env_type", self.spec.env_type)
        player = self.make_player(self._entry(seat), env_type)
        self.opponents[player.name] = None
        view = SeatView(
            env_type=env_type, seat=seat, seed=self.spec.seed, rules=self.env.rules(seat),
            observation=self.env.observe(seat), feedback=self.feedback.get(seat, ""),
            public=self.env.public(seat), legal=self.env.legal(seat), attempt=self.attempts.get(seat, 0),
        )  # fmt: skip
        return find_answer(await player.reply(view))

    def _apply_opponent(self, seat: int, text: str) -> None:
        verdict = self.env.act(seat, text)
        self.feedback[seat] = verdict.feedback
        self.attempts[seat] = 0 if verdict.valid else self.attempts.get(seat, 0) + 1
        if self.attempts[seat] > self.limits.opponent_retries:
            failure = f"the opponent in seat {seat} made no legal move in {self.attempts[seat]} attempts; last: {text[:80]!r}"
            raise Forfeited(failure) if self.limits.forfeit_on_invalid else PlayerError(failure)

    async def _summarise(self, acting: tuple[int, ...]) -> None:
        """Have a record that grew too long told in short by the model that the env's config names.
        If that model fails, the env's own rule shortens the record: no reason to lose the game."""
        for seat in acting:
            request = self.env.summary_request(seat)
            if request is None:
                continue
            player = self.make_player(request.player, self.spec.env_type)
            try:
                text = find_answer(await player.reply(summary_view(request, self.spec.env_type, seat, self.spec.seed)))
            except PlayerError as failure:
                logger.warning("%s: no summary (%s); the record is cut instead", self.spec.tag, failure)
                text = ""
            self.env.summarised(seat, text)

    # -- the result -----------------------------------------------------------------------------

    def _trajectory(self, agent: Agent, status: str, error: str) -> Trajectory:
        outcome = self.env.result(agent.index, agent_seats, self._entries()) or SeatOutcome(0.0, False)
        turns = agent.turns
        if turns:
            for place, earned in outcome.turn_rewards.items():
                turns[place].reward += earned
            turns[-1].reward += outcome.reward - sum(outcome.turn_rewards.values())
        for sample in agent.conversation.samples:
            sample.cut_after_last_turn()
        refused = sum(not t.valid for t in turns)
        metrics = {
            **outcome.metrics,
            "invalid": refused / len(turns) if turns else 0.0,
            "unfinished": float(status == UNFINISHED),
            "truncated": float(status == TRUNCATED),
            "aborted": float(status == ABORTED),
            "turns": float(len(turns)),
        }
        if self.limits.forfeit_on_invalid:
            metrics["forfeit"] = float(status == FORFEIT)
        spec = self.spec
        return Trajectory(
            spec.tag, spec.group, spec.member, agent.index, spec.seed, agent.seat, agent.role,
            opponent=",".join(self.opponents) or ("self" if len(self.agents) > 1 else ""),
            samples=[s for s in agent.conversation.samples if s.turns],
            status=status, reward=sum(t.reward for t in turns), success=outcome.success and status == FINISHED,
            metrics=metrics, messages=agent.conversation.chat.messages(agent.conversation.turns), error=error,
        )  # fmt: skip

