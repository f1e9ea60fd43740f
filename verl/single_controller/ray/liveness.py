"""Waiting for workers without ever hanging on a dead one.

When a rank dies, the others may sit in a collective for ever (gloo has no way to know), so waiting for
all results would hang. Here the first reference that fails ends the wait, and the state that Ray
keeps of every actor is polled besides. Groups that work for one another are watched together: the one
that is waited for may wait for a dead worker of another.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import (
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from verl.single_controller.base.errors import WorkerDied, worker_error
from verl.single_controller.ray.node_watch import NodeWatch

logger = logging.getLogger(__name__)

POLL_S = 1.0
#: a death elsewhere often shows first as a peer's broken connection: so long we look for the dead one
#: before the peer is blamed
GRACE_S = 3.0

#: worker groups by name that are watched besides the one that is waited for
Peers = Mapping[str, Sequence[Any]]

_DEATHS = (RayActorError, WorkerCrashedError, NodeDiedError, ObjectLostError, OutOfMemoryError)


def actor_info(worker: Any) -> dict[str, Any]:
    """Ray's record of an actor: ``State``, ``Pid``, ``Address``, ``DeathCause``. The public state API has
    it too, but only where the dashboard runs."""
    return ray._private.state.actors(worker._actor_id.hex())


def is_dead(worker: Any) -> bool:
    return actor_info(worker).get("State") == "DEAD"


def describe_death(worker: Any, rank: int, method: str, error: BaseException | None = None, group: str = "") -> WorkerDied:
    """The exception that names the dead worker."""
    info = actor_info(worker)
    cause = _death_cause(info) or (str(error).strip() if error else "") or "Ray gives no cause"
    if isinstance(error, ActorUnavailableError):  # Ray itself calls a node dead only after about 15 s
        cause = f"it cannot be reached, its node may be lost: {cause}"
    return _death(info, rank, method, cause, group)


def _death(info: dict[str, Any], rank: int, method: str, cause: str, group: str) -> WorkerDied:
    node, pid = info.get("Address", {}).get("IPAddress") or "unknown", info.get("Pid") or None
    return WorkerDied(rank=rank, node=node, pid=pid, method=method, cause=cause, group=group)


def _death_cause(info: dict[str, Any]) -> str:
    context = info.get("DeathCause")
    if context is None or not context.HasField("actor_died_error_context"):
        return ""
    return context.actor_died_error_context.error_message.strip()


def gather(
    workers: Sequence[Any],
    refs: list[Any],
    method: str,
    timeout_s: float | None = None,
    ranks: Sequence[int] | None = None,
    peers: Peers | None = None,
    watches: Sequence[NodeWatch] = (),
    beside: Sequence[Any] = (),
) -> list[Any]:
    """Values of ``refs``, where ``refs[i]`` is a call on ``workers[ranks[i]]`` (default: on ``workers[i]``).

    ``beside``: calls on the ranks of another group without which these do not come to their end.

    Raises :class:`WorkerDied` for a dead worker (one of ``peers`` too, or one on a node that ``watches`` find lost),
    :class:`~verl.single_controller.base.errors.WorkerError` for one whose method raised (``beside`` too), ``TimeoutError``
    after ``timeout_s`` seconds (default: wait for ever).
    """
    partners = dict(zip(beside, range(len(beside)), strict=True))
    pending = dict(zip(refs, range(len(refs)) if ranks is None else ranks, strict=True))
    values: dict[Any, Any] = {}
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while pending:
        ready, _ = ray.wait([*pending, *partners], num_returns=1, timeout=POLL_S)
        for ref in ready:
            if ref in partners:
                _raise_if_failed(ref, partners.pop(ref), method)
                continue
            rank = pending.pop(ref)
            try:
                values[ref] = ray.get(ref)
            except RayTaskError as error:
                raise _blame(workers, pending, rank, method, error, peers or {}, watches) from error
            except _DEATHS as error:
                raise _end_of(workers[rank], rank, method, error) from error
        if not ready:
            for rank in pending.values():
                if is_dead(workers[rank]):
                    raise describe_death(workers[rank], rank, method)
            if death := _dead_peer(peers or {}, method) or _on_lost_node(workers, peers or {}, method, watches):
                raise death
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"ranks {sorted(pending.values())} did not finish {method!r} within {timeout_s:g} s")
    return [values[ref] for ref in refs]


def _raise_if_failed(ref: Any, rank: int, method: str) -> None:
    """A death is left to the watch over the peers, which knows whose it is."""
    try:
        ray.get(ref)
    except RayTaskError as error:
        raise worker_error(error.cause, rank, method, str(error)) from error
    except _DEATHS:
        return


def _end_of(worker: Any, rank: int, method: str, error: BaseException) -> Exception:
    """The exception for a worker that Ray says is gone: by a death, or by its constructor's failure."""
    if getattr(error, "actor_init_failed", False):
        return worker_error(error, rank, "__init__")
    return describe_death(worker, rank, method, error)


