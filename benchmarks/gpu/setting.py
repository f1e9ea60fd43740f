"""What the lines share: the device, models of random weights, batches, clocks and meters."""

from __future__ import annotations

import contextlib
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from transformers import AutoConfig, AutoModelForCausalLM

from verl.protocol import DataProto
from verl.utils.memory_plan import MemorySetup, plan_memory
from verl.utils.model_shape import PUBLISHED, ModelShape
from verl.workers import sharded_model
from verl.workers.fsdp_workers import ActorRolloutRefWorker

STARTER = Path(__file__).resolve().parents[2] / "assets" / "starter"
#: stands for every shape of a rehearsal
TINY = ModelShape(
    vocab=600, hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, intermediate=160, tied=True, qkv_bias=True, max_positions=1024
)
#: sequences of a step: rows, tokens of a prompt, mean tokens of a row, members of a group, tokens a micro-batch
Load = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Setting:
    """Where and how large. ``tiny``: toy sizes, whatever the device."""

    device: str
    tiny: bool
    scratch: Path

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def shape(self, name: str) -> ModelShape:
        """A published shape; in a rehearsal the toy."""
        return TINY if self.tiny else PUBLISHED[name]

    def load(self, *load: int) -> Load:
        """``load`` (see :data:`Load`); in a rehearsal a small one."""
        return (8, 12, 40, 4, 120) if self.tiny else load

    @property
    def repeats(self) -> int:
        return 1 if self.tiny else 3

    def synchronize(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def seconds(self, action: Callable[[], Any], repeats: int | None = None, warm: int = 1) -> float:
        """Median seconds of ``action`` after ``warm`` runs, the device waited for."""
        taken = []
        for number in range(warm + (repeats or self.repeats)):
            self.synchronize()
            started = time.perf_counter()
            action()
            self.synchronize()
            if number >= warm:
                taken.append(time.perf_counter() - started)
        return statistics.median(taken)

    def folder(self, name: str) -> Path:
        """An empty folder for a line's files."""
        path = self.scratch / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def model_folder(self, shape: ModelShape) -> Path:
        """``config.json`` of a Qwen2 of this shape, with the starter's tokenizer; no weights."""
        path = self.scratch / f"shape-{shape.hidden}x{shape.layers}x{shape.vocab}"
        if not path.exists():
            path.mkdir(parents=True)
            AutoConfig.for_model(
                "qwen2", vocab_size=shape.vocab, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
                num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
                max_position_embeddings=shape.max_positions, tie_word_embeddings=shape.tied, bos_token_id=None, eos_token_id=2,
                architectures=["Qwen2ForCausalLM"],
            ).save_pretrained(path)  # fmt: skip
            for file in STARTER.glob("*token*"):
                shutil.copy(file, path)
        return path

    def worker(self, shape: ModelShape, changes: Mapping[str, Any] | None = None, tokens: int = 16384) -> ActorRolloutRefWorker:
        """The project's own actor with random weights (the same for one shape), of one rank.

        Args:
            changes: dotted keys of ``actor_rollout_ref``.
            tokens: of a micro-batch at most.
        """
        config = OmegaConf.create({
            "model": {"path": str(self.model_folder(shape)), "use_remove_padding": True, "enable_gradient_checkpointing": True},
            "actor": {
                "use_dynamic_bsz": True, "ppo_max_token_len_per_gpu": tokens, "ppo_epochs": 1, "grad_clip": 1.0, "entropy_coeff": 0.0,
                "optim": {"lr": 1e-6}, "fsdp_config": {},
            },
            "ref": {},
            "rollout": {"temperature": 1.0, "log_prob_max_token_len_per_gpu": tokens},
        })  # fmt: skip
        for key, value in (changes or {}).items():
            OmegaConf.update(config, key, value, force_add=True)
        with random_weights(self.device):
            worker = ActorRolloutRefWorker(config, "actor")
            worker.init_model()
        return worker


@contextlib.contextmanager
def random_weights(device: str) -> Iterator[None]:
    """Models are built with random weights on the device instead of being read: 7B in float32 would be a file of 30 GB."""

    def build(path, config, *, attn_implementation, meta, trust_remote_code=False):
        torch.manual_seed(0)
        with torch.device("meta" if meta else device):
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attn_implementation)

    read, sharded_model.build_causal_lm = sharded_model.build_causal_lm, build
    try:
        yield
    finally:
        sharded_model.build_causal_lm = read


def make_batch(shape: ModelShape, load: Load, seed: int = 0) -> DataProto:
    """Rows of groups with a common prompt, lengths spread by a quarter, all tokens after the prompt sampled."""
    rows, prompt, mean, members, _ = load
    generator = torch.Generator().manual_seed(seed)
    lengths = (mean * torch.exp(0.25 * torch.randn(rows, generator=generator))).long().clamp(prompt + 4, min(2 * mean, shape.max_positions or 2 * mean))
    width = int(lengths.max())
    input_ids = torch.randint(3, shape.vocab, (rows, width), generator=generator)
    for first in range(0, rows, members):
        input_ids[first : first + members, :prompt] = input_ids[first, :prompt]
    column = torch.arange(width - 1)
    tensors = {
        "input_ids": input_ids,
        "attention_mask": (torch.arange(width) < lengths[:, None]).long(),
        "response_mask": (column >= prompt - 1) & (column < lengths[:, None] - 1),
        "advantages": torch.randn(rows, width - 1, generator=generator),
    }
    return DataProto.from_dict(tensors=tensors, meta_info={"num_mini_batches": 1, "temperature": 1.0})


def row_lengths(batch: DataProto) -> list[int]:
    """Tokens of each row."""
    return batch.batch["attention_mask"].sum(1).tolist()


def log_probs(worker: ActorRolloutRefWorker, batch: DataProto) -> torch.Tensor:
    """The worker's log-probabilities of the sampled tokens, (n,) float32."""
    found = worker.compute_log_prob(batch).batch["old_log_probs"]
    return found[batch.batch["response_mask"]]


@contextlib.contextmanager
def peak_bytes(setting: Setting) -> Iterator[dict[str, float]]:
    """Fills ``{"device": ..., "host": ...}``: the most bytes above what was there before. ``device``: tensors on the GPU
    (None on a CPU); ``host``: this process's resident size."""
    found: dict[str, float | None] = {"device": None, "host": None}
    before = 0
    if setting.on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    with contextlib.suppress(OSError):  # not every kernel lets the peak be set back
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    resident = _resident("VmRSS")
    yield found
    if setting.on_gpu:
        torch.cuda.synchronize()
        found["device"] = torch.cuda.max_memory_allocated() - before
    found["host"] = _resident("VmHWM") - resident


def _resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    return 0


def planned_update(shape: ModelShape, setting: Setting, load: Load, batch: DataProto, **changes: Any) -> float:
    """Bytes at the peak of an update by the plan, the engine's left out."""
    lengths = row_lengths(batch)
    defaults = dict(
        ranks=1, micro_tokens=min(load[4], sum(lengths)), row_tokens=max(lengths), compute_bytes=2 if setting.on_gpu else 4,
        packed=setting.on_gpu, engine="hf", device_bytes=80 * 2**30 if setting.on_gpu else None,
    )  # fmt: skip
    plan = plan_memory(shape, MemorySetup(**{**defaults, **changes}))
    return sum(part.update for part in plan.parts if part.name != "engine")
