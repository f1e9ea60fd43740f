"""One rank of a hybrid run: the sharded policy, the rollout engine and the episodes, in one process."""

from __future__ import annotations

import time

from ragen.workers.playing import PlayingMixin
from verl.single_controller.base.decorator import Dispatch, register
from verl.workers.fsdp_workers import ActorRolloutRefWorker


class AgentWorker(PlayingMixin, ActorRolloutRefWorker):
    """VeRL's hybrid worker with an engine of its own and episodes over it.

    Args:
        config: the whole run's config (not only ``actor_rollout_ref``).
        role: as in :class:`ActorRolloutRefWorker`.
    """

    def __init__(self, config, role: str = "actor_rollout", **kwargs):
        super().__init__(config.actor_rollout_ref, role, seed=int(config.seed.train), **kwargs)
        self.run_config = config

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def sync_weights(self, policy_version: int = 0) -> float:
        """Hand the policy's weights to the engine; all ranks together. Seconds it took.

        Engine and trainer share this process, so tensors are handed over as they are, on a GPU too.
        """
        started = time.perf_counter()
        self.trained.load()
        self.engine.wake(["weights"])
        self.engine.load_weights(self.iter_weights())
        self.trained.offload()
        self.engine.wake(["kv_cache"])
        self.policy_version = policy_version
        return time.perf_counter() - started

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def sleep_engine(self) -> bool:
        """Give the engine's accelerator memory to the trainer; whether there was any to give (on a CPU there is none).
        Its weights may be gone: :meth:`sync_weights` comes before it plays again."""
        return self.engine.sleep()
