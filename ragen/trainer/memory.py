"""``trainer.plan_only=true``: what a configuration would run and the memory each rank needs for it.

    report = plan_run(compose("_23_FI3_nested"))   # ConfigError if it cannot divide or cannot fit
    print(report)

The model is read from its ``config.json`` alone and nothing is started.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ragen.trainer.config import plain, validate_config
from ragen.trainer.config_checks import used_tags
from ragen.trainer.machine_checks import hub_snapshot
from ragen.trainer.plan import ResolvedPlan, players_of
from verl.utils.config_check import ConfigError
from verl.utils.gpus import visible_gpus
from verl.utils.memory_plan import GiB, MemoryPlan, MemorySetup, faults, plan_memory
from verl.utils.memory_setup import CPU_KV_BYTES
from verl.utils.model_shape import ModelShape, published_shape, read_shape
from verl.utils.verl_keys import CRITIC_ESTIMATORS

#: a GPU's memory where none is at hand and trainer.device_memory_gb is not set
DEFAULT_DEVICE_GB = 80.0
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class PlanReport:
    """The plan, the memory of a rank and how much there is (bytes)."""

    plan: ResolvedPlan
    memory: MemoryPlan
    capacity: float
    source: str

    def __str__(self) -> str:
        lines = self.plan.lines()
        lines.append(f"memory       {self.capacity / GiB:.0f} GiB a rank; sizes from {self.source}")
        return "\n".join(lines + self.memory.lines() + [f"warning      {w}" for w in self.plan.warnings])


def find_shape(config: Mapping[str, Any]) -> tuple[ModelShape, str]:
    """The model's sizes and where they come from: its folder, the hub cache, or the published table."""
    path = config["actor_rollout_ref"]["model"]["path"]
    folder = Path(path).expanduser()
    folder = folder if folder.is_dir() else hub_snapshot(path)
    if folder is not None:
        try:
            return read_shape(folder), f"{folder}/config.json"
        except ValueError as error:
            raise ConfigError([f"actor_rollout_ref.model.path: {error}"]) from error
    shape = published_shape(path)
    if shape is None:
        raise ConfigError([
            f"actor_rollout_ref.model.path (model_path) = {path}: no such folder, and its sizes are not in the table of "
            "published models (verl/utils/model_shape.py): give a folder that holds at least its config.json"
        ])
    return shape, "the published config.json"


def past_selves(config: Mapping[str, Any]) -> int:
    """Engines with older weights that a rank may come to hold: one for each different entry of the games that are played."""
    entries = [player for tag in used_tags(config) for player in players_of(config["custom_envs"], tag)]
    return len({json.dumps(entry, sort_keys=True, default=str) for entry in entries if entry.get("checkpoint")})


def memory_setup(config: Mapping[str, Any], plan: ResolvedPlan, device_bytes: float | None) -> MemorySetup:
    """What the memory plan needs to know of a checked configuration. ``device_bytes``: of one GPU, ``None`` on a CPU."""
    group = config["actor_rollout_ref"]
    actor, rollout, model = group["actor"], group["rollout"], group["model"]
    fsdp = actor["fsdp_config"]
    on_gpu = device_bytes is not None
    precision = (fsdp["mixed_precision"] or {}).get("param_dtype") or ("bf16" if on_gpu else "fp32")
    share = max(-(-step.mini_batches[0] // plan.ranks) for step in plan.steps)
    rows = share if actor["use_dynamic_bsz"] else min(share, actor["ppo_micro_batch_size_per_gpu"])
    tokens = rows * rollout["max_model_len"]
    if actor["use_dynamic_bsz"]:
        tokens = min(tokens, actor["ppo_max_token_len_per_gpu"])
    cache = rollout["kv_cache_memory_bytes"]
    validated = sum(tag.groups for tag in plan.validation) * plan.val_group_size
    episodes = max(validated, *(step.episodes for step in plan.steps))
    return MemorySetup(
        ranks=plan.ranks,
        micro_tokens=tokens,
        row_tokens=rollout["max_model_len"],
        compute_bytes=_BYTES[precision],
        param_bytes=_BYTES[fsdp["model_dtype"]],
        engine_bytes=_BYTES[rollout["dtype"]],
        packed=on_gpu and model["use_remove_padding"],
        share_prompts=actor["use_prefix_grouper"],
        tensor_parallel=plan.tensor_parallel,
        reshard_after_forward=fsdp["reshard_after_forward"],
        min_num_params=fsdp["wrap_policy"]["min_num_params"],
        checkpointing=model["enable_gradient_checkpointing"],
        param_offload=fsdp["param_offload"] or fsdp["offload_policy"],
        optimizer_offload=fsdp["optimizer_offload"] or fsdp["offload_policy"],
        reference=actor["use_kl_loss"] or config["algorithm"]["use_kl_in_reward"],
        reference_offload=group["ref"]["fsdp_config"]["param_offload"],
        critic=config["algorithm"]["adv_estimator"] in CRITIC_ESTIMATORS,
        critic_offload=config["critic"]["model"]["fsdp_config"]["param_offload"],
        lora_rank=model["lora_rank"],
        engine=rollout["name"],
        sequences=min(rollout["max_num_seqs"], -(-episodes // plan.engines)),
        gpu_memory_utilization=rollout["gpu_memory_utilization"],
        kv_cache_bytes=cache if on_gpu or cache else CPU_KV_BYTES,
        engine_sleeps=rollout["free_cache_engine"],
        past_selves=past_selves(config),
        past_self_share=rollout["past_self_gpu_memory_utilization"],
        max_num_batched_tokens=rollout["max_num_batched_tokens"],
        split=plan.split_ranks > 0,
        bucket_bytes=rollout["update_weights_bucket_megabytes"] * 2**20,
        device_bytes=int(device_bytes) if on_gpu else None,
    )


def capacity(config: Mapping[str, Any], device: str) -> float:
    """Bytes one rank may use: a GPU's memory, or its share of this machine's."""
    trainer = config["trainer"]
    if device == "cuda":
        found = visible_gpus()
        return (trainer["device_memory_gb"] or (min(found) if found else DEFAULT_DEVICE_GB)) * GiB
    whole = (
        trainer["device_memory_gb"] * GiB
        if trainer["device_memory_gb"]
        else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / trainer["n_gpus_per_node"]
    )
    return whole


def plan_run(config: Mapping[str, Any] | DictConfig) -> PlanReport:
    """Check a configuration and plan its memory; raises :class:`ConfigError` for what cannot divide or fit."""
    done = plain(config)
    plan = validate_config(done, check_machine=False)
    shape, source = find_shape(done)
    room = capacity(done, plan.device)
    setup = memory_setup(done, plan, room if plan.device == "cuda" else None)
    memory = plan_memory(shape, setup)
    wrong = faults(memory, setup, room)
    positions, length = shape.max_positions, done["actor_rollout_ref"]["rollout"]["max_model_len"]
    if positions and length > positions:
        wrong.append(f"actor_rollout_ref.rollout.max_model_len = {length} is more than the model's {positions} positions")
    if shape.heads % plan.tensor_parallel:
        wrong.append(
            f"actor_rollout_ref.rollout.tensor_model_parallel_size = {plan.tensor_parallel} does not divide the model's "
            f"{shape.heads} attention heads"
        )
    if wrong:
        raise ConfigError(wrong)
    return PlanReport(plan, memory, room, source)
