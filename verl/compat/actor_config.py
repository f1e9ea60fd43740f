"""VeRL's ``actor`` section as dataclasses, for programs that call a policy loss with one (at ``verl.workers.config``).

Fields are those that losses and updates read, under VeRL 0.9.1's names and with its defaults; engines, profilers and checkpoints
of VeRL have sections of their own there and none here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from verl.compat.algorithm_config import RolloutCorrectionConfig
from verl.compat.base_config import BaseConfig
from verl.utils.verl_keys import LOSS_AGG_MODES

_BATCH_SIZES = ("ppo_mini_batch_size", "ppo_micro_batch_size", "ppo_micro_batch_size_per_gpu", "ppo_infer_micro_batch_size_per_gpu")


@dataclass
class PolicyLossConfig(BaseConfig):
    """``actor.policy_loss``."""

    loss_mode: str = "vanilla"
    clip_cov_ratio: float = 0.0002
    clip_cov_lb: float = 1.0
    clip_cov_ub: float = 5.0
    kl_cov_ratio: float = 0.0002
    ppo_kl_coef: float = 0.1
    dro_beta: float | None = None
    rollout_correction: RolloutCorrectionConfig = field(default_factory=RolloutCorrectionConfig)


@dataclass
class ActorConfig(BaseConfig):
    """``actor``. ``strategy`` and ``rollout_n`` have no default, and one of the two micro-batch sizes must be given unless
    ``use_dynamic_bsz``: ``ValueError`` otherwise, as for an unknown ``loss_agg_mode``. ``global_batch_info``: see
    ``verl.trainer.ppo.config_access.with_batch_info``."""

    _mutable_fields: ClassVar[set[str]] = {*_BATCH_SIZES}

    strategy: str = ""
    ppo_mini_batch_size: int = 256
    ppo_micro_batch_size: int | None = None
    ppo_micro_batch_size_per_gpu: int | None = None
    ppo_infer_micro_batch_size_per_gpu: int | None = None
    use_dynamic_bsz: bool = False
    ppo_max_token_len_per_gpu: int = 16384
    ppo_infer_max_token_len_per_gpu: int = 16384
    clip_ratio: float = 0.2
    clip_ratio_low: float = 0.2
    clip_ratio_high: float = 0.2
    freeze_vision_tower: bool = False
    policy_loss: PolicyLossConfig = field(default_factory=PolicyLossConfig)
    clip_ratio_c: float = 3.0
    loss_agg_mode: str = "token-mean"
    loss_scale_factor: int | None = None
    entropy_coeff: float = 0
    tau_pos: float = 1.0
    tau_neg: float = 1.05
    calculate_entropy: bool = False
    calculate_sum_pi_squared: bool = False
    use_kl_loss: bool = False
    use_prefix_grouper: bool = False
    use_torch_compile: bool = True
    kl_loss_coef: float = 0.001
    kl_loss_type: str = "low_var_kl"
    ppo_epochs: int = 1
    shuffle: bool = False
    data_loader_seed: int = 42
    use_fused_kernels: bool = False
    rollout_n: int | None = None
    global_batch_info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        for name in ("strategy", "rollout_n"):
            if not getattr(self, name):
                raise ValueError(f"actor.{name} is missing; give it to {type(self).__name__}")
        sizes = [name for name in ("ppo_micro_batch_size", "ppo_micro_batch_size_per_gpu") if getattr(self, name) is not None]
        if len(sizes) != 1 and not self.use_dynamic_bsz:
            found = "both" if sizes else "neither"
            raise ValueError(f"actor.ppo_micro_batch_size and actor.ppo_micro_batch_size_per_gpu: {found} given; give the latter alone")
        if self.loss_agg_mode not in LOSS_AGG_MODES:
            raise ValueError(f"actor.loss_agg_mode is {self.loss_agg_mode!r}; known: {', '.join(LOSS_AGG_MODES)}")


@dataclass
class FSDPActorConfig(ActorConfig):
    """``actor`` with the fields of VeRL's FSDP engine that mean something here."""

    strategy: str = "fsdp"
    grad_clip: float = 1.0
    ulysses_sequence_parallel_size: int = 1
    use_remove_padding: bool = False
    use_rollout_log_probs: bool = False
