"""What a chat template does, found by rendering it around sentinels rather than by reading it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from jinja2 import TemplateError

log = logging.getLogger(__name__)

# Letters only, so that no tokenizer or template treats them specially.
_SYSTEM, _USER, _THOUGHT, REPLY, _LAST = "QZXSYSTEMXZQ", "QZXUSERXZQ", "QZXTHOUGHTXZQ", "QZXREPLYXZQ", "QZXLASTXZQ"
_OPEN, _CLOSE = "<think>", "</think>"


class ChatTemplate:
    """One tokenizer's template and system prompt.

    Attributes:
        opening: what the generation prompt writes of the reply itself: ``<think>\\n`` of models that always think; "" where
            it writes nothing of it, or a thought that is already closed (Qwen3 with ``enable_thinking=false``).
        append_only: an earlier reply, thoughts included, stays word for word where it was.
        strips_thoughts: thoughts of earlier replies are left out.
        scaffold: all that it writes around messages.

    Raises ``ValueError`` where there is no template, or one that refuses a plain conversation.
    """

    def __init__(self, tokenizer, system_prompt: str | None, kwargs: Mapping[str, Any] | None):
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                "the tokenizer has no chat template: use an instruct model, or put a chat_template.jinja into its folder"
            )
        self._tokenizer, self._kwargs = tokenizer, dict(kwargs or {})
        self.system_prompt = system_prompt
        try:
            self._folds_system = bool(system_prompt) and not self._takes_system()
            self._probe()
        except TemplateError as error:
            raise ValueError(
                f"the chat template refuses a conversation of user and assistant ({error}): put another "
                "chat_template.jinja into the model's folder"
            ) from error

    def render(self, turns: list[dict], *, generate: bool = True) -> str:
        """``turns`` (user and assistant in turn) with the system prompt, and the generation prompt."""
        return self._apply(self._with_system(turns), generate)

    def tail(self, user_text: str) -> str:
        """What follows an earlier reply: its end, the next user message, the generation prompt."""
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": REPLY}, {"role": "user", "content": user_text}]
        return self.render(turns).split(REPLY, 1)[1]

    def messages(self, turns: list[dict]) -> list[dict]:
        """For the record: the system prompt as a message of its own."""
        return ([{"role": "system", "content": self.system_prompt}] if self.system_prompt else []) + turns

    def _apply(self, messages: list[dict], generate: bool) -> str:
        return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate, **self._kwargs)

    def _with_system(self, turns: list[dict]) -> list[dict]:
        if not self._folds_system:
            return self.messages(turns)
        first = next((i for i, turn in enumerate(turns) if turn["role"] == "user"), None)
        if first is None:
            return turns
        folded = dict(turns[first], content=f"{self.system_prompt}\n\n{turns[first]['content']}")
        return [*turns[:first], folded, *turns[first + 1 :]]

    def _takes_system(self) -> bool:
        user = {"role": "user", "content": _USER}
        try:
            taken = _SYSTEM in self._apply([{"role": "system", "content": _SYSTEM}, user], True)
            why = "leaves it out"
        except TemplateError as error:
            taken, why = False, f"refuses it: {error}"
        if not taken:
            log.warning("the chat template has no system role (%s): the system prompt goes in front of the first user message", why)
        return taken

    def _probe(self) -> None:
        first = [{"role": "user", "content": _USER}]
        prompt = self.render(first)
        self.opening = _opening(prompt.rsplit(_USER, 1)[-1])
        said = f"{self.opening or _OPEN}{_THOUGHT}{_CLOSE}<answer>{REPLY}</answer>"
        later = self.render([*first, {"role": "assistant", "content": said}, {"role": "user", "content": _LAST}])
        if REPLY not in later or not prompt.strip():
            raise ValueError("the chat template leaves messages out: put another chat_template.jinja into the model's folder")
        self.append_only = later.startswith(prompt + said.removeprefix(self.opening))
        self.strips_thoughts = _THOUGHT not in later
        self.scaffold = prompt + later + self.render(first, generate=False)


def _opening(after_user: str) -> str:
    """``after_user``: what stands between the last user message and the first sampled token."""
    opened, closed = after_user.rfind(_OPEN), after_user.rfind(_CLOSE)
    return after_user[opened:] if opened > closed else ""
