"""A thread with an asyncio loop of its own, for players that wait on a network.

Episodes run in a thread that must never wait (``ragen.llm_agent.tasks``): what takes time is handed
to this loop and comes back as a ``concurrent.futures.Future``.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

logger = logging.getLogger(__name__)


class RemoteLoop:
    """One per process: :meth:`get` starts it on first use (and anew in a forked child, where the
    parent's thread does not exist)."""

    _instance: RemoteLoop | None = None
    _lock = threading.Lock()

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self.closed = False
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="remote-players", daemon=True)
        self._thread.start()

    @classmethod
    def get(cls) -> RemoteLoop:
        with cls._lock:
            if cls._instance is None or cls._instance.closed or cls._instance._pid != os.getpid():
                cls._instance = cls()
                atexit.register(cls._instance.close)
            return cls._instance

    def submit(self, coro: Coroutine[Any, Any, Any]) -> concurrent.futures.Future:
        """Run ``coro`` on the loop. Cancelling the future cancels it. Raises ``RuntimeError`` after
        :meth:`close`."""
        if self.closed:
            coro.close()
            raise RuntimeError("the loop of the remote players is closed")
        return asyncio.run_coroutine_threadsafe(coro, self.loop)

    def at_close(self, closer: Callable[[], Awaitable[None]]) -> None:
        """``closer`` is awaited on the loop before it stops (sessions to close)."""
        self._closers.append(closer)

    def close(self, timeout: float = 5.0) -> None:
        """Cancel what is under way, close what was opened, end the thread. Waits at most ``timeout``
        seconds; may be called again."""
        if self.closed or self._pid != os.getpid():
            return
        self.closed = True
        try:
            asyncio.run_coroutine_threadsafe(self._wind_up(), self.loop).result(timeout)
        except concurrent.futures.TimeoutError:
            logger.warning("remote players: calls did not end within %g s of being cancelled", timeout)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout)
        atexit.unregister(self.close)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    async def _wind_up(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for closer in self._closers:
            await closer()
