"""Many episodes in one thread over one engine: a small coroutine runner.

An episode is a coroutine that awaits three things: a reply of the policy (:class:`Generate`), the
answer of a slow player (``ragen.players.base.Pending``), several moves at once (:class:`Gather`).
The runner advances whoever can go on, then lets the engine take one step. Nobody waits for anybody
else's turn. asyncio is not used: its loop would decide the order, and with it the batches the engine
sees; here the order follows from the episodes alone, so that a run can be repeated bit for bit.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from ragen.players.base import Pending
from verl.workers.rollout.base import RolloutEngine, SamplingParams


class _Awaitable:
    def __await__(self):
        return (yield self)


@dataclass
class Generate(_Awaitable):
    """Sample a reply to ``prompt_ids``; the result is a :class:`verl.workers.rollout.base.Reply`.
    ``engine``: which of the runner's engines (0 is the policy, others are past selves)."""

    prompt_ids: list[int]
    params: SamplingParams
    engine: int = 0


@dataclass
class Gather(_Awaitable):
    """Run coroutines side by side; the result is the list of theirs, in order. If some fail, the
    first failure by position is raised once all have ended."""

    coros: Sequence[Coroutine]


class _Task:
    __slots__ = ("coro", "done")

    def __init__(self, coro: Coroutine, done):
        self.coro, self.done = coro, done


class Runner:
    """Runs coroutines to their end over ``engines``."""

    def __init__(self, engines: Sequence[RolloutEngine]):
        self.engines = engines  # not a copy: a past self brings its engine when it is first asked
        self._ready: deque[tuple[_Task, Any, BaseException | None]] = deque()
        self._sampling: dict[str, _Task] = {}
        self._arrived: queue.SimpleQueue = queue.SimpleQueue()
        self._waiting = 0
        self._count = 0

    def run(self, coros: Sequence[Coroutine], on_done=None) -> list[Any]:
        """Results in order. An exception of a coroutine is raised at once, the others are closed.
        ``on_done(index)`` is called as each ends (for progress)."""
        results: list[Any] = [None] * len(coros)

        def finish(index: int):
            def done(value, error):
                if error is not None:
                    raise error
                results[index] = value
                if on_done:
                    on_done(index)

            return done

        for i, coro in enumerate(coros):
            self._ready.append((_Task(coro, finish(i)), None, None))
        try:
            self._loop()
        except BaseException:
            for coro in coros:
                coro.close()
            raise
        return results

    def _loop(self) -> None:
        while True:
            while self._ready:
                self._advance(*self._ready.popleft())
            self._collect(block=False)
            if self._ready:
                continue
            busy = [e for e in self.engines if e.unfinished]
            for engine in busy:
                for reply in engine.step():
                    self._ready.append((self._sampling.pop(reply.request_id), reply, None))
            if busy:
                continue
            if not self._waiting:
                return
            self._collect(block=True)

    def _collect(self, block: bool) -> None:
        """Take in answers that came from other threads."""
        while self._waiting:
            try:
                task, future = self._arrived.get(block=block)
            except queue.Empty:
                return
            block = False
            self._waiting -= 1
            error = future.exception()
            self._ready.append((task, None if error else future.result(), error))

    def _advance(self, task: _Task, value: Any, error: BaseException | None) -> None:
        try:
            wanted = task.coro.throw(error) if error is not None else task.coro.send(value)
        except StopIteration as stop:
            task.done(stop.value, None)
            return
        except Exception as failure:
            task.done(None, failure)
            return
        if isinstance(wanted, Generate):
            request_id = str(self._count)
            self._count += 1
            try:
                self.engines[wanted.engine].add(request_id, wanted.prompt_ids, wanted.params)
            except ValueError as refused:  # no room for the prompt: the episode decides what that means
                self._ready.append((task, None, refused))
                return
            self._sampling[request_id] = task
        elif isinstance(wanted, Pending):
            self._waiting += 1
            wanted.future.add_done_callback(lambda future: self._arrived.put((task, future)))
        elif isinstance(wanted, Gather):
            self._gather(task, wanted.coros)
        else:
            raise TypeError(f"an episode awaited {wanted!r}; only Generate, Pending and Gather can be awaited here")

    def _gather(self, parent: _Task, coros: Sequence[Coroutine]) -> None:
        results: list[Any] = [None] * len(coros)
        errors: list[BaseException | None] = [None] * len(coros)
        left = len(coros)

        def child(index: int):
            def done(value, error):
                nonlocal left
                results[index], errors[index] = value, error
                left -= 1
                if not left:
                    failed = next((e for e in errors if e is not None), None)
                    self._ready.append((parent, results, failed))

            return done

        for i, coro in enumerate(coros):
            self._ready.append((_Task(coro, child(i)), None, None))
