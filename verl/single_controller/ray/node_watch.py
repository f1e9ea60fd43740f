"""Notices a node that has fallen silent.

A machine that loses its power or its network closes no connection: calls to its workers just never return, and Ray
(2.60, default settings) takes about a minute to call it dead; where only Ray's own daemon died, the workers live
on for the 14 s until Ray has noticed and ends them. So a tiny actor of our own on each other node answers a call a
second, and says whether the daemon that started it is still there. It is a process of its own: a worker that holds
its GIL for minutes is no false alarm.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

#: what one look may add to a node's silence: a driver that itself stood still (suspended, stopped by the shell)
#: has not listened for longer than that
_MOST_A_LOOK_S = 2.0


class NodeWatch:
    """Watches nodes of the cluster while somebody looks.

    Args:
        node_ids: Ray's ids of the nodes (hex), without the driver's own.
        timeout_s: a node that has not answered for so many seconds is lost. Counted from its first answer on.

    Silence is counted between calls of :meth:`look` only, so it must be called about once a second while waiting.
    """

    def __init__(self, node_ids: Iterable[str], timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._pulses = {node_id: _start_pulse(node_id) for node_id in node_ids}
        self._asked = {node_id: pulse.beat.remote() for node_id, pulse in self._pulses.items()}
        self._silent_s: dict[str, float] = {}
        self._orphaned: set[str] = set()
        self._looked = time.monotonic()

    def look(self) -> None:
        """Take the answers that have come, and ask again."""
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, _MOST_A_LOOK_S), now
        for node_id, ref in list(self._asked.items()):
            answered = failed = False
            if ray.wait([ref], timeout=0)[0]:
                try:
                    if not ray.get(ref):
                        self._orphaned.add(node_id)
                    answered = True
                except RayError:  # its process is gone (Ray starts it again where the node lives) or out of reach
                    failed = True
                self._asked[node_id] = self._pulses[node_id].beat.remote()
            if answered:
                self._silent_s[node_id] = 0.0
            elif failed or node_id in self._silent_s:
                self._silent_s[node_id] = self._silent_s.get(node_id, 0.0) + passed

    def lost(self) -> dict[str, str]:
        """``{node id: what is wrong with it}`` of the nodes that have been silent for ``timeout_s`` seconds or more, or
        whose Ray daemon is gone."""
        silent = {
            node_id: f"it has not answered for {seconds:.0f} s: it or its network is down"
            for node_id, seconds in self._silent_s.items()
            if seconds >= self.timeout_s
        }
        return silent | dict.fromkeys(self._orphaned, "its Ray daemon (raylet) is gone")

    def doubtful(self, after_s: float) -> bool:
        """Whether some node has been silent for ``after_s`` seconds."""
        return any(seconds >= after_s for seconds in self._silent_s.values())

    def close(self) -> None:
        """End the actors on the nodes."""
        for pulse in self._pulses.values():
            ray.kill(pulse, no_restart=True)
        self._pulses, self._asked, self._silent_s, self._orphaned = {}, {}, {}, set()


def silent_nodes(timeout_s: float) -> set[str]:
    """Ids of the nodes that Ray believes alive, and that yet run nothing within ``timeout_s`` seconds.

    Placement groups must keep off them: Ray's scheduler asks one node at a time, and one that never answers stops it
    for all later groups too, even once the node is known to be dead. The driver's own node is not asked.
    """

    def answer() -> None:  # within a function: see _start_pulse
        """Nothing more."""

    task = ray.remote(num_cpus=0, max_retries=0)(answer)
    others = _alive() - {ray.get_runtime_context().get_node_id()}
    asked = {task.options(scheduling_strategy=_on(node_id)).remote(): node_id for node_id in others}
    silent: set[str] = set()
    deadline = time.monotonic() + timeout_s
    while asked and time.monotonic() < deadline:
        for ref in ray.wait(list(asked), timeout=0.5)[0]:
            node_id = asked.pop(ref)
            try:
                ray.get(ref)
            except RayError:
                silent.add(node_id)
        alive = _alive()
        asked = {ref: node_id for ref, node_id in asked.items() if node_id in alive}
    return silent | set(asked.values())


def _alive() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _on(node_id: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)


def _start_pulse(node_id: str) -> Any:
    class NodePulse:  # within a function, so that its process need not import this package, and torch with it
        def __init__(self) -> None:
            self.raylet = os.getppid()

        def beat(self) -> bool:
            return os.getppid() == self.raylet  # an orphan gets another parent

    return ray.remote(num_cpus=0, max_restarts=-1)(NodePulse).options(scheduling_strategy=_on(node_id)).remote()
