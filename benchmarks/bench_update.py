"""The policy update on two FSDP2 ranks against bare PyTorch on the same rows, and what shared prompts save.

Both run in the same two processes, taking turns. Bare PyTorch is the floor: each process updates a whole model of its own on its
half of the batch, with whole logits and without a word to the other. So the ratio is what sharding costs, less what computing
the head at sampled positions alone saves.
"""

from __future__ import annotations

import ctypes
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from omegaconf import OmegaConf
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from verl.protocol import DataProto
from verl.single_controller.base.worker import get_free_port
from verl.workers.fsdp_workers import ActorRolloutRefWorker

RANKS, REPEATS = 2, 5
GROUPS, MEMBERS, PROMPT, LENGTH = 4, 16, 80, 170
LAPTOP = {"vocab_size": 400, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 3}
LARGER = {"vocab_size": 8192, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 10}  # 38M parameters
TARGETS = {"time": "<= 1.1", "memory": "<= 0.7", "prompts": "<= 0.75"}


def run() -> list[dict]:
    """Rows `{name, ratio, target, detail}`."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: _save_model(os.path.join(folder, name), shape) for name, shape in (("laptop", LAPTOP), ("larger", LARGER))}
        times = _on_ranks(_times, paths["laptop"])
        memory = _on_ranks(_memory, paths["larger"])
    bare, sharded, shared = (max(rank[name] for rank in times) for name in ("bare", "sharded", "shared"))
    whole, shards = (max(rank[name] for rank in memory) for name in ("bare", "sharded"))
    rows = GROUPS * MEMBERS
    return [
        {
            "name": "update: FSDP2 / bare PyTorch, seconds",
            "ratio": sharded / bare,
            "target": TARGETS["time"],
            "detail": f"{rows} rows of about {LENGTH} tokens, {RANKS} ranks: {sharded:.2f} s against {bare:.2f} s",
        },
        {
            "name": "update: shared prompts / every row whole, seconds",
            "ratio": shared / sharded,
            "target": TARGETS["prompts"],
            "detail": f"prompts of {PROMPT} tokens, {MEMBERS // RANKS} members of a group on a rank: {shared:.2f} s",
        },
        {
            "name": "update: FSDP2 / bare PyTorch, resident memory a rank",
            "ratio": shards / whole,
            "target": TARGETS["memory"],
            "detail": f"38M parameters, after a step: {shards / 2**20:.0f} MiB against {whole / 2**20:.0f} MiB",
        },
    ]


def _save_model(folder: str, shape: dict) -> str:
    config = Qwen2Config(
        **shape, num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=1024, tie_word_embeddings=True
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(WordLevel({f"w{index}": index for index in range(shape["vocab_size"])}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1", pad_token="w0").save_pretrained(folder)
    return folder


def _on_ranks(function: Callable, *args) -> list:
    context = mp.get_context("spawn")
    queue = context.SimpleQueue()
    mp.spawn(_entry, args=(get_free_port(), queue, function, args), nprocs=RANKS)
    return [queue.get() for _ in range(RANKS)]


def _entry(rank: int, port: int, queue, function: Callable, args: tuple) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    queue.put(function(rank, *args))
    dist.destroy_process_group()


def _worker(path: str, **actor) -> ActorRolloutRefWorker:
    config = {
        "model": {"path": path},
        "actor": {
            "use_dynamic_bsz": True, "ppo_max_token_len_per_gpu": 8192, "ppo_epochs": 1, "grad_clip": 1.0, "entropy_coeff": 0.01,
            "optim": {"lr": 1e-3}, "fsdp_config": {"reshard_after_forward": False}, **actor,
        },
        "rollout": {"temperature": 1.0},
    }  # fmt: skip
    worker = ActorRolloutRefWorker(OmegaConf.create(config), "actor")
    worker.init_model()
    return worker


def _share(rank: int, vocab: int, groups: int = GROUPS, length: int = LENGTH) -> DataProto:
    """One rank's half of every group: a common prompt, then sampled stretches between others, as in a game of several turns."""
    generator = torch.Generator().manual_seed(rank)
    rows = groups * MEMBERS // RANKS
    lengths = (length * torch.exp(0.25 * torch.randn(rows, generator=generator))).long().clamp(PROMPT + 20, 2 * length)
    width = int(lengths.max())
    input_ids = torch.randint(1, vocab, (rows, width), generator=generator)
    for first in range(0, rows, MEMBERS // RANKS):
        input_ids[first : first + MEMBERS // RANKS, :PROMPT] = input_ids[first, :PROMPT]
    column = torch.arange(width - 1)
    sampled = (column >= PROMPT - 1) & ((column - PROMPT + 1) % 30 < 12)
    tensors = {
        "input_ids": input_ids,
        "attention_mask": (torch.arange(width) < lengths[:, None]).long(),
        "response_mask": sampled & (column < lengths[:, None] - 1),
        "advantages": torch.randn(rows, width - 1, generator=generator),
        "old_log_probs": torch.full((rows, width - 1), -6.0),
    }
    return DataProto.from_dict(tensors=tensors, meta_info={"num_mini_batches": 1, "temperature": 1.0})


def _bare_step(model, optimizer, share: DataProto, rows_at_once: int = 32) -> None:
    """The same update in plain PyTorch: sorted by length, padded to the longest of a micro-batch."""
    batch = share.batch
    lengths = batch["attention_mask"].sum(1)
    order, trained = lengths.argsort(), batch["response_mask"].sum()
    optimizer.zero_grad()
    for rows in order.split(rows_at_once):
        width = int(lengths[rows].max())
        ids, mask = batch["input_ids"][rows, :width], batch["response_mask"][rows, : width - 1]
        log_softmax = model(input_ids=ids).logits[:, :-1].log_softmax(-1)
        log_prob = log_softmax.gather(-1, ids[:, 1:, None])[..., 0]
        entropy = -(log_softmax.exp() * log_softmax).sum(-1)
        ratio = (log_prob - batch["old_log_probs"][rows, : width - 1]).exp()
        advantage = batch["advantages"][rows, : width - 1]
        surrogate = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2))
        (((surrogate - 0.01 * entropy) * mask).sum() / trained).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def _bare_model(path: str):
    model = Qwen2ForCausalLM.from_pretrained(path, attn_implementation="sdpa", dtype=torch.float32)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)


