"""A stand-in for :class:`~ragen.llm_agent.ctx_manager.ChatTokens` where no tokenizer is: ids are bytes of text."""

from __future__ import annotations

import json


class TextChat:
    """Conversations of repliers that read messages, not tokens. Nothing is ever sampled from its ids."""

    append_only = False
    opening = ""
    stop_ids: tuple[int, ...] = ()

    def __init__(self, system_prompt: str | None = None):
        self.system_prompt = system_prompt

    def messages(self, turns: list[dict]) -> list[dict]:
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        return system + turns

    def prompt(self, turns: list[dict]) -> list[int]:
        return list(json.dumps(self.messages(turns), ensure_ascii=False).encode())

    def decode_reply(self, ids: list[int]) -> str:
        return bytes(ids).decode()
