"""FSDP2: a model's weights from rank 0 to shards, gathered again bucket by bucket, moved off the device between phases.

Gradients are SUMMED over the ranks (FSDP's own default is the mean): every rank's loss is its share of the global
mini-batch's loss, so that the sum is the gradient of the whole, whatever the number of ranks.
"""

import functools
import gc
import logging
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from verl.utils.model import count_parameters, decoder_layers

logger = logging.getLogger(__name__)

DTYPES = {
    "float32": torch.float32, "fp32": torch.float32,
    "bfloat16": torch.bfloat16, "bf16": torch.bfloat16,
    "float16": torch.float16, "fp16": torch.float16,
}  # fmt: skip


def to_dtype(name: str | torch.dtype) -> torch.dtype:
    """`bf16`, `bfloat16`, `fp32`, ... as a torch dtype."""
    if isinstance(name, torch.dtype):
        return name
    if str(name) not in DTYPES:
        raise ValueError(f"fsdp_config.mixed_precision: unknown dtype {name!r}; use one of {', '.join(DTYPES)}")
    return DTYPES[str(name)]


def mixed_precision_policy(fsdp_config, device: str) -> MixedPrecisionPolicy:
    """`fsdp_config.mixed_precision: {param_dtype, reduce_dtype}`; bfloat16 on a GPU and float32 on a CPU where not given."""
    given = fsdp_config.get("mixed_precision") or {}
    param_dtype = to_dtype(given.get("param_dtype") or ("bf16" if device == "cuda" else "fp32"))
    reduce_dtype = to_dtype(given.get("reduce_dtype") or "fp32")
    return MixedPrecisionPolicy(
        param_dtype=None if param_dtype == torch.float32 else param_dtype, reduce_dtype=reduce_dtype, cast_forward_inputs=True
    )


def apply_fsdp2(model: nn.Module, mesh: DeviceMesh, fsdp_config) -> nn.Module:
    """Fill `model` with rank 0's weights and shard it, one block at a time.

    Rank 0 holds the model with its weights on the CPU, the other ranks hold it on `meta`; no rank ever has more than
    its shards and one whole block on the device. Tied parameters stay tied.

    Args:
        model: the same structure on every rank.
        mesh: one-dimensional, over all ranks.
        fsdp_config: `mixed_precision`, `reshard_after_forward`, `offload_policy`, `wrap_policy.min_num_params` (blocks
            with fewer parameters are not sharded by themselves but with the root: fewer collectives for small models).
    """
    options = {
        "mesh": mesh,
        "mp_policy": mixed_precision_policy(fsdp_config, mesh.device_type),
        "offload_policy": _offload_policy(fsdp_config, mesh.device_type),
        "reshard_after_forward": bool(fsdp_config.get("reshard_after_forward", True)),
    }
    fill = _Filler(torch.device(mesh.device_type))
    for unit in [*_sharding_units(model, fsdp_config), model]:
        fill(unit)
        fully_shard(unit, **options)
    for module in fsdp_modules(model):
        module.set_force_sum_reduction_for_comms(True)
        module.set_gradient_divide_factor(1.0)
    return model


def _offload_policy(fsdp_config, device: str) -> OffloadPolicy:
    if not fsdp_config.get("offload_policy", False):
        return OffloadPolicy()
    if device == "cpu":
        logger.info("fsdp_config.offload_policy: without a GPU the parameters are on the CPU anyway")
        return OffloadPolicy()
    return CPUOffloadPolicy()


def _sharding_units(model: nn.Module, fsdp_config) -> list[nn.Module]:
    smallest = (fsdp_config.get("wrap_policy") or {}).get("min_num_params", 0) or 0
    return [layer for layer in decoder_layers(model) if count_parameters(layer.parameters()) >= smallest]


