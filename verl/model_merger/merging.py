"""Merge a sharded checkpoint into a Hugging Face folder, in the memory of one tensor (three with LoRA)."""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from verl.model_merger.lora import AdapterSource, MergedSource, is_lora, read_lora_config
from verl.model_merger.safetensors_writer import parse_size, write_file, write_safetensors
from verl.model_merger.sources import TensorFacts, WeightSource, open_source
from verl.utils.checkpoint.checkpoint_manager import STEP_FOLDER
from verl.utils.checkpoint.disk_space import require_free_space
from verl.utils.checkpoint.errors import CheckpointError
from verl.utils.checkpoint.manifest import MANIFEST, verify

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".safetensors.index.json")


@dataclass(frozen=True)
class MergeConfig:
    """What to merge and how.

    local_dir: `global_step_N/actor` (or critic). target_dir: the folder to make. hf_model_path: where config and tokenizer
    come from if not from `local_dir/huggingface`. dtype: "auto" keeps the trained one. lora: "merge" adds adapters into
    the weights, "adapter" writes a peft adapter folder. overwrite: replace a target that is not empty.
    """

    local_dir: str
    target_dir: str
    hf_model_path: str | None = None
    dtype: str = "auto"
    max_shard_size: str = "5GB"
    lora: str = "merge"
    overwrite: bool = False


def merge(config: MergeConfig) -> Path:
    """Write `target_dir`, beside itself first and renamed when whole.

    The bytes depend on the weights alone, not on the number of ranks that saved them.

    Raises:
        CheckpointError: the checkpoint is damaged or of an unknown layout, or the target is not empty.
        ValueError: an option has no such value.
    """
    local_dir, target = Path(config.local_dir), Path(config.target_dir)
    max_shard_bytes = parse_size(config.max_shard_size)
    if config.dtype != "auto" and config.dtype not in DTYPES:
        raise ValueError(f"--dtype {config.dtype!r}: use auto, {', '.join(DTYPES)}")
    if config.lora not in ("merge", "adapter"):
        raise ValueError(f"--lora {config.lora!r}: use merge or adapter")
    refuse_existing(target, config.overwrite)
    verify_source(local_dir)
    source = open_source(local_dir)
    with written_beside(target) as folder:
        if config.lora == "adapter":
            _write_adapter(folder, local_dir, source, config)
        else:
            _write_model(folder, local_dir, source, config, max_shard_bytes)
    logger.info("merged %s into %s", local_dir, target)
    return target


def plain_source(local_dir: Path, source: WeightSource) -> WeightSource:
    """`source` with any adapters added into its weights."""
    return MergedSource(source, read_lora_config(local_dir)) if is_lora(source.facts) else source


def without_tied_head(source: WeightSource, hf_config: dict) -> dict[str, TensorFacts]:
    """The tensors to write: all, less an output head that only repeats the embedding.

    Raises:
        CheckpointError: the config says tied and the two differ.
    """
    facts = dict(source.facts)
    head = "lm_head.weight"
    embedding = next((name for name in facts if name.endswith("embed_tokens.weight") or name.endswith("wte.weight")), None)
    if not hf_config.get("tie_word_embeddings") or head not in facts or embedding is None:
        return facts
    if facts[head] != facts[embedding] or not torch.equal(source.read(head), source.read(embedding)):
        raise CheckpointError(f"config.json says tie_word_embeddings, but {head} and {embedding} differ: set it to false there")
    del facts[head]
    return facts


def huggingface_folder(local_dir: Path, hf_model_path: str | None) -> Path:
    """Where config.json and the tokenizer are."""
    folder = Path(hf_model_path) if hf_model_path else local_dir / "huggingface"
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder / 'config.json'} is missing: give the original model's folder with --hf_model_path")
    return folder


def refuse_existing(target: Path, overwrite: bool) -> None:
    """Raise where `target` is a file, or a folder with something in it and not to be replaced."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())) and not overwrite:
        raise CheckpointError(f"--target_dir {target} exists and is not empty: choose another or add --overwrite")


def verify_source(local_dir: Path) -> None:
    """Check a checkpoint against its manifest, where it has one; refuse one that is still being written."""
    step_folder = local_dir.absolute().parent
    if (step_folder / MANIFEST).is_file():
        verify(step_folder, under=local_dir.name)
    elif step_folder.name.startswith(".global_step_"):
        raise CheckpointError(f"{step_folder} is still being written, or was left by a killed run: merge a global_step_N folder")
    elif (local_dir / "model").is_dir() and STEP_FOLDER.fullmatch(step_folder.name):
        raise CheckpointError(f"{step_folder} has no {MANIFEST}: it is not whole. Merge another checkpoint")


@contextlib.contextmanager
def written_beside(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes `target` on leaving, in place of what was there, and vanishes on an error."""
    folder = target.with_name(f".{target.name}.tmp{os.getpid()}")
    replaced = target.with_name(f".{target.name}.replaced{os.getpid()}")
    _remove_leftovers(target)
    folder.mkdir(parents=True)
    try:
        yield folder
        if target.exists():
            target.rename(replaced)
        try:
            folder.rename(target)
        except OSError:
            if replaced.exists():
                replaced.rename(target)
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)


