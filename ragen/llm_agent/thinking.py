"""A budget of thought: a reply that is still thinking when it is spent is led to its answer.

The end of the thought and the beginning of the answer are then *given*: appended to the reply, never trained (the mask is
False there), and the answer is sampled after them. What was sampled keeps the log-probabilities under the very
tokens before it, so a trajectory stays true.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from ragen.llm_agent.ctx_manager import ChatTokens
from ragen.llm_agent.reply_format import in_thought
from verl.workers.rollout.base import Reply, SamplingParams

#: the second request's seed is the first one's with these bits turned
_ANSWER_SEED = 0x5A5A5A5A5A5A5A5A >> 1


@dataclass(frozen=True)
class WholeReply:
    """A reply of one or two requests. Three lists of one length; ``mask`` is False at given tokens."""

    ids: list[int]
    logprobs: list[float]
    mask: list[bool]
    cut: bool


def closing(chat: ChatTokens) -> list[int]:
    """Ids that end a thought and begin an answer, on lines of their own where the template opens thoughts so."""
    text = "\n</think>\n\n<answer>" if "\n" in chat.opening else "</think><answer>"
    return chat.control.encode(text)


async def reply_within(
    budget: int | None, chat: ChatTokens, prompt: list[int], params: SamplingParams,
    sample: Callable[[list[int], SamplingParams], Awaitable[Reply]],
) -> WholeReply:  # fmt: skip
    """Sample a reply to ``prompt``, at most ``budget`` tokens of it thought (``None``: no such limit).

    ``params.max_tokens`` limits the whole reply, given tokens included; at least one token is left for the
    answer. ``sample(prompt_ids, params)`` asks the engine.
    """
    given = closing(chat) if budget is not None else []
    first = params.max_tokens if budget is None else min(budget, params.max_tokens - len(given) - 1)
    if budget is None or first < 1:  # no room for two requests
        return _whole(await sample(prompt, params))
    start = _whole(await sample(prompt, replace(params, max_tokens=first)))
    if not start.cut:
        return start
    if not in_thought(chat.decode_reply(start.ids)):
        given = []
    before = [*start.ids, *given]
    seed = None if params.seed is None else params.seed ^ _ANSWER_SEED
    end = _whole(await sample([*prompt, *before], replace(params, max_tokens=params.max_tokens - len(before), seed=seed)))
    return WholeReply(
        [*before, *end.ids],
        [*start.logprobs, *([0.0] * len(given)), *end.logprobs],
        [*start.mask, *([False] * len(given)), *end.mask],
        end.cut,
    )


def _whole(reply: Reply) -> WholeReply:
    return WholeReply(list(reply.token_ids), list(reply.logprobs), [True] * len(reply.token_ids), reply.cut)
