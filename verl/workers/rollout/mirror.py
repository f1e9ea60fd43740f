"""Tensor parallelism: one rank of the group decides, the others make the same engine calls.

Every rank of a tensor-parallel engine runs its own scheduler (``external_launcher``), so all must see
the same requests in the same order. The leader's engine is wrapped in :class:`LeadingEngine`, which
broadcasts what was added before each step; the other ranks sit in :func:`follow` until it is released.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist

from verl.workers.rollout.base import Reply, RolloutEngine, SamplingParams

_STEP, _RELEASE = "step", "release"


class LeadingEngine(RolloutEngine):
    """The leader's side. ``group``: a CPU (gloo) process group of the tensor-parallel ranks;
    ``source``: the leader's global rank."""

    def __init__(self, engine: RolloutEngine, group: dist.ProcessGroup, source: int):
        self.engine, self._group, self._source = engine, group, source
        self.max_model_len = engine.max_model_len
        self._added: list[tuple[str, list[int], SamplingParams]] = []

    def add(self, request_id: str, prompt_ids: list[int], params: SamplingParams) -> None:
        self._check_room(prompt_ids)
        self._added.append((request_id, list(prompt_ids), params))

    def step(self) -> list[Reply]:
        added, self._added = self._added, []
        dist.broadcast_object_list([(_STEP, added)], src=self._source, group=self._group)
        for request in added:
            self.engine.add(*request)
        return self.engine.step()

    def release(self) -> None:
        """Let the followers return from :func:`follow`."""
        dist.broadcast_object_list([(_RELEASE, [])], src=self._source, group=self._group)

    @property
    def unfinished(self) -> int:
        return self.engine.unfinished + len(self._added)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        raise RuntimeError("weights are loaded by every rank into its own engine, not through the leader")


def follow(engine: RolloutEngine, group: dist.ProcessGroup, source: int) -> None:
    """Mirror the leader's calls until it releases this rank."""
    while True:
        message: list = [None]
        dist.broadcast_object_list(message, src=source, group=group)
        command, added = message[0]
        if command == _RELEASE:
            return
        for request in added:
            engine.add(*request)
        engine.step()
