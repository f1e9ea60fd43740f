"""Text to tokens: a conversation kept as token ids, never as text to be tokenized again.

What the policy sampled is appended as the ids the engine returned. What the environment says is
appended as the *difference* the chat template makes: the template is rendered around a sentinel, and
only the text it puts between the sampled reply and the next generation prompt is tokenized. So the
sampled tokens stay bit for bit what they were, for any tokenizer and any content, and the mask is
provenance, not a search for markers. What a message says never becomes a control token
(``ragen.llm_agent.control_tokens``).

Where a context cannot only grow (a template that strips earlier thoughts, a window of turns), each
turn is a sample of its own: its prompt is rendered from the messages, its reply is what was sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ragen.llm_agent.chat_template import ChatTemplate
from ragen.llm_agent.control_tokens import ControlTokens
from ragen.llm_agent.reply_format import in_thought
from ragen.llm_agent.trajectory import Sample, Turn


class ChatTokens:
    """Token ids of prompts and continuations under one tokenizer's chat template.

    Args:
        system_prompt: ``None`` or "": none. A template without a system role has it in front of the first user message.
        template_kwargs: further arguments of the template (``enable_thinking``), ``data.apply_chat_template_kwargs``.

    Raises ``ValueError`` if the tokenizer has no usable chat template, or no token that ends a reply.
    """

    def __init__(self, tokenizer, *, system_prompt: str | None = None, template_kwargs: Mapping[str, Any] | None = None):
        self.tokenizer = tokenizer
        self.template = ChatTemplate(tokenizer, system_prompt, template_kwargs)
        self.control = ControlTokens(tokenizer, self.template.scaffold)
        self._end = self.control.encode(self.control.leading(self.template.tail("x")))
        self.stop_ids = self._find_stop_ids()

    @property
    def append_only(self) -> bool:
        """Whether a context may grow by what was sampled: the template keeps earlier replies word for word."""
        return self.template.append_only

    @property
    def opening(self) -> str:
        """What the generation prompt already wrote of every reply: "", or ``<think>`` with what follows it."""
        return self.template.opening

    def messages(self, turns: list[dict]) -> list[dict]:
        return self.template.messages(turns)

    def check_form(self, enable_think: bool) -> None:
        """Raises ``ValueError`` where the template makes every reply one off the form."""
        if self.opening and not enable_think:
            raise ValueError(
                f"the chat template begins every reply with {self.opening.strip()}, but replies are to be answers alone: use "
                "agent_proxy.enable_think=true (--think), or, if the template has that switch, enable_thinking: false in "
                "data.apply_chat_template_kwargs (--chat_template_kwargs)"
            )

    def _find_stop_ids(self) -> tuple[int, ...]:
        """The token that the template writes right after a reply, and the tokenizer's own end."""
        stops = [i for i in (*self._end[-1:], self.tokenizer.eos_token_id) if i is not None]
        if not stops:
            raise ValueError("no token ends a reply: the chat template closes it with plain text and the tokenizer has no eos_token")
        return tuple(dict.fromkeys(stops))

    def prompt(self, turns: list[dict]) -> list[int]:
        """Ids of a whole conversation, ending in the generation prompt."""
        return self.control.encode(self.template.render([dict(t, content=self._shown(t)) for t in turns]))

    def _shown(self, turn: dict) -> str:
        text = turn["content"]
        if self.template.strips_thoughts and turn["role"] == "assistant" and in_thought(text):
            text += "</think>"  # a thought that was cut is left out like any other
        return self.control.quote(text)

    def continuation(self, content: str, last_id: int) -> list[int]:
        """Ids between a sampled reply that ended in ``last_id`` and the next generation prompt, the
        user message ``content`` within."""
        ids = self.control.encode(self.template.tail(self.control.quote(content)))
        ended = self._end and last_id == self._end[-1] and ids[: len(self._end)] == self._end
        return ids[len(self._end) :] if ended else ids

    def decode_reply(self, ids: list[int]) -> str:
        """Text of a reply without its end token (other special tokens stay visible); what the generation
        prompt wrote of it comes first."""
        if ids and ids[-1] in self.stop_ids:
            ids = ids[:-1]
        return self.opening + self.tokenizer.decode(ids, skip_special_tokens=False)


class Conversation:
    """One agent's context. ``window``: how many earlier turns a prompt shows (0: all of them, -1: none)."""

    def __init__(self, chat: ChatTokens, *, window: int = 0):
        self.chat = chat
        self.window = window
        self.append_only = chat.append_only and not window
        self.turns: list[dict] = []
        self.samples: list[Sample] = []
        self._rules = ""

    def prompt_for(self, user_text: str, rules: str = "") -> list[int]:
        """Add a user message and return the ids to sample from. ``rules`` (empty: none shown yet or
        unchanged) are repeated at the head of a window that no longer shows them."""
        self._rules = rules or self._rules
        self.turns.append({"role": "user", "content": user_text})
        if self.append_only and self.samples:
            sample = self.samples[-1]
            new = self.chat.continuation(user_text, sample.ids[-1])
            self._append(sample, new)
        else:
            self.samples.append(Sample())
            self._append(self.samples[-1], self.chat.prompt(self.visible()))
        return self.samples[-1].ids

    def visible(self) -> list[dict]:
        """The messages that the next reply may see: the window, the rules at its head."""
        count = 2 * max(self.window, 0) + 1
        if not self.window or len(self.turns) <= count:
            return self.turns
        shown = self.turns[-count:]
        if self._rules and not any(self._rules in t["content"] for t in shown):
            shown = [dict(shown[0], content=self._rules + shown[0]["content"])] + shown[1:]
        return shown

    @staticmethod
    def _append(sample: Sample, ids: list[int]) -> None:
        sample.ids.extend(ids)
        sample.mask.extend([False] * len(ids))
        sample.logprobs.extend([0.0] * len(ids))

    def sampled(self, ids: list[int], logprobs: list[float], *, cut: bool, mask: Sequence[bool] | None = None) -> Turn:
        """Append what the engine returned; ``cut``: it ran into the token limit. ``mask``: False at tokens among
        ``ids`` that were not sampled but given (``ragen.llm_agent.thinking``), where ``logprobs`` is 0.0."""
        sample = self.samples[-1]
        start = len(sample.ids)
        mask = [True] * len(ids) if mask is None else list(mask)
        sample.ids.extend(ids)
        sample.mask.extend(mask)
        sample.logprobs.extend(logprobs)
        text = self.chat.decode_reply(ids)
        turn = Turn(
            start, len(sample.ids), text, prompt=self.turns[-1]["content"], cut_at_limit=cut,
            opening=self.chat.opening, given=mask.count(False),
        )  # fmt: skip
        sample.turns.append(turn)
        self.turns.append({"role": "assistant", "content": text})
        return turn
