"""A model's and an optimizer's tensors by Hugging Face name, as shards that share memory with the live ones."""

import logging
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.fsdp import FSDPModule

from verl.utils.checkpoint.errors import CheckpointError

logger = logging.getLogger(__name__)

WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")  # compile, checkpointing, FSDP1


def clean_name(name: str) -> str:
    """A parameter's name without what torch's own wrappers put into it."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def reshard(model: nn.Module) -> None:
    """Free gathered parameters (FSDP2), so that the model's parameters are its shards again."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def model_tensors(model: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Parameters and persistent buffers by name, and `{alias: name}` of tied ones, which are listed once.

    The tensors are the live ones (call :func:`reshard` first): filling them in place loads the model.
    """
    tensors, aliases, first = {}, {}, {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        name = clean_name(name)
        if not isinstance(tensor, torch.Tensor):
            continue
        if id(tensor) in first:
            aliases[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
            tensors[name] = tensor.detach()
    return tensors, aliases


def parameter_names(model: nn.Module) -> dict[nn.Parameter, str]:
    """Name of every parameter, the first one where it has several."""
    return {parameter: clean_name(name) for name, parameter in model.named_parameters()}


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """An optimizer's state as tensors `PARAMETER/KEY` and plain values `{"scalars": ..., "param_groups": ...}`.

    Parameters that were never updated have no state, and none is made up for them.
    """
    names = parameter_names(model)
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, Any] = {}
    groups = []
    for group in optimizer.param_groups:
        members = [_name_in(names, parameter) for parameter in group["params"]]
        groups.append({**{key: value for key, value in group.items() if key != "params"}, "params": members})
        for name, parameter in zip(members, group["params"], strict=True):
            for key, value in optimizer.state.get(parameter, {}).items():
                (tensors if isinstance(value, torch.Tensor) else scalars)[f"{name}/{key}"] = value
    return tensors, {"scalars": scalars, "param_groups": groups}


def empty_optimizer_tensors(model: nn.Module, stored: dict[str, TensorStorageMetadata]) -> dict[str, torch.Tensor]:
    """Tensors to load `stored` optimizer state into: sharded as the parameter where shapes agree, else whole on the CPU."""
    parameters = {name: parameter for parameter, name in parameter_names(model).items()}
    empty = {}
    for key, facts in stored.items():
        name = key.rpartition("/")[0]
        if name not in parameters:
            raise CheckpointError(f"the checkpoint's optimizer has state for {name}, which this model lacks")
        like = parameters[name]
        dtype = facts.properties.dtype
        if facts.size == like.size() and like.dim() > 0:
            empty[key] = torch.empty_like(like.detach(), dtype=dtype)
        else:
            empty[key] = torch.empty(facts.size, dtype=dtype)
    return empty


def set_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], plain: dict[str, Any]
) -> None:
    """Put what :func:`optimizer_tensors` returned into `optimizer`, whose groups hold the same parameters.

    Raises:
        CheckpointError: the groups hold other parameters; the message names some.
    """
    names = parameter_names(model)
    saved_groups = plain["param_groups"]
    if len(saved_groups) != len(optimizer.param_groups):
        raise CheckpointError(
            f"the checkpoint's optimizer has {len(saved_groups)} parameter groups, this run's {len(optimizer.param_groups)}: "
            "resume with the optimizer settings it was saved with"
        )
    by_parameter: dict[str, dict[str, Any]] = {}
    for key, value in {**tensors, **plain["scalars"]}.items():
        name, _, field = key.rpartition("/")
        by_parameter.setdefault(name, {})[field] = value
    state, groups, index = {}, [], 0
    for group, saved in zip(optimizer.param_groups, saved_groups, strict=True):
        members = [_name_in(names, parameter) for parameter in group["params"]]
        if different := sorted(set(members) ^ set(saved["params"])):
            raise CheckpointError(
                f"the optimizer trains other parameters than the checkpoint's ({', '.join(different[:3])}, "
                f"{len(different)} in all): resume with the model and LoRA settings it was saved with"
            )
        for position, name in enumerate(members):
            if name in by_parameter:
                state[index + position] = by_parameter[name]
        groups.append({**saved, "params": list(range(index, index + len(members)))})
        index += len(members)
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _name_in(names: dict[nn.Parameter, str], parameter: nn.Parameter) -> str:
    if parameter not in names:
        raise CheckpointError(
            f"the optimizer holds a parameter of shape {tuple(parameter.shape)} that is not the model's: "
            "make the optimizer after sharding the model"
        )
    return names[parameter]
