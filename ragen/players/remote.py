"""Players served elsewhere: any OpenAI-compatible server, local vLLM or a provider.

A ``player_info`` entry: ``{model_name: Qwen3-14B, port: 1414}`` (on this machine),
``{model_name: M, base_url: http://HOST:PORT/v1}`` or ``{model_name: M, provider: deepseek}``, and any
further field of :class:`RemoteConfig`.
"""

from __future__ import annotations

import dataclasses
import difflib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ragen.players.answer_cache import AnswerCache
from ragen.players.base import Pending, Player, SeatView
from ragen.players.cost import Usage
from ragen.players.endpoint import Endpoint, RetryRule
from ragen.players.keys import load_keys
from ragen.players.remote_loop import RemoteLoop

PROVIDERS = {
    "deepseek": "https://api.deepseek.com/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "dmx": "https://www.dmxapi.cn/v1",
}
_LOCAL = "http://localhost:{port}/v1"

#: how a player that is not trained is asked to reply
REPLY_FORM = "Reply with <answer>your answer</answer> and nothing else."


@dataclass(frozen=True)
class RemoteConfig:
    """Where: exactly one of ``port`` (this machine), ``base_url`` (up to and including ``/v1``) or
    ``provider``. A provider's key is needed, a local server's may be set (``VLLM_API_KEY``); keys
    never stand here (:mod:`ragen.players.keys`).
    ``temperature``, ``top_p``, ``max_tokens``, ``extra_body`` (laid over the request, e.g.
    ``{chat_template_kwargs: {enable_thinking: false}}``): of the request.
    ``timeout_s``, ``retries``, ``backoff_s``, ``max_backoff_s``: see
    :class:`~ragen.players.endpoint.RetryRule`. ``max_concurrency``: calls in flight to this server
    from one process. ``cache_dir``: keep answers there, keyed by the request.
    ``price_in``, ``price_out``: per million tokens, for the cost in the metrics."""

    model_name: str
    port: int | None = None
    base_url: str | None = None
    provider: str | None = None
    temperature: float = 0.5
    top_p: float | None = None
    max_tokens: int = 600
    system_prompt: str = "You play a game. Follow its rules."
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 60.0
    retries: int = 4
    backoff_s: float = 1.0
    max_backoff_s: float = 30.0
    max_concurrency: int = 64
    cache_dir: str | None = None
    price_in: float | None = None
    price_out: float | None = None

    def __post_init__(self) -> None:
        named = [key for key in ("port", "base_url", "provider") if getattr(self, key) is not None]
        if len(named) != 1:
            raise ValueError(f"remote player {self.model_name!r}: give exactly one of port, base_url and provider, got {named or 'none'}")
        if self.provider is not None and self.provider not in PROVIDERS:
            raise ValueError(f"remote player {self.model_name!r}: unknown provider {self.provider!r}{_near(self.provider, PROVIDERS)}")
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or "@" in parts.netloc:
            raise ValueError(f"remote player {self.model_name!r}: base_url must be http(s)://HOST[:PORT]/v1 with no user, key or query in it")
        if self.timeout_s <= 0 or self.retries < 0 or self.max_concurrency < 1 or self.max_tokens < 1:
            raise ValueError(f"remote player {self.model_name!r}: timeout_s > 0, retries >= 0, max_concurrency >= 1 and max_tokens >= 1 are needed")

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> RemoteConfig:
        """From a ``player_info`` entry. Raises ``ValueError`` for an unknown key, naming the nearest."""
        values = {key: value for key, value in entry.items() if key != "type"}
        known = {f.name for f in dataclasses.fields(cls)}
        for key in values:
            if "key" in key:
                raise ValueError(f"player_info: {key!r} may not stand in a config, which is written to disk: set PROVIDER_API_KEY or use api-keys.json")
            if key not in known:
                raise ValueError(f"player_info: unknown key {key!r} of a remote player{_near(key, known)}")
        if not values.get("model_name"):
            raise ValueError("player_info: a remote player needs a model_name")
        if values.get("port") is not None:
            values["port"] = int(values["port"])
        return cls(**values)

    @property
    def local(self) -> bool:
        return self.provider is None

    @property
    def url(self) -> str:
        base = PROVIDERS[self.provider] if self.provider else self.base_url or _LOCAL.format(port=self.port)
        return base.rstrip("/") + "/chat/completions"


def _near(key: str, known) -> str:
    match = difflib.get_close_matches(str(key), known, n=1)
    return f"; did you mean {match[0]!r}?" if match else f" (known: {', '.join(sorted(known))})"


class RemotePlayer(Player):
    """Asks a server for each reply, each time from the whole of what the seat sees. The call runs on
    :class:`RemoteLoop`; the episode goes on when the answer is there. Keys are read on the first
    call, not before."""

    _endpoints: dict[tuple[str, int], Endpoint] = {}
    _lock = threading.Lock()

    def __init__(self, config: RemoteConfig):
        self.config = config
        self.name = config.model_name
        self.usage = Usage(config.price_in, config.price_out)
        self._rule = RetryRule(config.timeout_s, config.retries, config.backoff_s, config.max_backoff_s)
        self._cache = AnswerCache(config.cache_dir) if config.cache_dir else None

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> RemotePlayer:
        return cls(RemoteConfig.from_entry(entry))

    def __repr__(self) -> str:
        return f"RemotePlayer({self.name} at {self.config.url})"

    async def reply(self, view: SeatView) -> str:
        loop = RemoteLoop.get()
        future = loop.submit(self._ask(view, loop))
        try:
            return await Pending(future)
        finally:
            future.cancel()  # an episode that is closed while it waits

    def metrics(self) -> dict[str, float]:
        """Totals since the start, e.g. ``remote/MODEL/calls``."""
        return self.usage.metrics(f"remote/{self.name}")

    def request(self, view: SeatView) -> dict[str, Any]:
        """The body of the request for ``view``."""
        feedback = view.feedback + "\n" if view.feedback else ""
        rules = view.rules if not view.rules or view.rules.endswith("\n") else view.rules + "\n"
        config = self.config
        body: dict[str, Any] = {
            "model": config.model_name,
            "messages": [
                {"role": "system", "content": config.system_prompt},
                {"role": "user", "content": f"{rules}{feedback}{view.observation}\n{REPLY_FORM}"},
            ],
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
        }
        if config.top_p is not None:
            body["top_p"] = config.top_p
        return body | dict(config.extra_body)

    async def _ask(self, view: SeatView, loop: RemoteLoop) -> str:
        body = self.request(view)
        asked = {"url": self.config.url, "body": body, "attempt": view.attempt}  # what was refused is not to be said again
        if self._cache is not None and (known := self._cache.get(asked)) is not None:
            self.usage.add(cached=1)
            return known
        answer = await self._endpoint().complete(body, self._rule, self.usage, loop)
        if self._cache is not None:
            self._cache.put(asked, answer)
        return answer

    def _endpoint(self) -> Endpoint:
        """The server's, shared by all players of this process that set the same limit on it."""
        key = (self.config.url, self.config.max_concurrency)
        with self._lock:
            if key not in self._endpoints:
                keys = load_keys(self.config.provider or "vllm", required=self.config.provider is not None)
                self._endpoints[key] = Endpoint(self.config.url, keys, self.config.max_concurrency, self.config.local)
            return self._endpoints[key]
