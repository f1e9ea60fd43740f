"""LoRA checkpoints: peft's parameter names, and adapters added into the weights or taken out as a folder of their own."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from verl.model_merger.sources import TensorFacts, WeightSource
from verl.utils.checkpoint.errors import CheckpointError

PREFIX = "base_model.model."
ADAPTER = re.compile(r"(.+)\.lora_([AB])\.([^.]+)\.weight")
CONFIG_FILES = ("lora_config.json", "lora_adapter/adapter_config.json", "lora_train_meta.json")  # ours, VeRL's two


def is_lora(facts: Mapping[str, TensorFacts]) -> bool:
    """Whether a checkpoint has adapters in it."""
    return any(".lora_" in name for name in facts)


def read_lora_config(local_dir: Path) -> dict:
    """The adapter's rank, alpha and so on.

    Raises:
        CheckpointError: the checkpoint has no such file, or has a kind of adapter that cannot be merged.
    """
    for name in CONFIG_FILES:
        path = local_dir / name
        if path.is_file():
            config = json.loads(path.read_text())
            break
    else:
        raise CheckpointError(
            f"{local_dir} holds LoRA weights but none of {', '.join(CONFIG_FILES)}: put adapter_config.json there"
        )
    for key in ("r", "lora_alpha"):
        if not config.get(key):
            raise CheckpointError(f"{path}: {key} is {config.get(key)!r}; write the value the adapter was trained with")
    if config.get("use_dora") or config.get("rank_pattern") or config.get("alpha_pattern"):
        raise CheckpointError(f"{path}: DoRA and per-module ranks or alphas cannot be merged")
    return config


@dataclass(frozen=True)
class Adapter:
    """Names of the two low-rank factors of a weight."""

    a: str
    b: str


class MergedSource:
    """A LoRA checkpoint seen as the plain model: `W + scaling * B @ A` (Hu et al. 2021, arXiv 2106.09685)."""

    def __init__(self, source: WeightSource, config: dict):
        self.source = source
        root = math.sqrt(config["r"]) if config.get("use_rslora") else config["r"]
        self.scaling = config["lora_alpha"] / root
        self.stored = {plain_name(name): name for name in source.facts if ".lora_" not in name}
        self.adapters = _adapters(source.facts)
        self.facts = {name: source.facts[stored] for name, stored in self.stored.items()}

    def read(self, name: str) -> torch.Tensor:
        weight = self.source.read(self.stored[name])
        adapter = self.adapters.get(name)
        if adapter is None:
            return weight
        a, b = self.source.read(adapter.a), self.source.read(adapter.b)
        return (weight.float() + self.scaling * (b.float() @ a.float())).to(weight.dtype)


class AdapterSource:
    """The adapters alone, under the names of a peft adapter folder."""

    def __init__(self, source: WeightSource):
        self.source = source
        self.stored = {}
        for name in source.facts:
            if match := ADAPTER.fullmatch(name):
                self.stored[f"{match.group(1)}.lora_{match.group(2)}.weight"] = name
        self.facts = {name: source.facts[stored] for name, stored in self.stored.items()}

    def read(self, name: str) -> torch.Tensor:
        return self.source.read(self.stored[name])


def plain_name(name: str) -> str:
    """A name in peft's wrapper as the model itself has it."""
    return name.removeprefix(PREFIX).replace(".base_layer.", ".")


def _adapters(facts: Mapping[str, TensorFacts]) -> dict[str, Adapter]:
    halves: dict[str, dict[str, str]] = {}
    for name in facts:
        if match := ADAPTER.fullmatch(name):
            halves.setdefault(plain_name(f"{match.group(1)}.weight"), {})[match.group(2)] = name
        elif ".lora_" in name:
            raise CheckpointError(f"{name}: only LoRA on linear layers can be merged")
    for name, half in halves.items():
        if half.keys() != {"A", "B"}:
            raise CheckpointError(f"{name} has only one half of its adapter in the checkpoint")
    return {name: Adapter(half["A"], half["B"]) for name, half in halves.items()}
