"""From a config to a sharded model with its optimizer: what actor, reference and critic have in common."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from verl.utils.attention import resolve_attention
from verl.utils.device import compute_device, get_device_name
from verl.utils.fsdp_utils import (
    apply_fsdp2,
    buckets,
    gather_full,
    load_fsdp2_model_to_gpu,
    load_fsdp_optimizer,
    offload_fsdp2_model_to_cpu,
    offload_fsdp_optimizer,
    reshard,
    to_dtype,
)
from verl.utils.lora import add_lora, exported_weights, is_lora
from verl.utils.model import build_causal_lm, build_value_model, count_parameters, decoder_layers, load_model_config
from verl.utils.optim import build_lr_scheduler, build_optimizer

logger = logging.getLogger(__name__)


@dataclass
class ShardedModel:
    """A sharded model, how it attends, and what trains it (None for a model that is only evaluated)."""

    module: nn.Module
    packed: bool
    fsdp_config: dict
    optimizer: torch.optim.Optimizer | None = None
    lr_scheduler: torch.optim.lr_scheduler.LRScheduler | None = None

    @property
    def offloads_params(self) -> bool:
        return bool(self.fsdp_config.get("param_offload", False)) and get_device_name() == "cuda"

    @property
    def offloads_optimizer(self) -> bool:
        return bool(self.fsdp_config.get("optimizer_offload", False)) and get_device_name() == "cuda"

    def load(self, optimizer: bool = False) -> None:
        """Bring offloaded shards (and the optimizer's state, if asked) to the device."""
        if self.offloads_params:
            load_fsdp2_model_to_gpu(self.module)
        if optimizer and self.optimizer is not None and self.offloads_optimizer:
            load_fsdp_optimizer(self.optimizer)

    def offload(self) -> None:
        """Move to host memory what the config says does not stay on the device, and give unused blocks back to a GPU:
        the engine and other processes on it have allocators of their own."""
        if self.offloads_params:
            offload_fsdp2_model_to_cpu(self.module)
        if self.optimizer is not None and self.offloads_optimizer:
            offload_fsdp_optimizer(self.optimizer)
        if get_device_name() == "cuda":
            torch.cuda.empty_cache()

    def iter_weights(self, bucket_bytes: int) -> Iterator[tuple[str, torch.Tensor]]:
        """Whole weights under their Hugging Face names, adapters merged, tied copies left out.

        Gathered `bucket_bytes` at a time; all ranks iterate together, to the end.
        """
        reshard(self.module)
        device = compute_device()
        weights = exported_weights(self.module)
        sizes = [sum(part.numel() * part.element_size() for part in weight.parts()) for weight in weights]
        for bucket in buckets(sizes, bucket_bytes):
            chosen = [weights[index] for index in bucket]
            whole = gather_full([part for weight in chosen for part in weight.parts()], device)
            for weight in chosen:
                yield weight.name, weight.combine([next(whole) for _ in weight.parts()])
            del whole  # or this bucket would wait for the next one to be gathered


def build_sharded_model(
    kind: str, model_config, fsdp_config, *, compile_layers: bool = False, share_prompts: bool = False, key: str
) -> ShardedModel:
    """Build, adapt and shard a model. All ranks call it together; rank 0 alone reads the weights.

    Args:
        kind: "causal_lm" or "value".
        model_config: VeRL's `model` section: `path`, `trust_remote_code`, `override_config`, `use_remove_padding`,
            `enable_gradient_checkpointing`, `lora_rank`, `lora_alpha`, `target_modules`, `exclude_modules`.
        fsdp_config: VeRL's `fsdp_config`; `model_dtype` is that of the shards (float32).
        compile_layers: `torch.compile` every decoder layer.
        share_prompts: the attention must be able to compute shared prompts once.
        key: name of the path's config key, for errors.
    """
    device = get_device_name()
    overrides = _plain(model_config.get("override_config") or {})
    trust = bool(model_config.get("trust_remote_code", False))
    attention, packed = resolve_attention(
        bool(model_config.get("use_remove_padding", True)), device, overrides.get("attn_implementation"), share_prompts
    )
    hf_config = load_model_config(model_config.path, overrides, trust, key)
    build = {"causal_lm": build_causal_lm, "value": build_value_model}[kind]
    model = build(model_config.path, hf_config, attn_implementation=attention, meta=dist.get_rank() != 0, trust_remote_code=trust)
    model.to(to_dtype(fsdp_config.get("model_dtype") or "fp32"))
    if model_config.get("enable_gradient_checkpointing", True):
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if rank := int(model_config.get("lora_rank", 0) or 0):
        model = add_lora(
            model,
            rank,
            float(model_config.get("lora_alpha", 16)),
            _plain(model_config.get("target_modules", "all-linear")),
            _plain(model_config.get("exclude_modules")),
            is_value_model=kind == "value",
        )
    if compile_layers:
        for layer in decoder_layers(model):
            layer.compile(dynamic=True)
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    apply_fsdp2(model, mesh, fsdp_config)
    if dist.get_rank() == 0:
        trainable = count_parameters(p for p in model.parameters() if p.requires_grad)
        logger.info(
            "%s: %.2fM parameters, %.2fM trainable, attention %s%s, %d ranks on %s",
            key, count_parameters(model.parameters()) / 1e6, trainable / 1e6, attention, ", packed" if packed else "",
            dist.get_world_size(), device,
        )  # fmt: skip
    return ShardedModel(model, packed, fsdp_config)


def add_optimizer(model: ShardedModel, optim_config) -> None:
    """Give a sharded model the optimizer and the schedule of `optim_config`."""
    model.optimizer = build_optimizer(model.module.parameters(), optim_config)
    model.lr_scheduler = build_lr_scheduler(model.optimizer, optim_config)


def has_adapters(model: ShardedModel) -> bool:
    """Whether the model trains LoRA adapters over a frozen base."""
    return is_lora(model.module)


def _plain(value):
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
