"""The plan's memory of a rank against what ranks really take, on CPUs.

    python benchmarks/bench_memory.py [--shapes 50M 80M 110M] [--ranks 2]

For each shape a model with random weights goes through one whole training step (``train.py``: Ray, FSDP2,
vLLM, update, sync). Measured is the peak resident size of a rank (``VmHWM`` of its process) less that of
the bare process: the same run with the shipped starter of 0.6M parameters, less what the plan says of it. So both
columns are the model's own share: weights, gradients, moments, activations, engine, KV cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

STARTER = ROOT / "assets" / "starter"
#: name -> hidden, layers, heads, intermediate
SHAPES = {"50M": (640, 10, 10, 1760), "80M": (896, 8, 14, 2432), "110M": (768, 16, 12, 2048)}
MiB = 2**20


def overrides(model: Path, folder: Path, ranks: int) -> list[str]:
    """One step of 16 short games, with micro-batches that fill their budget."""
    return [
        "+form=laptop", f"model_path={model}", f"trainer.default_local_dir={folder}", f"trainer.n_gpus_per_node={ranks}", "trainer.device=cpu",
        "trainer.total_training_steps=1", "trainer.val_before_train=false", "trainer.test_freq=-1", "trainer.save_freq=-1",
        "trainer.logger=[file]", "es_manager.train.env_groups=4", "es_manager.train.group_size=4",
        "es_manager.train.env_configs.n_groups=[4]", "es_manager.val.env_groups=1", "es_manager.val.env_configs.n_groups=[1]",
        "actor_rollout_ref.actor.ppo_mini_batch_size=16", "actor_rollout_ref.rollout.rollout_filter_ratio=1.0",
        "agent_proxy.max_turn=2", "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=1024",
        "actor_rollout_ref.rollout.max_num_batched_tokens=1024", "actor_rollout_ref.rollout.max_num_seqs=64",
        "actor_rollout_ref.rollout.max_model_len=512", "actor_rollout_ref.rollout.response_length=32",
        "actor_rollout_ref.actor.use_prefix_grouper=false", "actor_rollout_ref.actor.fsdp_config.reshard_after_forward=true",
        "actor_rollout_ref.actor.fsdp_config.wrap_policy.min_num_params=0",
    ]  # fmt: skip


def write_model(shape: str, folder: Path) -> Path:
    """A Llama of random weights with the starter's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    hidden, layers, heads, intermediate = SHAPES[shape]
    tokenizer = AutoTokenizer.from_pretrained(STARTER)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=json.loads((STARTER / "config.json").read_text())["vocab_size"], hidden_size=hidden, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, intermediate_size=intermediate, max_position_embeddings=1024,
        tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id, bos_token_id=None, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def peaks_of_ranks(command: list[str]) -> list[int]:
    """Run ``command``; the peak resident bytes of each worker process under it, largest first."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    peaks: dict[int, int] = {}
    with tempfile.TemporaryFile("w+") as log:
        run = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT)
        try:
            while run.poll() is None:
                _note_peaks(run.pid, peaks)
                time.sleep(0.05)
        finally:  # train.py ends its Ray on an interrupt
            run.terminate()
            run.wait()
        if run.returncode:
            log.seek(0)
            raise SystemExit(f"the run failed:\n{log.read()[-3000:]}")
    return sorted((p for p in peaks.values() if p), reverse=True)


def _note_peaks(pid: int, peaks: dict[int, int]) -> None:
    try:
        for child in psutil.Process(pid).children(recursive=True):
            if "AgentWorker" in " ".join(child.cmdline()):
                peaks[child.pid] = _peak(child.pid)
    except (psutil.Error, OSError):
        pass  # it ended between two looks


def _peak(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def planned(options: list[str]) -> tuple[float, str]:
    from ragen.trainer.config import compose
    from ragen.trainer.memory import plan_run

    memory = plan_run(compose("_8_tictactoe", options)).memory
    return memory.peak, "\n".join(memory.lines())


def run(shapes: Sequence[str] = tuple(SHAPES), ranks: int = 2, verbose: bool = False) -> list[dict]:
    """Rows ``{name, ratio, target, detail}``, one a shape; a run of ``train.py`` each and one of the bare process."""
    rows, bare = [], None
    with tempfile.TemporaryDirectory() as scratch:
        for name in ["starter", *shapes]:
            folder = Path(scratch) / name
            model = STARTER if name == "starter" else write_model(name, folder / "model")
            options = overrides(model, folder / "run", ranks)
            plan, lines = planned(options)
            peak = peaks_of_ranks([sys.executable, "train.py", "--config-name", "_8_tictactoe", *options])[0]
            if verbose:
                print(f"{name}\n{lines}\npeak resident {peak / MiB:.0f} MiB", flush=True)
            if bare is None:
                bare = peak - plan
                continue
            rows.append({
                "name": f"memory of a rank: plan / measured, {name} parameters",
                "ratio": plan / (peak - bare),
                "target": "0.8 - 1.2",
                "detail": f"{plan / MiB:.0f} MiB planned, {(peak - bare) / MiB:.0f} MiB measured over a bare {bare / MiB:.0f} MiB",
            })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    for row in run(args.shapes, args.ranks, args.verbose):
        print(f"{row['name']}: {row['ratio']:.2f} (target {row['target']}; {row['detail']})")


if __name__ == "__main__":
    main()
