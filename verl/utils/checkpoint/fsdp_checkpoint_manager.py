"""One model's share of a checkpoint, written and read by all its ranks together.

FOLDER/
  fsdp_config.json            format, world_size, step, contents, tied parameters
  model/                      DCP: weights under their Hugging Face names, in the dtype they are trained in
  optimizer/                  DCP: `PARAMETER/KEY`; optimizer.json: groups and plain values
  extra/lr_scheduler.json     the scheduler
  extra/rank_R.json           random generators of rank R and what the caller adds
  lora_config.json            LoRA only: rank, alpha, target modules (peft's adapter_config.json)
  huggingface/                config, generation config, tokenizer, chat template
"""

import copy
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule
from transformers.dynamic_module_utils import custom_object_save

from verl.utils.checkpoint.dcp_io import SafeFileSystemReader, object_group, read_tensors, save_tensors
from verl.utils.checkpoint.disk_space import free_bytes
from verl.utils.checkpoint.errors import CheckpointError, CorruptCheckpoint, DiskFull, is_disk_full
from verl.utils.checkpoint.manifest import write_partial
from verl.utils.checkpoint.named_state import (
    empty_optimizer_tensors,
    model_tensors,
    optimizer_tensors,
    reshard,
    set_optimizer_state,
)
from verl.utils.checkpoint.rng_state import get_rng_state, seed_all, set_rng_state
from verl.utils.checkpoint.state_io import load_state, save_state, write_text

logger = logging.getLogger(__name__)

CONTENTS = ("model", "optimizer", "extra")
CONFIG_FILE = "fsdp_config.json"
LORA_FILE = "lora_config.json"
FORMAT = "dcp"


class FSDPCheckpointManager:
    """Saves and loads a model sharded by FSDP2 (or whole, in one process), on any number of ranks.

    Args:
        model: the sharded module.
        optimizer: its optimizer; needed where contents has "optimizer".
        lr_scheduler: belongs to "extra".
        processing_class: the tokenizer, saved beside the weights.
        checkpoint_contents: any of "model", "optimizer", "extra".
        hf_model: the Hugging Face (or peft) model inside `model`, whose names the weights are saved under; None: `model`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        lr_scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        processing_class=None,
        checkpoint_contents: Sequence[str] = CONTENTS,
        hf_model: nn.Module | None = None,
    ):
        self.model = model
        self.hf_model = model if hf_model is None else hf_model
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.processing_class = processing_class
        self.checkpoint_contents = self._check_contents(checkpoint_contents)

    @property
    def rank(self) -> int:
        return dist.get_rank() if dist.is_initialized() else 0

    @property
    def world_size(self) -> int:
        return dist.get_world_size() if dist.is_initialized() else 1

    def estimate_bytes(self) -> int:
        """Size of a checkpoint of all ranks together; an optimizer that has not stepped is counted as Adam's two moments."""
        reshard(self.model)
        tensors, _ = model_tensors(self.hf_model)
        total = sum(_bytes(tensor) for tensor in tensors.values())
        if self.optimizer is not None and "optimizer" in self.checkpoint_contents:
            state, _ = optimizer_tensors(self.hf_model, self.optimizer)
            trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            total += sum(_bytes(t) for t in state.values()) if state else 2 * sum(_bytes(p) for p in trained)
        return total

    def save_checkpoint(self, local_path: str, global_step: int = 0, extra_state: dict[str, Any] | None = None) -> None:
        """Write this model's share of a checkpoint into `local_path`. All ranks call it together.

        `local_path` is a folder inside the one that `CheckpointDir.saving` hands out; it must not hold a checkpoint yet.

        Args:
            extra_state: this rank's own (plain values and tensors), returned by :meth:`load_checkpoint`.

        Raises:
            DiskFull: no space left.
        """
        folder = Path(local_path)
        try:
            self._save(folder, global_step, extra_state)
        except Exception as error:
            if is_disk_full(error):
                raise DiskFull(folder, None, free_bytes(folder)) from error
            raise

    def load_checkpoint(self, local_path: str, contents: Sequence[str] | None = None) -> dict[str, Any]:
        """Load what `save_checkpoint` wrote, on any number of ranks. All ranks call it together.

        Args:
            contents: parts to load; None: those given on construction. A part that was not saved is an error.

        Returns:
            this rank's `extra_state`; empty on ranks that were not there when it was saved.

        Raises:
            CorruptCheckpoint: a file is missing or unreadable.
            CheckpointError: it is a checkpoint of another model or optimizer.
        """
        folder = Path(local_path)
        wanted = self.checkpoint_contents if contents is None else self._check_contents(contents)
        config = read_config(folder)
        if absent := [part for part in wanted if part not in config["contents"]]:
            raise CheckpointError(f"{folder} holds {config['contents']}, not {absent}: it was saved without")
        if "model" in wanted:
            self._load_model(folder)
        if "optimizer" in wanted:
            self._load_optimizer(folder)
        return self._together(lambda: self._load_extra(folder, config)) if "extra" in wanted else {}

    def _check_contents(self, contents: Sequence[str]) -> tuple[str, ...]:
        contents = tuple(contents)
        if unknown := [part for part in contents if part not in CONTENTS]:
            raise ValueError(f"checkpoint contents {unknown}: use some of {', '.join(CONTENTS)}")
        if "optimizer" in contents and self.optimizer is None:
            contents = tuple(part for part in contents if part != "optimizer")
        return contents

    def _save(self, folder: Path, global_step: int, extra_state: dict[str, Any] | None) -> None:
        reshard(self.model)
        (folder / "extra").mkdir(parents=True, exist_ok=True)
        tensors, aliases = model_tensors(self.hf_model)
        if "model" in self.checkpoint_contents:
            save_tensors(tensors, folder / "model")
        if "optimizer" in self.checkpoint_contents:
            state, _ = optimizer_tensors(self.hf_model, self.optimizer)
            if state:
                save_tensors(state, folder / "optimizer")
        self._together(lambda: self._save_small_files(folder, global_step, extra_state, aliases))
        self._together(lambda: write_partial(folder, self.rank, self.world_size))

    def _save_small_files(self, folder: Path, global_step: int, extra_state, aliases: dict[str, str]) -> None:
        if "extra" in self.checkpoint_contents:
            save_state(folder / "extra" / f"rank_{self.rank}", {"rng": get_rng_state(), "extra_state": extra_state or {}})
        if self.rank != 0:
            return
        if "extra" in self.checkpoint_contents and self.lr_scheduler is not None:
            save_state(folder / "extra" / "lr_scheduler", self.lr_scheduler.state_dict())
        if "optimizer" in self.checkpoint_contents:
            state, plain = optimizer_tensors(self.hf_model, self.optimizer)
            save_state(folder / "optimizer", {**plain, "has_tensors": bool(state)})
        save_huggingface(folder / "huggingface", self.hf_model, self.processing_class)
        if lora := getattr(self.hf_model, "peft_config", None):
            write_text(folder / LORA_FILE, json.dumps(lora_config(next(iter(lora.values()))), indent=2) + "\n")
        facts = {
            "FSDP_version": 2,
            "world_size": self.world_size,
            "format": FORMAT,
            "global_step": global_step,
            "contents": list(self.checkpoint_contents),
            "tied": aliases,
        }
        write_text(folder / CONFIG_FILE, json.dumps(facts, indent=2) + "\n")

    def _load_model(self, folder: Path) -> None:
        reshard(self.model)
        tensors, _ = model_tensors(self.hf_model)
        reader = SafeFileSystemReader(folder / "model")
        if surplus := sorted(set(reader.tensors()) - set(tensors)):
            raise CheckpointError(
                f"{folder} holds {len(surplus)} weights that this model lacks ({surplus[0]}, ...): it is a checkpoint of "
                "another model, or one saved with other LoRA settings"
            )
        read_tensors(reader, tensors, distributed=True)

    def _load_optimizer(self, folder: Path) -> None:
        plain = load_state(folder / "optimizer")
        tensors = {}
        if plain["has_tensors"]:
            reader = SafeFileSystemReader(folder / "optimizer")
            tensors = empty_optimizer_tensors(self.hf_model, reader.tensors())
            read_tensors(reader, tensors, distributed=True)
        set_optimizer_state(self.hf_model, self.optimizer, tensors, plain)

    def _load_extra(self, folder: Path, config: dict) -> dict[str, Any]:
        if self.lr_scheduler is not None and (folder / "extra" / "lr_scheduler.json").exists():
            self.lr_scheduler.load_state_dict(load_state(folder / "extra" / "lr_scheduler"))
        if self.rank < config["world_size"]:
            mine = load_state(folder / "extra" / f"rank_{self.rank}")
            set_rng_state(mine["rng"])
            return mine["extra_state"]
        seed = seed_all("checkpoint", config["global_step"], self.rank)
        logger.warning(
            "rank %d was not there when %s was saved on %d ranks: its random generators start from seed %d",
            self.rank, folder, config["world_size"], seed,
        )  # fmt: skip
        return {}

    def _together(self, work: Callable[[], Any]) -> Any:
        """Do `work` on every rank; where it fails on one it fails on all, so that none is left waiting."""
        mine, result = None, None
        try:
            result = work()
        except Exception as error:
            mine = error
        errors = [None if mine is None else f"{type(mine).__name__}: {mine}"] * self.world_size
        if dist.is_initialized():
            dist.all_gather_object(errors, errors[0], group=object_group())
        if mine is not None:
            raise mine
        for rank, error in enumerate(errors):
            if error is not None:
                raise CheckpointError(f"rank {rank} failed: {error}")
        return result


