"""The training workers under VeRL's names: one process a rank, FSDP2 over all of them."""

import logging
from collections.abc import Iterator

import torch
from omegaconf import OmegaConf

from verl.protocol import DataProto
from verl.single_controller.base import Worker
from verl.single_controller.base.decorator import Dispatch, register
from verl.utils.checkpoint import rng_state
from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager
from verl.utils.checkpoint.shared_folder import confirm_shared_folder
from verl.utils.device import init_process_group
from verl.utils.import_utils import import_external_libs
from verl.utils.lora import adapters_off
from verl.utils.tokenizer import hf_tokenizer
from verl.workers.actor import DataParallelPPOActor
from verl.workers.critic import DataParallelPPOCritic
from verl.workers.sharded_model import ShardedModel, add_optimizer, build_sharded_model, has_adapters
from verl.workers.weight_sync import WeightSyncGroup

logger = logging.getLogger(__name__)

ROLES = ("actor", "rollout", "ref", "actor_rollout", "actor_rollout_ref")


class _TrainingWorker(Worker):
    """What the training workers share: the process group, the seed, checkpoints of one trained model."""

    def __init__(self, seed: int = 0):
        super().__init__()
        init_process_group(self.rank, self.world_size)
        rng_state.seed_all(seed, self.rank)
        self.trained: ShardedModel | None = None
        self.checkpoint_manager: FSDPCheckpointManager | None = None

    def _prepare_checkpoints(self, model_config) -> None:
        trust = bool(model_config.get("trust_remote_code", False))
        self.checkpoint_manager = FSDPCheckpointManager(
            model=self.trained.module,
            optimizer=self.trained.optimizer,
            lr_scheduler=self.trained.lr_scheduler,
            processing_class=hf_tokenizer(model_config.path, trust_remote_code=trust),
        )

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def checkpoint_bytes(self) -> int:
        """About how large a checkpoint of all ranks together will be."""
        return self.checkpoint_manager.estimate_bytes()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def save_checkpoint(self, local_path: str, hdfs_path=None, global_step: int = 0, max_ckpt_to_keep=None) -> None:
        """Write model, optimizer, schedule and random state into `local_path`, a folder inside the one that
        `verl.utils.checkpoint.CheckpointDir.saving` hands out on the driver. All ranks together.

        Raises:
            ValueError: `hdfs_path` or `max_ckpt_to_keep` is given: VeRL's workers copy and rotate, here the driver rotates.
        """
        if hdfs_path is not None or max_ckpt_to_keep is not None:
            raise ValueError("save_checkpoint takes no hdfs_path and no max_ckpt_to_keep: CheckpointDir keeps and removes")
        self.trained.load(optimizer=True)
        self.checkpoint_manager.save_checkpoint(local_path, global_step)
        self.trained.offload()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def load_checkpoint(self, local_path: str) -> None:
        """Read back what :meth:`save_checkpoint` wrote, also by another number of ranks. All ranks together."""
        self.trained.load(optimizer=True)
        self.checkpoint_manager.load_checkpoint(local_path)
        self.trained.offload()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def confirm_shared_folder(self, path: str, token: str) -> str:
        """Whether this rank sees the driver's folder (several nodes need a shared one)."""
        return confirm_shared_folder(path, token)

    def get_rng_state(self) -> dict:
        """Random state of this process."""
        return rng_state.get_rng_state()

    def set_rng_state(self, state: dict) -> None:
        """Restore what :meth:`get_rng_state` returned."""
        rng_state.set_rng_state(state)


