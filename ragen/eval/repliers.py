"""Who replies in an evaluation: a model over an engine, a model behind a server, or a rule.

A replier answers questions (``reply``) and plays games (``proxy``); ``new_chunk`` makes it forget what it did
before, ``tokens`` counts what it used where a row cannot say.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ragen.eval.cli import Settings
from ragen.eval.player_episodes import ApiEpisode, PlayerEpisode
from ragen.eval.questions import FAILED, TOO_LONG, Answer, QuestionBenchmark, Request, scripted_text
from ragen.eval.text_chat import TextChat
from ragen.llm_agent.agent_proxy import AgentProxy
from ragen.llm_agent.ctx_manager import ChatTokens
from ragen.llm_agent.episode import EpisodeLimits
from ragen.players.base import PlayerError
from ragen.players.factory import PlayerFactory
from verl.workers.rollout.base import RolloutEngine, SamplingParams

logger = logging.getLogger(__name__)

OnDone = Callable[[], None]
_NO_LIMIT = 10**9  # of a text chat, whose "tokens" are bytes


@dataclass
class Seats:
    """Players of a game's other seats: a factory, and the engines that checkpoints among them need.
    ``first``: index of the first of those engines in the runner."""

    factory: PlayerFactory = field(default_factory=PlayerFactory)
    engines: list[RolloutEngine] = field(default_factory=list)


@dataclass
class ModelReplier:
    """A model in this process."""

    engine: RolloutEngine
    chat: ChatTokens
    identity: dict[str, Any]
    counts_tokens = True

    def __post_init__(self) -> None:
        self._all = [self.engine]

    def proxy(self, limits: dict[str, Any], seats: Seats) -> AgentProxy:
        """Plays games exactly as a training worker does. Raises ``ValueError`` where the chat template does not fit the form."""
        self.chat.check_form(limits.get("enable_think", True))
        self._all = [self.engine, *seats.engines]
        return AgentProxy(self._all, self.chat, seats.factory, EpisodeLimits(max_model_len=self.engine.max_model_len, **limits))

    def new_chunk(self) -> None:
        """Forget cached prefixes, so that a resumed run's chunks are bit for bit those of an unbroken one."""
        for engine in self._all:
            engine.reset_prefix_cache()

    def reply(self, requests: Sequence[Request], bench: QuestionBenchmark, settings: Settings, on_done: OnDone) -> list[Answer]:
        """Answers in the order of ``requests``, generated with continuous batching. Raises ``ValueError`` where the chat
        template does not fit the form that the questions ask for."""
        if bench.prompt.get("think") is False:
            self.chat.check_form(False)
        answers: list[Answer | None] = [None] * len(requests)
        lengths, room = {}, self.engine.max_model_len
        prompts: dict[str, list[int]] = {}  # samples of one question share their prompt
        for i, request in enumerate(requests):
            ids = prompts.get(request.question.id) or self.chat.prompt(request.question.turns)
            prompts[request.question.id] = ids
            if len(ids) >= room:
                answers[i] = Answer(
                    status=TOO_LONG, tokens=(len(ids), 0), error=f"the prompt has {len(ids)} tokens, max_model_len is {room}"
                )
                on_done()
                continue
            lengths[i] = len(ids)
            params = SamplingParams(
                min(settings.max_tokens, room - len(ids)), settings.temperature, settings.top_p, settings.top_k,
                request.seed, self.chat.stop_ids, logprobs=False,
            )  # fmt: skip
            self.engine.add(str(i), ids, params)
        while self.engine.unfinished:
            for reply in self.engine.step():
                i = int(reply.request_id)
                answers[i] = Answer(
                    self.chat.decode_reply(reply.token_ids), tokens=(lengths[i], len(reply.token_ids)), cut=reply.cut
                )
                on_done()
        return answers

    def tokens(self) -> tuple[int, int]:
        return (0, 0)  # its rows count them

    def close(self) -> None:
        for engine in self._all:
            engine.close()


@dataclass
class ScriptedReplier:
    """A rule in the model's place: the same prompts, parsing and scoring around it."""

    name: str
    chat: TextChat
    identity: dict[str, Any] = field(default_factory=dict)
    counts_tokens = False

    def __post_init__(self) -> None:
        self.identity = {"kind": "scripted", "name": self.name}

    def proxy(self, limits: dict[str, Any], seats: Seats) -> AgentProxy:
        make = functools.partial(PlayerEpisode, name=self.name)
        return AgentProxy(list(seats.engines), self.chat, seats.factory, EpisodeLimits(max_model_len=_NO_LIMIT, **limits), make)

    def new_chunk(self) -> None:
        """It remembers nothing."""

    def reply(self, requests: Sequence[Request], bench: QuestionBenchmark, settings: Settings, on_done: OnDone) -> list[Answer]:
        """Raises ``ValueError`` if the benchmark has no such script."""
        answers = []
        for request in requests:
            try:
                answers.append(Answer(scripted_text(bench, self.name, request)))
            except KeyError:
                raise ValueError(f"--scripted {self.name}: {bench.name} knows random and perfect") from None
            on_done()
        return answers

    def tokens(self) -> tuple[int, int]:
        return (0, 0)

    def close(self) -> None:
        """It holds nothing."""


@dataclass
class ApiReplier:
    """A model behind an OpenAI-compatible server. ``client``: an :class:`ragen.eval.api.ApiClient`."""

    client: Any
    chat: TextChat
    identity: dict[str, Any] = field(default_factory=dict)
    counts_tokens = False

    def __post_init__(self) -> None:
        self.identity = {"kind": "api", "name": self.client.model, "url": self.client.url}

    def proxy(self, limits: dict[str, Any], seats: Seats) -> AgentProxy:
        make = functools.partial(ApiEpisode, client=self.client)
        return AgentProxy(list(seats.engines), self.chat, seats.factory, EpisodeLimits(max_model_len=_NO_LIMIT, **limits), make)

    def new_chunk(self) -> None:
        """The server's business."""

    def reply(self, requests: Sequence[Request], bench: QuestionBenchmark, settings: Settings, on_done: OnDone) -> list[Answer]:
        futures = [self.client.ask(self.chat.messages(request.question.turns), request.seed) for request in requests]
        answers = []
        try:
            for future in futures:
                try:
                    said = future.result()
                    answers.append(Answer(said.text, tokens=said.tokens, cut=said.cut))
                except PlayerError as failure:
                    answers.append(Answer(status=FAILED, error=str(failure)))
                on_done()
        finally:
            for future in futures:
                future.cancel()
        return answers

    def tokens(self) -> tuple[int, int]:
        """Prompt and reply tokens that the server has counted so far."""
        return self.client.tokens()

    def close(self) -> None:
        """The connections are closed with the process."""
