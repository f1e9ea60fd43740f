"""What a call on a worker group may raise on the driver."""

from __future__ import annotations


class WorkerDied(RuntimeError):
    """A worker process is gone. Attributes: ``rank``, ``node`` (IP), ``pid``, ``method`` (what the driver
    waited for), ``cause`` (what Ray knows of the death) and ``group`` (the worker group's name, where it is another
    than the one that was waited for). The other ranks may hang in a collective: ``kill()`` the group and build it anew."""

    def __init__(self, *, rank: int, node: str, pid: int | None, method: str, cause: str, group: str = ""):
        super().__init__(rank, node, pid, method, cause, group)
        self.rank, self.node, self.pid, self.method, self.cause, self.group = rank, node, pid, method, cause, group

    def __str__(self) -> str:
        who = f"{self.group} worker rank" if self.group else "worker rank"
        return f"{who} {self.rank} (pid {self.pid} on node {self.node}) died during {self.method!r}: {self.cause}"

    def __reduce__(self):
        fields = ("rank", "node", "pid", "method", "cause", "group")
        return _rebuild_died, ({name: getattr(self, name) for name in fields},)


def _rebuild_died(fields: dict) -> WorkerDied:
    return WorkerDied(**fields)


class MeshRegisteredTwice(ValueError, AssertionError):
    """A worker was told its place in a mesh that it knows already (VeRL raises either of the two)."""


class ResourcesUnavailable(RuntimeError):
    """The cluster has no room for what was asked. ``found``: entries (nodes) of the pool that there was room for."""

    def __init__(self, message: str, found: int = 0):
        super().__init__(message)
        self.found = found


class WorkerError(RuntimeError):
    """A worker's method raised. What reaches the driver is a subclass of this and, where Python allows,
    of the original exception's class, so that both ``except WorkerError`` and ``except ValueError``
    catch it. Attributes: ``rank``, ``method``, ``cause`` (the original exception)."""

    rank: int
    method: str
    cause: BaseException
    detail: str


def worker_error(cause: BaseException, rank: int, method: str, detail: str = "") -> WorkerError:
    """The :class:`WorkerError` for ``cause``; ``detail`` (the worker's traceback) goes into its text."""
    kind = type(cause)
    try:
        error_class = type(f"WorkerError({kind.__name__})", (WorkerError, kind), {"__str__": _text, "__init__": _no_init})
        error = error_class()
    except TypeError:  # two classes of different memory layout, e.g. OSError
        error_class = type(f"WorkerError({kind.__name__})", (WorkerError,), {"__str__": _text})
        error = error_class()
    error.rank, error.method, error.cause, error.detail = rank, method, cause, detail
    return error


def _no_init(self, *args) -> None:
    """The original's constructor may want arguments that we do not have."""


def _text(self: WorkerError) -> str:
    text = f"rank {self.rank} failed in {self.method!r}: {type(self.cause).__name__}: {self.cause}"
    return f"{text}\n{self.detail}" if self.detail else text