class _Filler:
    """Puts rank 0's parameters and buffers into the modules of every rank, each module once.

    The whole parameters of a unit are let go at the next one, when it is sharded.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.done: set[nn.Module] = set()
        self.before: dict[int, nn.Parameter] = {}
        self.tied: dict[int, nn.Parameter] = {}

    def __call__(self, unit: nn.Module) -> None:
        self.tied = {}
        for module in unit.modules():
            if module in self.done:
                continue
            self.done.add(module)
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = self._parameter(parameter)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = self._tensor(buffer)

    def _parameter(self, old: nn.Parameter) -> nn.Parameter:
        if id(old) not in self.tied:
            if id(old) in self.before:
                raise ValueError(
                    "a parameter is shared between blocks that are sharded apart: set "
                    "fsdp_config.wrap_policy.min_num_params above the size of a block"
                )
            self.tied[id(old)] = nn.Parameter(self._tensor(old.detach()), requires_grad=old.requires_grad)
            self.before[id(old)] = old  # kept, so that its id is not used again
            if not old.is_meta:
                old.data = torch.empty(0)
        return self.tied[id(old)]

    def _tensor(self, old: torch.Tensor) -> torch.Tensor:
        if dist.get_rank() == 0:
            tensor = old.to(self.device).contiguous()
        else:
            tensor = torch.empty(old.shape, dtype=old.dtype, device=self.device)
        if dist.get_world_size() > 1:
            dist.broadcast(tensor, src=0)
        return tensor


def fsdp_modules(model: nn.Module) -> list[FSDPModule]:
    """The sharded modules of `model`, the root first; none for a plain model."""
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def reshard(model: nn.Module) -> None:
    """Free every gathered parameter, so that `model.parameters()` are the shards (needed before reading or loading them)."""
    for module in fsdp_modules(model):
        module.reshard()


def accumulate_gradients(model: nn.Module, is_last: bool) -> None:
    """Before each backward of a mini-batch, where whole parameters stay on every rank (`reshard_after_forward=false`).

    Whole gradients then stay too, and are reduced once a mini-batch, at the last backward. Without this call every
    backward reduces at once and keeps shards only.
    """
    for module in fsdp_modules(model)[:1]:
        module.set_requires_gradient_sync(is_last)
        module.set_reshard_after_backward(is_last)


def clip_grad_norm(parameters: list[nn.Parameter], max_norm: float) -> float:
    """Scale the gradients so that their norm over ALL ranks is at most `max_norm`; the norm before that.

    One collective, on local shards: `torch.nn.utils.clip_grad_norm_` gives the same number but dispatches a DTensor
    operation for each parameter.
    """
    gradients = [_local(p.grad) for p in parameters if p.grad is not None]
    if not gradients:
        return 0.0
    square = torch.stack([norm.double() for norm in torch._foreach_norm(gradients)]).square().sum()
    if any(isinstance(p, DTensor) for p in parameters) and dist.get_world_size() > 1:
        dist.all_reduce(square)
    norm = float(square.sqrt())
    if norm > max_norm:
        torch._foreach_mul_(gradients, max_norm / (norm + 1e-6))
    return norm


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def gather_full(parameters: list[torch.Tensor], device: torch.device) -> Iterator[torch.Tensor]:
    """The whole tensors of several parameters sharded on their first dimension, in one collective.

    All ranks call it together with the same list; the parameters must be resharded (see :func:`reshard`). What is
    gathered exists once, and besides it the tensor that was handed out last.
    """
    world = dist.get_world_size() if dist.is_initialized() else 1
    if world == 1 or not all(isinstance(p, DTensor) for p in parameters):
        return (_local(p).detach().to(device) for p in parameters)
    sizes = [_padded_numel(parameter, world) for parameter in parameters]  # uneven shards are padded to the largest
    dtype = functools.reduce(torch.promote_types, (parameter.dtype for parameter in parameters))
    mine = torch.zeros(sum(sizes), dtype=dtype, device=device)
    for piece, parameter in zip(mine.split(sizes), parameters, strict=True):
        local = parameter.to_local().detach().reshape(-1)
        piece[: local.numel()] = local
    everyone = mine.new_empty(world, mine.numel())
    # torch 2.11 has it by its older name alone
    getattr(dist, "all_gather_single", dist.all_gather_into_tensor)(everyone.view(-1), mine)
    columns = everyone.split(sizes, dim=1)
    return (
        column.reshape(-1)[: parameter.numel()].reshape(parameter.shape)
        for column, parameter in zip(columns, parameters, strict=True)
    )


def _padded_numel(parameter: DTensor, world: int) -> int:
    rows = parameter.shape[0]
    return -(-rows // world) * (parameter.numel() // max(rows, 1))


def buckets(sizes: list[int], limit: int) -> Iterator[range]:
    """Runs of consecutive items whose sizes add up to at most `limit` (an item above it stands alone)."""
    start, total = 0, 0
    for index, size in enumerate(sizes):
        if index > start and total + size > limit:
            yield range(start, index)
            start, total = index, 0
        total += size
    if start < len(sizes):
        yield range(start, len(sizes))


def offload_fsdp2_model_to_cpu(model: nn.Module) -> None:
    """Move the shards to the CPU between phases (`fsdp_config.param_offload`)."""
    reshard(model)
    model.to("cpu")
    _release()


def load_fsdp2_model_to_gpu(model: nn.Module) -> None:
    """Bring the shards back before they are used."""
    model.to("cuda")


def offload_fsdp_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Move the optimizer's state to the CPU between updates (`fsdp_config.optimizer_offload`)."""
    _move_optimizer(optimizer, "cpu")
    _release()


def load_fsdp_optimizer(optimizer: torch.optim.Optimizer, device: str = "cuda") -> None:
    """Bring the optimizer's state back before a step."""
    _move_optimizer(optimizer, device)


def _move_optimizer(optimizer: torch.optim.Optimizer, device: str) -> None:
    for state in optimizer.state.values():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.dim() > 0:  # the step count stays where the kernel wants it
                state[name] = value.to(device, non_blocking=True)


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
