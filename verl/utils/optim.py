"""AdamW and its learning rate over the training steps, from VeRL's `optim` section."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from verl.utils.torch_functional import get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup


def build_optimizer(parameters: Iterable[nn.Parameter], optim_config) -> torch.optim.AdamW:
    """AdamW over the trainable parameters: `lr`, `betas`, `eps`, `weight_decay`.

    The fused kernel is one call for all parameters; a call for each DTensor costs more than the arithmetic of a small model.
    """
    return torch.optim.AdamW(
        [parameter for parameter in parameters if parameter.requires_grad],
        lr=float(optim_config["lr"]),
        betas=tuple(optim_config.get("betas") or (0.9, 0.999)),
        eps=float(optim_config.get("eps", 1e-8)),
        weight_decay=float(optim_config.get("weight_decay", 0.01)),
        fused=True,
    )


def clip_norm(section) -> float:
    """The norm that gradients are scaled down to: `optim.clip_grad` (VeRL's newest name) of an `actor` or `critic` section,
    and where that is not given `grad_clip`."""
    given = (section.get("optim") or {}).get("clip_grad")
    return float(section.get("grad_clip", 1.0) if given is None else given)


def build_lr_scheduler(optimizer: torch.optim.Optimizer, optim_config) -> LambdaLR:
    """Linear warm-up to `lr`, then constant or a cosine down to `min_lr_ratio * lr`; one step a training step.

    Args:
        optim_config: `lr_warmup_steps` (or, where that is negative or absent, `lr_warmup_steps_ratio` of
            `total_training_steps`), `lr_scheduler_type` (or VeRL's older name `warmup_style`): constant | cosine,
            `total_training_steps`, `min_lr_ratio`, `num_cycles`.
    """
    total = int(optim_config.get("total_training_steps", -1) or -1)
    warmup = optim_config.get("lr_warmup_steps", -1)
    if warmup is None or warmup < 0:
        warmup = int(float(optim_config.get("lr_warmup_steps_ratio", 0.0) or 0.0) * max(total, 0))
    kind = optim_config.get("lr_scheduler_type") or optim_config.get("warmup_style") or "constant"
    if kind == "constant":
        return get_constant_schedule_with_warmup(optimizer, warmup)
    if kind != "cosine":
        raise ValueError(f"optim.lr_scheduler_type={kind!r}: use constant or cosine")
    if total <= 0:
        raise ValueError("optim.lr_scheduler_type=cosine needs trainer.total_training_steps (optim.total_training_steps) above 0")
    floor, cycles = float(optim_config.get("min_lr_ratio", 0.0) or 0.0), float(optim_config.get("num_cycles", 0.5) or 0.5)
    return get_cosine_schedule_with_warmup(optimizer, warmup, total, min_lr_ratio=floor, num_cycles=cycles)
