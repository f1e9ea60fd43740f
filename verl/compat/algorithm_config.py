"""VeRL's ``algorithm`` section as dataclasses, for programs that build one in Python (at ``verl.trainer.config``).

Field names and defaults are VeRL 0.9.1's. What is read here is the YAML; a dataclass is taken wherever a config is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from verl.compat.base_config import BaseConfig

_GEOMETRIC, _K3 = ("seq_mean_k1", "0.999_1.001"), ("seq_mean_k3", 0.01)
_BYPASS_CLIP, _BYPASS_REINFORCE = {"bypass_mode": True}, {"bypass_mode": True, "loss_type": "reinforce"}


def _weights(level: str, **mode: Any) -> classmethod:
    """A preset with importance weights alone."""
    return classmethod(lambda cls, threshold=2.0: cls(rollout_is=level, rollout_is_threshold=threshold, **mode))


def _banded_weights(**mode: Any) -> classmethod:
    """IcePop: token weights, 0 outside a band."""
    return classmethod(
        lambda cls, threshold=5.0, threshold_lower=0.5: cls(rollout_is="token", rollout_is_threshold=f"{threshold_lower}_{threshold}", **mode)
    )


def _rejection(option: str, bound: str | float, **mode: Any) -> classmethod:
    """A preset that rejects and weighs nothing."""
    return classmethod(lambda cls, rs_threshold=bound: cls(rollout_is=None, rollout_rs=option, rollout_rs_threshold=rs_threshold, **mode))


def _both(level: str, option: str, bound: str | float, **mode: Any) -> classmethod:
    """A preset that rejects and weighs what is left."""
    return classmethod(
        lambda cls, is_threshold=2.0, rs_threshold=bound: cls(
            rollout_is=level, rollout_is_threshold=is_threshold, rollout_rs=option, rollout_rs_threshold=rs_threshold, **mode
        )
    )


@dataclass
class RolloutCorrectionConfig(BaseConfig):
    """``algorithm.rollout_correction``; each class method is the preset of that name in VeRL, with its thresholds as arguments."""

    rollout_is: str | None = "sequence"
    rollout_is_threshold: str | float = 2.0
    rollout_is_batch_normalize: bool = False
    rollout_rs: str | None = None
    rollout_rs_threshold: str | float | None = None
    bypass_mode: bool = False
    loss_type: str = "ppo_clip"

    disabled = classmethod(lambda cls: cls(rollout_is=None))
    decoupled_token_is = _weights("token")
    decoupled_seq_is = _weights("sequence")
    decoupled_token_icepop = _banded_weights()
    decoupled_seq_is_rs = _both("sequence", "seq_sum_k1", "0.5_2.0")
    decoupled_geo_rs = _rejection(*_GEOMETRIC)
    decoupled_geo_rs_seq_tis = _both("sequence", *_GEOMETRIC)
    decoupled_geo_rs_token_tis = _both("token", *_GEOMETRIC)
    decoupled_k3_rs = _rejection(*_K3)
    decoupled_k3_rs_seq_tis = _both("sequence", *_K3)
    decoupled_k3_rs_token_tis = _both("token", *_K3)
    bypass_ppo_clip = classmethod(lambda cls: cls(rollout_is=None, **_BYPASS_CLIP))
    bypass_ppo_clip_geo_rs = _rejection(*_GEOMETRIC, **_BYPASS_CLIP)
    bypass_ppo_clip_k3_rs = _rejection(*_K3, **_BYPASS_CLIP)
    bypass_pg_is = _weights("sequence", **_BYPASS_REINFORCE)
    bypass_pg_token_icepop = _banded_weights(**_BYPASS_REINFORCE)
    bypass_pg_geo_rs = _rejection(*_GEOMETRIC, **_BYPASS_REINFORCE)
    bypass_pg_geo_rs_seq_tis = _both("sequence", *_GEOMETRIC, **_BYPASS_REINFORCE)
    bypass_pg_geo_rs_token_tis = _both("token", *_GEOMETRIC, **_BYPASS_REINFORCE)


@dataclass
class KLControlConfig(BaseConfig):
    """``algorithm.kl_ctrl``."""

    type: str = "fixed"
    kl_coef: float = 0.001
    horizon: int = 10000
    target_kl: float = 0.1


@dataclass
class FilterGroupsConfig(BaseConfig):
    """``algorithm.filter_groups`` (DAPO's dynamic sampling, which is the rollout filter here)."""

    enable: bool = False
    metric: str | None = None
    max_num_gen_batches: int = 0
    max_inflight_gen_batches: int = 1


@dataclass
class AlgoConfig(BaseConfig):
    """``algorithm``."""

    gamma: float = 1.0
    lam: float = 1.0
    adv_estimator: str = "gae"
    norm_adv_by_std_in_grpo: bool = True
    use_kl_in_reward: bool = False
    kl_penalty: str = "kl"
    kl_ctrl: KLControlConfig = field(default_factory=KLControlConfig)
    use_pf_ppo: bool = False
    pf_ppo: dict[str, Any] = field(default_factory=dict)
    filter_groups: FilterGroupsConfig | None = None
    rollout_correction: RolloutCorrectionConfig | None = None
    gdpo_reward_keys: list[str] | None = None
    gdpo_reward_weights: list[float] | None = None