def _remove_leftovers(target: Path) -> None:
    """Drop temporary folders of merges into `target` that were killed."""
    for folder in target.parent.glob(f".{target.name}.tmp*"):
        process = folder.name.rpartition(".tmp")[2]
        if process.isdigit() and not Path("/proc", process).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _write_model(folder: Path, local_dir: Path, source: WeightSource, config: MergeConfig, max_shard_bytes: int) -> None:
    hf_folder = huggingface_folder(local_dir, config.hf_model_path)
    hf_config = json.loads((hf_folder / "config.json").read_text())
    source = plain_source(local_dir, source)
    facts = without_tied_head(source, hf_config)
    _check_names(hf_folder, facts, bool(hf_config.get("tie_word_embeddings")))
    wanted = DTYPES.get(config.dtype)
    facts = {
        name: TensorFacts(fact.shape, wanted if wanted and fact.dtype.is_floating_point else fact.dtype)
        for name, fact in facts.items()
    }
    require_free_space(folder, sum(fact.dtype.itemsize * torch.Size(fact.shape).numel() for fact in facts.values()))
    _copy_side_files(hf_folder, folder)
    _write_config(folder, hf_config, facts)
    write_safetensors(folder, facts, lambda name: source.read(name).to(facts[name].dtype), max_shard_bytes)


def _write_adapter(folder: Path, local_dir: Path, source: WeightSource, config: MergeConfig) -> None:
    if not is_lora(source.facts):
        raise CheckpointError(f"--lora adapter: {local_dir} holds no LoRA weights; use --lora merge")
    adapter_config = read_lora_config(local_dir)
    adapter_config.setdefault("peft_type", "LORA")
    adapter_config["inference_mode"] = True
    adapters = AdapterSource(source)
    if not adapter_config.get("target_modules"):
        adapter_config["target_modules"] = sorted({name.split(".")[-3] for name in adapters.facts})
    (folder / "adapter_config.json").write_text(json.dumps(adapter_config, indent=2, sort_keys=True) + "\n")
    wanted = DTYPES.get(config.dtype)
    facts = {name: TensorFacts(fact.shape, wanted or fact.dtype) for name, fact in sorted(adapters.facts.items())}
    write_file(folder / "adapter_model.safetensors", facts, lambda name: adapters.read(name).to(facts[name].dtype))
    hf_folder = huggingface_folder(local_dir, config.hf_model_path)
    _copy_side_files(hf_folder, folder, leave_out=("config.json", "generation_config.json"))


def _copy_side_files(source: Path, target: Path, leave_out: tuple[str, ...] = ()) -> None:
    """Everything of a Hugging Face folder but weights: tokenizer, chat template, generation config, custom code."""
    for path in sorted(source.iterdir()):
        if path.name.startswith(".") or path.name.endswith(WEIGHT_SUFFIXES) or path.name in leave_out:
            continue
        if path.is_dir():
            shutil.copytree(path, target / path.name, ignore=shutil.ignore_patterns(*(f"*{end}" for end in WEIGHT_SUFFIXES)))
        else:
            shutil.copyfile(path, target / path.name)


def _write_config(folder: Path, hf_config: dict, facts: dict[str, TensorFacts]) -> None:
    dtypes = [fact.dtype for fact in facts.values() if fact.dtype.is_floating_point]
    most = max(sorted(set(dtypes), key=str), key=dtypes.count)
    hf_config = {key: value for key, value in hf_config.items() if key != "torch_dtype"}
    hf_config["dtype"] = str(most).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(hf_config, indent=2, sort_keys=True) + "\n")


def _check_names(hf_folder: Path, facts: dict[str, TensorFacts], tied: bool) -> None:
    """Raise where weights of the architecture that config.json names are missing; say so where there are more."""
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(hf_folder, trust_remote_code=False)
        architecture = getattr(transformers, (config.architectures or ["none"])[0])
    except (ValueError, AttributeError) as error:
        logger.warning("names are not checked: %s is of no architecture known here (%s)", hf_folder, error)
        return
    with torch.device("meta"):
        expected = set(architecture(config).state_dict())
    if tied:
        expected.discard("lm_head.weight")
    if missing := sorted(expected - set(facts)):
        raise CheckpointError(
            f"the checkpoint lacks {len(missing)} weights of {architecture.__name__}: {', '.join(missing[:3])}, ..."
        )
    if surplus := sorted(set(facts) - expected):
        logger.warning("%d weights are not part of %s: %s, ...", len(surplus), architecture.__name__, ", ".join(surplus[:3]))
