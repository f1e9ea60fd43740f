"""A frozen earlier self in an untrained seat, on an engine of its own beside the policy's."""

from __future__ import annotations

from ragen.llm_agent.ctx_manager import ChatTokens
from ragen.llm_agent.reply_format import format_instruction
from ragen.llm_agent.tasks import Generate
from ragen.players.base import Player, PlayerError, SeatView
from verl.workers.rollout.base import SamplingParams


class PastSelfPlayer(Player):
    """Plays by the weights of a checkpoint that are never updated.

    It is shown the rules and the position afresh at every move (games of the house show all that
    matters in the observation), so one object serves all episodes. A reply's seed follows from
    (seed of the group, what it sees, attempt): members of a group in the same position meet the same reply.

    ``engine``: index of its engine in the runner. ``temperature``: of its sampling.
    """

    def __init__(self, name: str, engine: int, chat: ChatTokens, *, max_tokens: int, enable_think: bool, temperature: float = 1.0):
        self.name, self._engine, self._chat = name, engine, chat
        self._max_tokens, self._enable_think, self._temperature = max_tokens, enable_think, temperature

    async def reply(self, view: SeatView) -> str:
        from ragen.llm_agent.episode import request_seed

        feedback = view.feedback + "\n" if view.feedback else ""
        rules = view.rules if not view.rules or view.rules.endswith("\n") else view.rules + "\n"
        text = feedback + rules + format_instruction(self._enable_think) + "\n" + view.observation
        params = SamplingParams(
            max_tokens=self._max_tokens,
            temperature=self._temperature,
            seed=request_seed("past self", self.name, view.seed, view.seat, text, view.attempt),
            stop_token_ids=self._chat.stop_ids,
        )
        try:
            reply = await Generate(self._chat.prompt([{"role": "user", "content": text}]), params, self._engine)
        except ValueError as full:  # the prompt does not fit its engine
            raise PlayerError(str(full)) from full
        return self._chat.decode_reply(reply.token_ids)
