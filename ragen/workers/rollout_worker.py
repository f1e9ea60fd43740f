"""A worker that only plays: engine and episodes, no model to train (``hybrid_engine: false``)."""

from __future__ import annotations

from omegaconf import OmegaConf

from ragen.workers.playing import PlayingMixin
from verl.single_controller.base import Worker
from verl.single_controller.base.decorator import Dispatch, register
from verl.utils.checkpoint import rng_state
from verl.utils.device import init_process_group
from verl.workers.fsdp_workers import bucket_bytes
from verl.workers.weight_sync import WeightSyncGroup


class RolloutWorker(PlayingMixin, Worker):
    """One rank of the rollout workers. Weights come from the trainer's rank 0 by :class:`WeightSyncGroup`.

    Args:
        config: the whole run's config.
    """

    def __init__(self, config):
        super().__init__()
        init_process_group(self.rank, self.world_size)  # the ranks of a tensor-parallel engine meet in it
        rng_state.seed_all(int(config.seed.train), self.rank)
        self.run_config = config
        # nothing to make room for: the engine has its device to itself
        self.config = OmegaConf.merge(config.actor_rollout_ref, {"rollout": {"free_cache_engine": False}})
        self._weight_sync: WeightSyncGroup | None = None

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)
    def create_weight_sync_group(self, master_address: str, master_port: int, rank_offset: int, world_size: int) -> None:
        """Meet the trainer's rank 0 and the other rollout workers."""
        limit = bucket_bytes(self.config.rollout)
        self._weight_sync = WeightSyncGroup(master_address, master_port, rank_offset + self.rank, world_size, limit)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)
    def sync_rollout_weights(self, policy_version: int) -> None:
        """Take the weights that the trainer sends in its own ``sync_rollout_weights``; cached prefixes are forgotten."""
        self._weight_sync.receive(self.engine.load_weights)
        self.policy_version = policy_version
