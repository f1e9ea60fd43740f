"""A model behind an OpenAI-compatible server, asked with whole conversations; replies come back as written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ragen.eval.cli import Settings
from ragen.llm_agent.reply_format import with_opening
from ragen.players.cost import Usage
from ragen.players.endpoint import Endpoint, RetryRule, TryAgain
from ragen.players.keys import load_keys
from ragen.players.remote import RemoteConfig
from ragen.players.remote_loop import RemoteLoop


@dataclass(frozen=True)
class Said:
    """``tokens``: (prompt, reply) as the server counts them, ``None`` where it does not."""

    text: str
    tokens: tuple[int | None, int | None]
    cut: bool


class WholeReplyEndpoint(Endpoint):
    """An endpoint that keeps thoughts: they are part of the form that an evaluation checks. A server that
    hands them over apart (``reasoning_content``) has them put back in front, and a ``<think>`` that its template swallowed too."""

    def _read(self, text: str, body: dict[str, Any], usage: Usage) -> Said:
        try:
            answer = json.loads(text)
            choice = answer["choices"][0]
            message = choice["message"]
            content = message.get("content") or ""
            thoughts = message.get("reasoning_content") or message.get("reasoning") or ""
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise TryAgain(f"not an answer: {self.keys.redact(text)[:80]!r}") from None
        usage.add(calls=1)
        usage.add_tokens(answer.get("usage"))
        counted = answer.get("usage") if isinstance(answer.get("usage"), Mapping) else {}
        said = f"<think>{thoughts}</think>{content}" if thoughts else with_opening(content)
        return Said(
            said, (counted.get("prompt_tokens"), counted.get("completion_tokens")), choice.get("finish_reason") == "length"
        )


class ApiClient:
    """Asks one model. ``config``: where and how, as for a remote opponent."""

    def __init__(self, config: RemoteConfig, sampling: Mapping[str, Any] | None = None):
        self.model, self.url = config.model_name, config.url
        self._sampling = dict(sampling or {"temperature": config.temperature, "max_tokens": config.max_tokens})
        self._rule = RetryRule(config.timeout_s, config.retries, config.backoff_s, config.max_backoff_s)
        self._usage = Usage()
        keys = load_keys(config.provider or "vllm", required=config.provider is not None)
        self._endpoint = WholeReplyEndpoint(config.url, keys, config.max_concurrency, config.local)

    @classmethod
    def from_settings(cls, settings: Settings) -> ApiClient:
        """Raises ``ValueError`` if the command line does not say where the server is."""
        config = RemoteConfig(
            settings.api, settings.port, settings.base_url, settings.provider, temperature=settings.temperature,
            max_tokens=settings.max_tokens, timeout_s=settings.timeout_s, retries=settings.retries,
            max_concurrency=settings.max_concurrency,
        )  # fmt: skip
        sampling = {"temperature": settings.temperature, "top_p": settings.top_p, "max_tokens": settings.max_tokens}
        if settings.top_k > 0:
            sampling["top_k"] = settings.top_k
        return cls(config, sampling)

    def ask(self, messages: list[dict[str, str]], seed: int | None) -> Future[Said]:
        """The reply to a conversation; the future raises ``PlayerError`` after the last retry."""
        body: dict[str, Any] = {"model": self.model, "messages": messages, **self._sampling}
        if seed is not None:
            body["seed"] = seed % 2**31
        loop = RemoteLoop.get()
        return loop.submit(self._endpoint.complete(body, self._rule, self._usage, loop))

    def tokens(self) -> tuple[int, int]:
        counts = self._usage.counts
        return int(counts.get("prompt_tokens", 0)), int(counts.get("completion_tokens", 0))
