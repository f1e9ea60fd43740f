"""Episodes whose trained seat is not played by an engine: a script or a server's model sits there.

Everything else, prompts, parsing, limits and scoring, is the training's own episode.
"""

from __future__ import annotations

from typing import Any

from ragen.llm_agent.episode import Agent, Episode
from ragen.players.base import Pending, SeatView
from verl.workers.rollout.base import Reply, SamplingParams


class PlayerEpisode(Episode):
    """The trained seat is taken by the scripted player ``name`` of its game."""

    def __init__(self, *args: Any, name: str):
        super().__init__(*args)
        self._scripted = name

    async def _sample(self, agent: Agent, seat: int, prompt: list[int], params: SamplingParams) -> Reply:
        env_type = getattr(self.env, "current_env_type", self.spec.env_type)
        player = self.make_player({"type": "scripted", "name": self._scripted}, env_type)
        view = SeatView(
            env_type=env_type, seat=seat, seed=self.spec.seed, rules=self.env.rules(seat), observation=self.env.observe(seat),
            feedback=agent.feedback, public=self.env.public(seat), legal=self.env.legal(seat), attempt=agent.refused,
        )  # fmt: skip
        thought = "<think></think>" if self.limits.enable_think else ""
        return _text_reply(f"{thought}<answer>{await player.reply(view)}</answer>")


class ApiEpisode(Episode):
    """The trained seat is played by a server's model; what the window shows of the conversation is sent each turn.
    ``client``: an :class:`ragen.eval.api.ApiClient`. A call that fails after its retries aborts the episode."""

    def __init__(self, *args: Any, client: Any):
        super().__init__(*args)
        self._client = client

    async def _sample(self, agent: Agent, seat: int, prompt: list[int], params: SamplingParams) -> Reply:
        future = self._client.ask(self.chat.messages(agent.conversation.visible()), params.seed)
        try:
            said = await Pending(future)
        finally:
            future.cancel()  # an episode that is closed while it waits
        return _text_reply(said.text, said.cut)


def _text_reply(text: str, cut: bool = False) -> Reply:
    ids = list(text.encode())
    return Reply("", ids, [0.0] * len(ids), cut=cut)