def _dead_peer(peers: Peers, method: str) -> WorkerDied | None:
    for group, workers in peers.items():
        for rank, worker in enumerate(workers):
            if is_dead(worker):
                return describe_death(worker, rank, method, group=group)
    return None


def _on_lost_node(workers: Sequence[Any], peers: Peers, method: str, watches: Sequence[NodeWatch]) -> WorkerDied | None:
    """The exception for the first worker on a node that answers no more, if there is one."""
    for watch in watches:
        watch.look()
    lost = {node_id: reason for watch in watches for node_id, reason in watch.lost().items()}
    for group, members in {"": workers, **peers}.items() if lost else ():
        for rank, worker in enumerate(members):
            info = actor_info(worker)
            node_id = info.get("Address", {}).get("NodeID")
            if node_id in lost:
                return _death(info, rank, method, f"its node (Ray's id {node_id}) is lost: {lost[node_id]}", group)
    return None


def _blame(
    workers: Sequence[Any],
    pending: dict[Any, int],
    rank: int,
    method: str,
    error: RayTaskError,
    peers: Peers,
    watches: Sequence[NodeWatch],
) -> Exception:
    """Whose fault is it that ``rank`` raised? A worker's that is gone, if there is one; else its own."""
    deadline = time.monotonic() + GRACE_S
    waiting = dict(pending)
    while True:
        if waiting:
            for ref in ray.wait(list(waiting), num_returns=len(waiting), timeout=0.1)[0]:
                other = waiting.pop(ref)
                try:
                    ray.get(ref)
                except RayTaskError:
                    continue  # one more that raised: the first to do so is named
                except _DEATHS as death:
                    return _end_of(workers[other], other, method, death)
        elif peers:
            time.sleep(0.1)
        for other, worker in enumerate(workers):
            if is_dead(worker):
                return describe_death(worker, other, method)
        if death := _dead_peer(peers, method) or _on_lost_node(workers, peers, method, watches):
            return death
        if any(watch.doubtful(GRACE_S / 2) for watch in watches):  # a node is silent: it may be what this rank missed
            time.sleep(0.1)
            continue
        if not (waiting or peers) or time.monotonic() > deadline:  # a rank that has finished needs no more watching
            return worker_error(error.cause, rank, method, str(error))


def kill_all(workers: Sequence[Any], timeout_s: float = 10.0, grace_s: float = 2.0) -> None:
    """Kill the workers and wait until they are gone, so that their ports, names and device memory are
    free. A process of this node that outlives its actor by ``grace_s`` seconds (Ray waits for a constructor
    that hangs in native code) is ended by SIGKILL."""
    processes = [process for process in map(_local_process, workers) if process is not None]
    for worker in workers:
        ray.kill(worker, no_restart=True)
    _wait(lambda: all(is_dead(worker) for worker in workers), timeout_s)
    if not _wait(lambda: not any(_runs(process) for process in processes), grace_s):
        for process in filter(_runs, processes):
            logger.warning("worker process %d did not end by itself: SIGKILL", process[0])
            os.kill(process[0], signal.SIGKILL)
        _wait(lambda: not any(_runs(process) for process in processes), grace_s)


def _wait(done: Callable[[], bool], timeout_s: float) -> bool:
    """Whether ``done()`` came true within ``timeout_s`` seconds."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _local_process(worker: Any) -> tuple[int, str] | None:
    """``(pid, start time)`` of a worker on this node; the start time tells it from a later process
    that was given the same pid."""
    info = actor_info(worker)
    if not info.get("Pid") or info["Address"]["NodeID"] != ray.get_runtime_context().get_node_id():
        return None
    started = _start_time(info["Pid"])
    return None if started is None else (info["Pid"], started)


def _start_time(pid: int) -> str | None:
    try:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()  # the command's name may hold spaces
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]  # a zombie has ended


def _runs(process: tuple[int, str]) -> bool:
    return _start_time(process[0]) == process[1]
