"""The plan's memory of a rank (``trainer.plan_only=true``) against what ranks really take, on CPUs.

    python benchmarks/bench_memory.py [NAME ...] [--ranks 2] [--verbose]

A model of random weights goes through one whole training step in the run's own workers: Ray, episodes over the
engine, an update of two mini-batches of two micro-batches each, weight sync. Measured is the largest resident size
of a rank in its whole life (``VmHWM``), from its start through all phases, less that of the bare process: the same
worker with its libraries imported and nothing built.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ragen.workers.agent_worker import AgentWorker  # noqa: E402
from verl.single_controller.base.decorator import Dispatch, register  # noqa: E402
from verl.utils.memory_plan import MemoryPlan  # noqa: E402

STARTER = ROOT / "assets" / "starter"
MiB = 2**20
ENGINE_MODULES = ("vllm", "vllm.v1.engine.llm_engine", "vllm.v1.worker.cpu_worker", "vllm.model_executor.models.llama", "peft")


@dataclass(frozen=True)
class Case:
    """A model (``kind`` of transformers, sizes) and what differs from :data:`COMMON`."""

    kind: str
    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    tied: bool
    overrides: tuple[str, ...] = ()

    def write(self, folder: Path) -> Path:
        """The model with random weights and the starter's tokenizer."""
        import torch
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(STARTER)
        torch.manual_seed(0)
        config = getattr(transformers, f"{self.kind}Config")(
            vocab_size=self.vocab, hidden_size=self.hidden, num_hidden_layers=self.layers, num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads, head_dim=self.hidden // self.heads, intermediate_size=self.intermediate,
            max_position_embeddings=1024, tie_word_embeddings=self.tied, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
            pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        getattr(transformers, f"{self.kind}ForCausalLM")(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder


def _tokens(budget: int, **rollout: int) -> tuple[str, ...]:
    """Overrides: the budget of a micro-batch, and lengths of the rollout."""
    lengths = (f"actor_rollout_ref.rollout.{key}={value}" for key, value in rollout.items())
    return (f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu={budget}", *lengths)


_WIDE_VOCABULARY = ("Qwen2", 64000, 512, 8, 8, 2, 1376, True)
_DEEP = ("Llama", 4096, 512, 24, 8, 8, 1408, False)
_WIDE = ("Qwen3", 8192, 1280, 5, 10, 5, 3840, False)
_RECOMPUTED = "actor_rollout_ref.model.enable_gradient_checkpointing=true"
_FSDP = "actor_rollout_ref.actor.fsdp_config"
#: name -> case; the first three are those of :func:`run`
CASES = {
    "55M, vocabulary of 64,000": Case(*_WIDE_VOCABULARY, _tokens(450)),
    "81M, 24 blocks": Case(*_DEEP, _tokens(600, response_length=64, max_model_len=400)),
    "119M, 1280 wide": Case(*_WIDE, _tokens(450)),
    "81M, recomputed": Case(*_DEEP, (*_tokens(450), _RECOMPUTED)),
    "81M, bfloat16": Case(*_DEEP, (*_tokens(450), f"{_FSDP}.mixed_precision.param_dtype=bf16")),
    "55M, whole, shared prompts": Case(*_WIDE_VOCABULARY, (
        *_tokens(450, max_model_len=250), "actor_rollout_ref.actor.use_prefix_grouper=true",
        f"{_FSDP}.reshard_after_forward=false", f"{_FSDP}.wrap_policy.min_num_params=10000000",
    )),
    "55M, hf engine": Case(*_WIDE_VOCABULARY, (*_tokens(450), "actor_rollout_ref.rollout.name=hf")),
}  # fmt: skip
#: 16 games of two short turns: two mini-batches of two micro-batches each, nearly as full as their budget allows
COMMON = (
    "+form=laptop", "trainer.device=cpu", "trainer.total_training_steps=1", "trainer.logger=[file]",
    "es_manager.train.env_groups=4", "es_manager.train.group_size=4", "es_manager.train.env_configs.n_groups=[4]",
    "es_manager.val.env_groups=1", "es_manager.val.env_configs.n_groups=[1]", "es_manager.val.group_size=1",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8", "actor_rollout_ref.rollout.rollout_filter_ratio=1.0",
    "agent_proxy.max_turn=2",
    "actor_rollout_ref.rollout.max_num_batched_tokens=1024", "actor_rollout_ref.rollout.max_num_seqs=64",
    "actor_rollout_ref.rollout.max_model_len=300", "actor_rollout_ref.rollout.response_length=32",
    "actor_rollout_ref.actor.use_prefix_grouper=false", "actor_rollout_ref.actor.fsdp_config.reshard_after_forward=true",
    "actor_rollout_ref.actor.fsdp_config.wrap_policy.min_num_params=0",
)  # fmt: skip


class MeasuredWorker(AgentWorker):
    """A worker that notes its peak resident size at the end of every phase, from the bare process on."""

    def __init__(self, *args, **kwargs):
        for name in ENGINE_MODULES:  # vLLM loads them when it starts
            importlib.import_module(name)
        super().__init__(*args, **kwargs)
        self.bare = resident("VmRSS")
        self.peaks: list[tuple[str, int, int]] = []

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_engine(self) -> None:
        super().init_engine()
        self._note("start")

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def sync_weights(self, policy_version: int = 0) -> float:
        seconds = super().sync_weights(policy_version)
        self._note("sync")
        return seconds

    @register(dispatch_mode=Dispatch.DP_COMPUTE)
    def play(self, order):
        played = super().play(order)
        self._note("rollout")
        return played

    @register(dispatch_mode=Dispatch.DP_COMPUTE)
    def update_actor(self, data):
        self._note("log-probabilities")
        done = super().update_actor(data)
        self._note("update")
        return done

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def measured(self) -> list[tuple[str, int, int]]:
        """Each phase in turn: bytes above the bare process at its peak and at its end; the bare process's own first."""
        return [("bare", self.bare, self.bare), *((phase, peak - self.bare, end - self.bare) for phase, peak, end in self.peaks)]

    def _note(self, phase: str) -> None:
        self.peaks.append((phase, resident("VmHWM"), resident("VmRSS")))
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts again from here


def resident(field: str) -> int:
    """``VmRSS`` or ``VmHWM`` of this process in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def measure(options: Sequence[str]) -> tuple[MemoryPlan, list[list[tuple[str, int, int]]]]:
    """One training step: (the plan, what each rank measured)."""
    from ragen.report.console import TrainDisplay
    from ragen.trainer.agent_trainer import AgentTrainer
    from ragen.trainer.config import compose, validate_config
    from ragen.trainer.memory import plan_run
    from ragen.trainer.rollouts import Rollouts
    from ragen.trainer.worker_setup import ray_session, start_workers

    config = compose("_8_tictactoe", list(options))
    memory, plan = plan_run(config).memory, validate_config(config)
    with ray_session(config):
        trainer = AgentTrainer(config, plan)
        trainer.display = TrainDisplay(1, "memory")
        trainer.workers = start_workers(config, plan.device, MeasuredWorker)
        trainer.rollouts = Rollouts(trainer.workers)
        try:
            trainer.rollouts.sync()
            trainer._train_step(1)
            return memory, trainer.workers.actor.measured()
        finally:
            trainer.workers.kill()


def row(name: str, ranks: int, verbose: bool = False) -> dict:
    """One case measured: ``{name, ratio, target, detail}``."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as scratch:
        model = case.write(Path(scratch, "model"))
        common = (f"model_path={model}", f"trainer.default_local_dir={scratch}/run", f"trainer.n_gpus_per_node={ranks}")
        memory, found = measure([*COMMON, *common, *case.overrides])
    largest, phase = max((peak, phase) for (_, *phases) in found for phase, peak, _ in phases)
    if verbose:
        print(name, *memory.lines(), sep="\n")
        for rank, phases in enumerate(found):
            sizes = ", ".join(f"{p} {peak / MiB:.0f} ({end / MiB:.0f})" for p, peak, end in phases)
            print(f"  rank {rank}, MiB at its peak (its end): {sizes}", flush=True)
    sizes = f"{memory.peak / MiB:.0f} MiB planned, {largest / MiB:.0f} MiB measured"
    return {
        "name": f"memory of a rank: plan / measured, {name}",
        "ratio": memory.peak / largest,
        "target": "0.8 - 1.2",
        "detail": f"{sizes} (at its peak in the {phase}) over a bare process of {found[0][0][1] / MiB:.0f} MiB",
    }


def run() -> list[dict]:
    """The three shapes; each starts a Ray of its own."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return [row(name, ranks=2) for name in list(CASES)[:3]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"some of: {'; '.join(CASES)} (default: all)")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    if unknown := sorted(set(args.names) - set(CASES)):
        parser.error(f"no case is called {', '.join(unknown)}")
    for name in args.names or CASES:
        print("{name}: {ratio:.2f} (target {target}; {detail})".format(**row(name, args.ranks, args.verbose)), flush=True)


if __name__ == "__main__":
    # under this name a worker's process can import the class that it is
    importlib.import_module("benchmarks.bench_memory").main()
