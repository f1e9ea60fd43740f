"""VeRL's config dataclasses: fields and defaults are those of its published configuration, and losses read them."""

import dataclasses
import inspect
import json
from pathlib import Path

import pytest
import torch

from verl.trainer.config import AlgoConfig, RolloutCorrectionConfig
from verl.trainer.config.algorithm import KLControlConfig
from verl.trainer.ppo.config_access import config_value
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.trainer.ppo.rollout_correction import compute_rollout_correction_and_rejection_mask
from verl.workers.config import FSDPActorConfig
from verl.workers.config.actor import ActorConfig, PolicyLossConfig

PUBLISHED = json.loads((Path(__file__).parent / "verl_0_9_1_keys.json").read_text())
#: the dataclass is more than its section's defaults in the YAML: weights by sequence where one is made, none where none is asked for
OWN_DEFAULT = {"algorithm.rollout_correction.rollout_is": "sequence"}
#: fields that VeRL's configuration does not list
UNLISTED = {
    "global_batch_info", "ppo_infer_micro_batch_size_per_gpu", "ppo_infer_max_token_len_per_gpu", "use_rollout_log_probs", "use_pf_ppo",
    "gdpo_reward_keys", "gdpo_reward_weights", "rollout_correction", "filter_groups",
}  # fmt: skip
PRESETS = [name for name, _ in inspect.getmembers(RolloutCorrectionConfig, inspect.ismethod) if name.startswith(("decoupled", "bypass", "disabled"))]


@pytest.mark.parametrize("section, make", [
    ("actor_rollout_ref.actor", lambda: FSDPActorConfig(rollout_n=1, ppo_micro_batch_size_per_gpu=2)),
    ("actor_rollout_ref.actor.policy_loss", PolicyLossConfig),
    ("algorithm", AlgoConfig), ("algorithm.kl_ctrl", KLControlConfig), ("algorithm.rollout_correction", RolloutCorrectionConfig),
])  # fmt: skip
def test_fields_and_defaults_are_the_published_ones(section, make):
    config, compared = make(), 0
    for field in dataclasses.fields(config):
        key, value = f"{section}.{field.name}", config[field.name]
        if field.name.startswith("_") or isinstance(value, dict) or hasattr(value, "_mutable_fields"):
            continue
        if key not in PUBLISHED:
            assert field.name in UNLISTED, key
        elif key not in ("actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu", "actor_rollout_ref.actor.use_remove_padding"):
            assert value == OWN_DEFAULT.get(key, PUBLISHED[key]), key
            compared += 1
    assert compared >= min(7, len(dataclasses.fields(config)) - 1)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_what_its_name_says_and_can_be_computed(name):
    preset = getattr(RolloutCorrectionConfig, name)()
    assert preset.bypass_mode is name.startswith("bypass") and (preset.loss_type == "reinforce") is name.startswith("bypass_pg")
    assert (preset.rollout_rs is not None) is ("_rs" in name) and ("k3" in str(preset.rollout_rs)) is ("k3" in name)
    assert (preset.rollout_is == "token") is ("token" in name)
    torch.manual_seed(0)
    ours, engine, mask = torch.randn(6, 5) / 50, torch.randn(6, 5) / 50, torch.ones(6, 5)
    weights, kept, _ = compute_rollout_correction_and_rejection_mask(
        ours, engine, mask, rollout_is=preset.rollout_is, rollout_is_threshold=preset.rollout_is_threshold,
        rollout_rs=preset.rollout_rs, rollout_rs_threshold=preset.rollout_rs_threshold,
    )  # fmt: skip
    assert (weights is None) == (preset.rollout_is is None) and (preset.rollout_rs is not None or bool(kept.all()))


def test_thresholds_are_arguments():
    assert RolloutCorrectionConfig.decoupled_seq_is(3.5).rollout_is_threshold == 3.5
    assert RolloutCorrectionConfig.bypass_pg_token_icepop(4, 0.25).rollout_is_threshold == "0.25_4"
    both = RolloutCorrectionConfig.decoupled_k3_rs_token_tis(is_threshold=1.5, rs_threshold=0.2)
    assert (both.rollout_is_threshold, both.rollout_rs_threshold) == (1.5, 0.2)
    assert len(PRESETS) == 19


@pytest.mark.parametrize("missing, named", [
    ({"strategy": ""}, "actor.strategy"), ({"rollout_n": None}, "actor.rollout_n"), ({"ppo_micro_batch_size_per_gpu": None}, "neither given"),
    ({"ppo_micro_batch_size": 4}, "both given"), ({"loss_agg_mode": "mean"}, "actor.loss_agg_mode is 'mean'"),
])  # fmt: skip
def test_what_is_missing_is_named(missing, named):
    good = {"strategy": "fsdp", "rollout_n": 2, "ppo_micro_batch_size_per_gpu": 1}
    assert ActorConfig(**good).clip_ratio == 0.2
    with pytest.raises(ValueError, match=named):
        ActorConfig(**{**good, **missing})
    with pytest.raises(dataclasses.FrozenInstanceError):
        ActorConfig(**good).clip_ratio = 0.3


def test_a_loss_reads_the_dataclass():
    """Clipping bounds of the dataclass, and not the defaults: the same as from a dict."""
    torch.manual_seed(1)
    old, new, advantages, mask = torch.randn(3, 4), torch.randn(3, 4), torch.randn(3, 4), torch.ones(3, 4)
    values = {"clip_ratio": 0.01, "clip_ratio_low": 0.01, "clip_ratio_high": 0.02}
    made = ActorConfig(strategy="fsdp", rollout_n=1, use_dynamic_bsz=True, **values)
    loss = get_policy_loss_fn("vanilla")
    of_dataclass, of_dict, of_default = (
        loss(old, new, advantages, mask, "token-mean", config)[0].item()
        for config in (made, values, ActorConfig(strategy="fsdp", rollout_n=1, use_dynamic_bsz=True))
    )
    assert of_dataclass == of_dict != of_default
    assert config_value(made, "policy_loss.rollout_correction.rollout_is") == "sequence" and config_value(made, "no_such_key", 7) == 7
