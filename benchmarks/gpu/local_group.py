"""A worker group of one worker in this very process, for a run without Ray."""

from __future__ import annotations

from typing import Any

from verl.single_controller.base import Worker, WorkerGroup


class LocalGroup(WorkerGroup):
    """Every method runs at once; what is waited for is there already."""

    def __init__(self, worker: Worker):
        super().__init__()
        self._workers = [worker]
        self._bind_worker_method(type(worker))

    def execute_all(self, method_name: str, *args: Any, **kwargs: Any) -> list[Any]:
        values = [*args, *kwargs.values()]
        if values and all(isinstance(value, list) and len(value) == 1 for value in values):  # dealt out: a share a rank
            args, kwargs = tuple(a[0] for a in args), {k: v[0] for k, v in kwargs.items()}
        return [getattr(self._workers[0], method_name)(*args, **kwargs)]

    execute_all_async = execute_all

    def execute_rank_zero(self, method_name: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._workers[0], method_name)(*args, **kwargs)

    def gather(self, refs: list[Any], method_name: str = "", ranks: list[int] | None = None, beside: Any = ()) -> list[Any]:
        return refs