class ActorRolloutRefWorker(_TrainingWorker):
    """Policy and, where the role says so, its reference, in one process a rank.

    Args:
        config: VeRL's `actor_rollout_ref` section. With `model.lora_rank` above 0 the reference is the policy with its
            adapters switched off and takes no memory of its own.
        role: one of `actor`, `rollout`, `ref`, `actor_rollout`, `actor_rollout_ref`. The rollout engine itself is added
            by the worker that plays (it takes weights from :meth:`iter_weights`).
    """

    def __init__(self, config, role: str, seed: int = 0, **kwargs):
        if role not in ROLES:
            raise ValueError(f"role {role!r} is unknown; use one of {', '.join(ROLES)}")
        super().__init__(seed)
        import_external_libs(config.model.get("external_lib"))
        self.config, self.role = config, role
        self._has_policy = role != "ref"
        self._has_reference = "ref" in role
        self.actor: DataParallelPPOActor | None = None
        self.ref_policy: DataParallelPPOActor | None = None
        self._reference: ShardedModel | None = None
        self._weight_sync: WeightSyncGroup | None = None

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self) -> None:
        """Build and shard the models of this role. All ranks together."""
        config, key = self.config, "actor_rollout_ref.model.path"
        share_prompts = bool(config.actor.get("use_prefix_grouper", False))
        if self._has_policy:
            self.trained = build_sharded_model(
                "causal_lm", config.model, config.actor.fsdp_config, key=key,
                compile_layers=bool(config.actor.get("use_torch_compile", False)), share_prompts=share_prompts,
            )  # fmt: skip
            add_optimizer(self.trained, config.actor.optim)
            self.actor = DataParallelPPOActor(config.actor, self.trained.module, self.trained.optimizer, self.trained.packed)
            self._prepare_checkpoints(config.model)
            self.trained.offload()
        if self._has_reference and not (self.trained and has_adapters(self.trained)):
            fsdp_config = OmegaConf.merge(config.actor.fsdp_config, config.ref.get("fsdp_config") or {})
            model_config = OmegaConf.merge(config.model, {"enable_gradient_checkpointing": False, "lora_rank": 0})
            self._reference = build_sharded_model("causal_lm", model_config, fsdp_config, share_prompts=share_prompts, key=key)
            self._reference.module.requires_grad_(False)
            self.ref_policy = DataParallelPPOActor(config.ref, self._reference.module, packed=self._reference.packed)
            self.ref_policy.share_prompts = share_prompts  # an actor's key, which `ref` lacks
            self._reference.offload()

    @register(dispatch_mode=Dispatch.DP_COMPUTE_PROTO)
    def compute_log_prob(self, data: DataProto) -> DataProto:
        """`old_log_probs` and `entropys` (B, T-1) of the policy at `meta_info["temperature"]` (default: the rollout's), and
        `sum_pi_squared` where `meta_info["calculate_sum_pi_squared"]`."""
        self._set_log_prob_limits(data, self.config.rollout)
        squares = bool(data.meta_info.get("calculate_sum_pi_squared", False))
        self.trained.load()
        found = self.actor.compute_log_prob(data, calculate_entropy=True, calculate_sum_pi_squared=squares)
        self.trained.offload()
        tensors = dict(zip(("old_log_probs", "entropys", "sum_pi_squared"), found, strict=False))
        return DataProto.from_dict(tensors=tensors, meta_info={"temperature": data.meta_info["temperature"]})

    @register(dispatch_mode=Dispatch.DP_COMPUTE_PROTO)
    def compute_ref_log_prob(self, data: DataProto) -> DataProto:
        """`ref_log_prob` (B, T-1) of the reference policy."""
        self._set_log_prob_limits(data, self.config.ref)
        if self._reference is not None:
            self._reference.load()
            log_probs, _ = self.ref_policy.compute_log_prob(data)
            self._reference.offload()
        else:
            self.trained.load()
            with adapters_off(self.trained.module):
                log_probs, _ = self.actor.compute_log_prob(data)
            self.trained.offload()
        return DataProto.from_dict(tensors={"ref_log_prob": log_probs})

    @register(dispatch_mode=Dispatch.DP_COMPUTE)
    def update_actor(self, data: DataProto) -> DataProto:
        """Update the policy with this rank's rows of every mini-batch; metrics are global, in `meta_info["metrics"]`.

        See :meth:`DataParallelPPOActor.update_policy`. The learning rate advances one step a call.
        """
        data.meta_info.setdefault("temperature", float(self.config.rollout.temperature))
        self.trained.load(optimizer=True)
        metrics = self.actor.update_policy(data)
        metrics["actor/lr"] = self.trained.lr_scheduler.get_last_lr()[0]
        self.trained.lr_scheduler.step()
        self.trained.offload()
        return DataProto(meta_info={"metrics": metrics})

    def iter_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The policy's whole weights for the engine: (Hugging Face name, tensor), gathered bucket by bucket.

        Adapters merged, tied `lm_head.weight` left out. All ranks iterate together, to the end; between phases call
        `self.trained.load()` before and `self.trained.offload()` after where parameters are offloaded.
        """
        return self.trained.iter_weights(bucket_bytes(self.config.rollout))

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)
    def create_weight_sync_group(self, master_address: str, master_port: int, rank_offset: int, world_size: int) -> None:
        """Meet the rollout workers of their own (`hybrid_engine: false`). Rank 0 alone, which sends for all."""
        if self.rank == 0:
            limit = bucket_bytes(self.config.rollout)
            self._weight_sync = WeightSyncGroup(master_address, master_port, rank_offset, world_size, limit)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)
    def sync_rollout_weights(self) -> None:
        """Send the policy's weights to the rollout workers; all ranks gather them together."""
        self.trained.load()
        weights = self.iter_weights()
        if self._weight_sync is not None:
            self._weight_sync.send(weights)
        for _ in weights:  # the other ranks gather with rank 0
            pass
        self.trained.offload()

    def _set_log_prob_limits(self, data: DataProto, section) -> None:
        data.meta_info.setdefault("temperature", float(self.config.rollout.temperature))
        data.meta_info["use_dynamic_bsz"] = bool(section.get("log_prob_use_dynamic_bsz", True))
        data.meta_info["max_token_len"] = section.get("log_prob_max_token_len_per_gpu", 16384)
        data.meta_info["micro_batch_size"] = section.get("log_prob_micro_batch_size_per_gpu")