def read_config(folder: Path) -> dict:
    """`fsdp_config.json` of a model's folder.

    Raises:
        CorruptCheckpoint: it is missing or unreadable.
    """
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CorruptCheckpoint(folder, f"{path} is missing") from error
    except ValueError as error:
        raise CorruptCheckpoint(folder, f"{path} cannot be read ({error})") from error
    if config.get("format") != FORMAT:
        raise CheckpointError(
            f"{folder} is in VeRL's older layout (model_world_size_W_rank_R.pt): merge it "
            "(python -m verl.model_merger merge) and start from the merged folder"
        )
    return config


def save_huggingface(folder: Path, hf_model: nn.Module, processing_class) -> None:
    """Config, generation config, tokenizer and chat template: all of a Hugging Face folder but the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    base = hf_model.get_base_model() if hasattr(hf_model, "get_base_model") else hf_model
    if getattr(base, "config", None) is not None:
        config = copy.deepcopy(base.config)
        config.architectures = [_architecture(base)]
        config.save_pretrained(folder)
        if getattr(config, "auto_map", None):  # a model with code of its own
            custom_object_save(base, folder, config=config)
    if getattr(base, "generation_config", None) is not None:
        base.generation_config.save_pretrained(folder)
    if processing_class is not None:
        processing_class.save_pretrained(folder)


def _architecture(model: nn.Module) -> str:
    """The model's class; fully_shard puts another one in front of it."""
    return next(cls.__name__ for cls in type(model).__mro__ if not issubclass(cls, FSDPModule))


def lora_config(config) -> dict:
    """A peft `LoraConfig` as the JSON of an adapter folder."""
    plain = {}
    for key, value in config.to_dict().items():
        plain[key] = sorted(value) if isinstance(value, set) else getattr(value, "value", value)
    return plain


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