def _times(rank: int, path: str) -> dict[str, float]:
    """Median seconds of each form of the step, the forms taking turns."""
    share = _share(rank, LAPTOP["vocab_size"])
    whole, shared = _worker(path), _worker(path, use_prefix_grouper=True)
    model, optimizer = _bare_model(path)
    actions = {
        "bare": lambda: _bare_step(model, optimizer, share),
        "sharded": lambda: whole.update_actor(share),
        "shared": lambda: shared.update_actor(share),
    }
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for repeat in range(REPEATS + 1):
        for name, action in actions.items():
            dist.barrier()
            start = time.perf_counter()
            action()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _memory(rank: int, path: str) -> dict[str, float]:
    """Resident bytes that model and optimizer take after a step, sharded and bare; the second round counts, for the first one
    also loads libraries."""
    share = _share(rank, LARGER["vocab_size"], groups=1, length=PROMPT + 20)
    for _ in range(2):
        start = _resident()
        worker = _worker(path)
        worker.update_actor(share)
        sharded = _resident() - start
        del worker
        start = _resident()
        model, optimizer = _bare_model(path)
        _bare_step(model, optimizer, share)
        optimizer.zero_grad()
        bare = _resident() - start
        del model, optimizer
    return {"sharded": sharded, "bare": bare}


def _resident() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed and kept by the allocator does not count
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    for row in run():
        print(f"{row['name']}: {row['ratio']:.2f} (target {row['target']}); {row['detail']}")
