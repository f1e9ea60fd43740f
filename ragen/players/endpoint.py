"""One OpenAI-compatible server: a call, its faults, and when to try again."""

from __future__ import annotations

import asyncio
import json
import random
import re
from dataclasses import dataclass
from typing import Any

import aiohttp

from ragen.players.base import PlayerError
from ragen.players.cost import Usage
from ragen.players.keys import KeyRing
from ragen.players.remote_loop import RemoteLoop

_THOUGHTS = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_END_OF_THOUGHTS = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_RETRY_STATUS = frozenset({408, 409, 425, 429})
_KEY_STATUS = frozenset({401, 402, 403})


def without_thoughts(text: str) -> str:
    """The answer without a thinking model's thoughts: ``<think>`` blocks, an unclosed one to the
    end, and all that stands before a ``</think>`` whose opening the chat template swallowed."""
    text = _THOUGHTS.sub("", text)
    return _END_OF_THOUGHTS.split(text)[-1].strip()


@dataclass(frozen=True)
class RetryRule:
    """``timeout_s``: of one call, all included. ``retries``: calls after the first. Waits grow as
    ``backoff_s * 2**n`` up to ``max_backoff_s``, each times a random 0.5 to 1.5, so that many
    episodes do not come back in step; a server's ``Retry-After`` is honoured up to the maximum."""

    timeout_s: float = 60.0
    retries: int = 4
    backoff_s: float = 1.0
    max_backoff_s: float = 30.0

    def wait(self, attempt: int, asked: float = 0.0) -> float:
        """Seconds to wait before retry ``attempt`` (1 first)."""
        grown = min(self.backoff_s * 2 ** (attempt - 1), self.max_backoff_s)
        return max(grown * random.uniform(0.5, 1.5), min(asked, self.max_backoff_s))


class TryAgain(Exception):
    """A fault that another try may not meet."""

    def __init__(self, reason: str, retry_after: float = 0.0):
        super().__init__(reason)
        self.retry_after = retry_after


class Endpoint:
    """``url``: of the chat completions. ``keys``: used in turn. At most ``max_concurrency`` calls are
    in flight at once. Lives on the loop of :class:`RemoteLoop`; only :meth:`complete` is called."""

    def __init__(self, url: str, keys: KeyRing, max_concurrency: int, local: bool):
        self.url, self.keys, self._local = url, keys, local
        self._limit = max_concurrency
        self._loop: RemoteLoop | None = None
        self._session: aiohttp.ClientSession | None = None
        self._slots: asyncio.Semaphore | None = None

    async def complete(self, body: dict[str, Any], rule: RetryRule, usage: Usage, loop: RemoteLoop) -> str:
        """The answer's text, thoughts removed; runs on ``loop``. Raises :class:`PlayerError` after the last retry, or
        at once where trying again cannot help (a wrong model name, a refused key)."""
        self._open(loop)
        reason, asked = "", 0.0
        for attempt in range(rule.retries + 1):
            if attempt:
                usage.add(retries=1)
                await asyncio.sleep(rule.wait(attempt, asked))
            try:
                async with self._slots:
                    return await self._once(body, rule, usage)
            except TryAgain as fault:
                reason, asked = str(fault), fault.retry_after
            except PlayerError:
                usage.add(failures=1)
                raise
        usage.add(failures=1)
        raise PlayerError(f"{body['model']} at {self.url}: no answer in {rule.retries + 1} calls; last: {reason}")

    def _open(self, loop: RemoteLoop) -> None:
        if self._loop is not loop:
            self._loop, self._slots = loop, asyncio.Semaphore(self._limit)
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), trust_env=not self._local)
            loop.at_close(self._session.close)

    async def _once(self, body: dict[str, Any], rule: RetryRule, usage: Usage) -> str:
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            timeout = aiohttp.ClientTimeout(total=rule.timeout_s)
            async with self._session.post(self.url, json=body, headers=self.keys.headers(), timeout=timeout) as response:
                status, after = response.status, response.headers.get("Retry-After", "")
                text = (await response.read()).decode("utf-8", errors="replace")
        except TimeoutError:
            raise TryAgain(f"no answer within {rule.timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as fault:
            raise TryAgain(self.keys.redact(f"{type(fault).__name__}: {fault}")) from None
        finally:
            usage.add(wait_s=loop.time() - start)
        if status != 200:
            self._refused(status, after, text, body)
        return self._read(text, body, usage)

    def _refused(self, status: int, after: str, text: str, body: dict[str, Any]) -> None:
        told = self.keys.redact(" ".join(text.split()))[:200]
        reason = f"HTTP {status}: {told}"
        if status in _RETRY_STATUS or status >= 500 or (status in _KEY_STATUS and len(self.keys) > 1):
            raise TryAgain(reason, float(after) if re.fullmatch(r"\d+(\.\d+)?", after.strip()) else 0.0)
        hint = "; check the key" if status in _KEY_STATUS else "; check model_name and base_url" if status == 404 else ""
        raise PlayerError(f"{body['model']} at {self.url}: {reason}{hint}")

    def _read(self, text: str, body: dict[str, Any], usage: Usage) -> str:
        try:
            answer = json.loads(text)
            choice = answer["choices"][0]
            content = choice["message"].get("content")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise TryAgain(f"not an answer: {self.keys.redact(text)[:80]!r}") from None
        usage.add(calls=1)
        usage.add_tokens(answer.get("usage"))
        said = without_thoughts(content) if isinstance(content, str) else ""
        if not said:
            cut = f" (cut at max_tokens={body.get('max_tokens')})" if choice.get("finish_reason") == "length" else ""
            raise TryAgain(f"an empty answer{cut}")
        return said
