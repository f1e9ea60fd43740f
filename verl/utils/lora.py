"""LoRA through peft: adapters added before sharding, switched off for the reference, merged for the engine.

Parameter names are those of `peft.get_peft_model` (and so of VeRL's checkpoints):
`base_model.model.<hf name>.base_layer.weight`, `base_model.model.<hf name>.lora_A.default.weight`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import LoraLayer
from torch import nn

from verl.utils.model import VALUE_HEADS, value_head

ADAPTER = "default"


@dataclass(frozen=True)
class ExportedWeight:
    """One tensor of the Hugging Face model and what it is made of: `base + scaling * B @ A` where there is an adapter."""

    name: str
    base: nn.Parameter
    lora_a: nn.Parameter | None = None
    lora_b: nn.Parameter | None = None
    scaling: float = 1.0

    def parts(self) -> list[nn.Parameter]:
        return [p for p in (self.base, self.lora_a, self.lora_b) if p is not None]

    def combine(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """The exported tensor from its gathered parts (order of :meth:`parts`)."""
        if len(parts) == 1:
            return parts[0]
        base, lora_a, lora_b = parts
        return base + (lora_b @ lora_a) * self.scaling


def add_lora(
    model: nn.Module,
    rank: int,
    alpha: float,
    target_modules: str | list[str],
    exclude_modules: str | list[str] | None = None,
    is_value_model: bool = False,
) -> PeftModel:
    """Freeze `model` and add trainable adapters of `rank` to its linear layers.

    Args:
        target_modules: "all-linear", or names of linear layers as peft takes them (a list of endings or a regular expression).
        exclude_modules: names that get none, in the same forms.
        is_value_model: the head is new, so it is trained whole and gets no adapter.

    Raises:
        ValueError: no module of that name, or one that is not linear.
    """
    config = LoraConfig(
        task_type=None if is_value_model else TaskType.CAUSAL_LM, r=rank, lora_alpha=alpha, target_modules=target_modules,
        exclude_modules=_without_head(exclude_modules) if is_value_model else exclude_modules, lora_dropout=0.0, bias="none",
    )  # fmt: skip
    try:
        peft_model = get_peft_model(model, config, low_cpu_mem_usage=next(model.parameters()).is_meta)
    except ValueError as error:
        raise ValueError(f"model.target_modules={target_modules!r}: {error}") from error
    for name, module in peft_model.named_modules():
        if isinstance(module, LoraLayer) and not isinstance(module, LoraLinear):
            raise ValueError(
                f"model.target_modules={target_modules!r} takes in {name}, a {type(module).__name__}: only linear layers can be "
                "trained by LoRA here; name them one by one or use 'all-linear'"
            )
    if not is_value_model and isinstance(peft_model.get_base_model().get_output_embeddings(), LoraLayer):
        raise ValueError(f"model.target_modules={target_modules!r} takes in the output head, which gets no adapter here")
    if is_value_model:
        value_head(peft_model.get_base_model()).requires_grad_(True)
    return peft_model


def _without_head(exclude_modules: str | list[str] | None) -> str | list[str]:
    if isinstance(exclude_modules, str):
        return rf"{exclude_modules}|(.*\.)?({'|'.join(VALUE_HEADS)})"
    return [*(exclude_modules or ()), *VALUE_HEADS]


@contextmanager
def adapters_off(model: PeftModel) -> Iterator[None]:
    """The frozen base alone, for a forward without gradients: the reference policy that takes no memory.

    Unlike peft's `disable_adapter` it leaves `requires_grad` alone, which FSDP keeps on sharded and gathered copies apart.
    """
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def is_lora(model: nn.Module) -> bool:
    """Whether `model` carries adapters."""
    return isinstance(model, PeftModel)


def huggingface_model(model: nn.Module) -> nn.Module:
    """The Hugging Face model itself, under peft's wrapper if there is one."""
    return model.get_base_model() if is_lora(model) else model


def exported_weights(model: nn.Module) -> list[ExportedWeight]:
    """The weights an inference engine loads: Hugging Face names, adapters merged, tied copies left out.

    Only a list of what to gather; nothing is gathered or added up here.
    """
    root = huggingface_model(model)
    adapted = {name: module for name, module in root.named_modules() if isinstance(module, LoraLayer)}
    exported = []
    for name, parameter in root.named_parameters():  # a tied parameter is named once, at the embedding
        if ".lora_" in name:
            continue
        module = adapted.get(name.rsplit(".base_layer.", 1)[0]) if ".base_layer." in name else None
        name = name.replace(".base_layer.", ".")
        if module is None or not name.endswith(".weight"):
            exported.append(ExportedWeight(name, parameter))
        else:
            exported.append(
                ExportedWeight(
                    name, parameter, module.lora_A[ADAPTER].weight, module.lora_B[ADAPTER].weight, module.scaling[ADAPTER]
                )
            )
    return exported
