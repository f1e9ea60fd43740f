"""A real local HTTP server that speaks the OpenAI chat protocol and misbehaves on command."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiohttp import web


class ChatServer:
    """``behave(n, body) -> action`` says what request number ``n`` (0 first) meets: a string is the
    answer's text, a dict the JSON sent as it is, an int a status, ``b"..."`` raw bytes, ``"drop!"`` a
    closed connection; ``(seconds, action)`` waits first."""

    def __init__(self, behave: Callable[[int, dict], Any]):
        self.behave = behave
        self.requests: list[dict] = []
        self.headers: list[dict] = []
        self.in_flight = self.most_in_flight = 0
        self.seen: Counter = Counter()

    def __enter__(self) -> ChatServer:
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(20)
        return self

    def __exit__(self, *_: Any) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _serve(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        self._loop.run_until_complete(self._runner.setup())
        site = web.TCPSite(self._runner, "localhost", 0)
        self._loop.run_until_complete(site.start())
        self.port = site._server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        self._loop.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        number, body = len(self.requests), await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            action = self.behave(number, body)
            if isinstance(action, tuple):
                await asyncio.sleep(action[0])
                action = action[1]
        finally:
            self.in_flight -= 1
        if action == "drop!":
            request.transport.close()
            return web.Response()
        if isinstance(action, int):
            return web.Response(status=action, text=f"status {action} for {request.headers.get('Authorization', 'nobody')}")
        if isinstance(action, bytes):
            return web.Response(body=action)
        answer = action if isinstance(action, dict) else {"choices": [{"message": {"content": action}}], "usage": {"prompt_tokens": 100, "completion_tokens": 7}}
        return web.Response(text=json.dumps(answer), content_type="application/json")
