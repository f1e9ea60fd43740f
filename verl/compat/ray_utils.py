"""VeRL's helpers around Ray and asyncio."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray

from verl._protocol.checks import DataProtoError

__all__ = ["auto_await", "get_event_loop", "parallel_put", "ray_noset_visible_devices"]


def parallel_put(data_list: list[Any], max_workers: int | None = None) -> list[ray.ObjectRef]:
    """Put every entry into Ray's object store, from ``max_workers`` threads (at most 16 by default); references in order.
    Raises ``ValueError`` (an ``AssertionError`` too) for an empty list."""
    if not data_list:
        raise DataProtoError("parallel_put of an empty list: there is nothing to put")
    with ThreadPoolExecutor(max_workers or min(len(data_list), 16)) as threads:
        return list(threads.map(ray.put, data_list))


def ray_noset_visible_devices(env_vars: Mapping[str, str] = os.environ) -> bool:
    """Whether Ray was asked (``RAY_EXPERIMENTAL_NOSET_*``) not to restrict the devices that a worker sees."""
    return any(value for name, value in env_vars.items() if name.startswith("RAY_EXPERIMENTAL_NOSET_"))


def get_event_loop() -> asyncio.AbstractEventLoop:
    """This thread's event loop, made where it has none."""
    try:
        return asyncio.get_event_loop_policy().get_event_loop()
    except RuntimeError:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        return loop


def auto_await(func: Callable) -> Callable:
    """A coroutine function that plain code may call as well: from a coroutine the call is awaitable as before; elsewhere it
    runs to its end, on a thread of its own where this one's event loop is running already."""

    @functools.wraps(func)
    def call(*args: Any, **kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        if not inspect.iscoroutine(result):
            return result
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(result)
        caller = inspect.currentframe().f_back
        if caller is not None and caller.f_code.co_flags & inspect.CO_COROUTINE:
            return result
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, result).result()

    return call