def bucket_bytes(rollout) -> int:
    """`rollout.update_weights_bucket_megabytes` in bytes."""
    return int(rollout.get("update_weights_bucket_megabytes", 512)) << 20


class CriticWorker(_TrainingWorker):
    """The value model on one rank.

    Args:
        config: VeRL's `critic` section.
    """

    def __init__(self, config, seed: int = 0, **kwargs):
        super().__init__(seed)
        import_external_libs(config.model.get("external_lib"))
        self.config = config
        self.critic: DataParallelPPOCritic | None = None

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self) -> None:
        """Build and shard the value model. All ranks together."""
        config = self.config
        self.trained = build_sharded_model(
            "value", config.model, config.model.get("fsdp_config") or {}, key="critic.model.path",
            share_prompts=bool(config.get("use_prefix_grouper", False)),
        )  # fmt: skip
        add_optimizer(self.trained, config.optim)
        self.critic = DataParallelPPOCritic(config, self.trained.module, self.trained.optimizer, self.trained.packed)
        self._prepare_checkpoints(config.model)
        self.trained.offload()

    @register(dispatch_mode=Dispatch.DP_COMPUTE_PROTO)
    def compute_values(self, data: DataProto) -> DataProto:
        """`values` (B, T-1): what is expected from before each sampled token on."""
        self.trained.load()
        values = self.critic.compute_values(data)
        self.trained.offload()
        return DataProto.from_dict(tensors={"values": values})

    @register(dispatch_mode=Dispatch.DP_COMPUTE)
    def update_critic(self, data: DataProto) -> DataProto:
        """Update the critic with this rank's rows of every mini-batch; metrics are global, in `meta_info["metrics"]`."""
        self.trained.load(optimizer=True)
        metrics = self.critic.update_critic(data)
        metrics["critic/lr"] = self.trained.lr_scheduler.get_last_lr()[0]
        self.trained.lr_scheduler.step()
        self.trained.offload()
        return DataProto(meta_info={"metrics": metrics})
