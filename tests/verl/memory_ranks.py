"""What an update allocates, measured inside a rank."""

import ctypes
import time
from pathlib import Path

import torch
from training_cases import worker_config

from verl.protocol import DataProto
from verl.workers.fsdp_workers import ActorRolloutRefWorker

MMAP_THRESHOLD = -3  # mallopt(3)


def batch(rows: int, length: int, vocab: int, prompt: int) -> DataProto:
    """``rows`` of ``length`` tokens behind one prompt, in two mini-batches; all tokens after the prompt are sampled."""
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(1, vocab, (rows, length + 1), generator=generator)
    input_ids[:, :prompt] = input_ids[0, :prompt]
    tensors = {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "response_mask": (torch.arange(length) >= prompt - 1).expand(rows, -1).contiguous(),
        "advantages": torch.randn(rows, length, generator=generator),
        "old_log_probs": torch.full((rows, length), -6.0),
        "mini_batch": torch.arange(rows) // (rows // 2),
    }
    return DataProto.from_dict(tensors=tensors, meta_info={"num_mini_batches": 2, "temperature": 1.0})


def _worker(path: str, tokens: int, changes: dict) -> ActorRolloutRefWorker:
    limits = {"actor.use_dynamic_bsz": True, "actor.ppo_max_token_len_per_gpu": tokens}
    worker = ActorRolloutRefWorker(worker_config(path, **limits, **changes), "actor")
    worker.init_model()
    return worker


def allocated(rank: int, path: str, tokens: int, length: int, vocab: int, cases: dict[str, dict]) -> dict[str, float]:
    """For each case the most bytes of tensors that an update (of two, with two micro-batches each) has at a time, above
    what was there before."""
    from torch.profiler import ProfilerActivity, profile

    found = {}
    for name, changes in cases.items():
        worker = _worker(path, tokens, changes)
        data = batch(4 * tokens // length, length, vocab, prompt=length // 2 if "actor.use_prefix_grouper" in changes else 1)
        worker.update_actor(data)  # the optimizer has its moments now
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            worker.update_actor(data)
        events, changed = list(profiled.profiler.kineto_results.experimental_event_tree()), []
        while events:
            event = events.pop()
            events += event.children
            if event.typed[0].name == "Allocation":
                changed.append((event.start_time_ns, event.typed[1].ptr, event.typed[1].alloc_size))
        here, size, most = {}, 0, 0
        for _, pointer, change in sorted(changed, key=lambda item: item[0]):
            size -= here.pop(pointer, 0)  # freed, or its end was not recorded
            if change > 0:
                here[pointer] = change
                size += change
            most = max(most, size)
        found[name] = most
    return found


def resident_peak(rank: int, path: str, tokens: int, length: int, vocab: int) -> dict[str, float]:
    """Bytes that building a model and updating it adds to this process at its peak, and the seconds it took."""
    ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, 128 << 10)  # as ragen.trainer.worker_setup for a model of this size
    bare, started = _resident("VmRSS"), time.perf_counter()
    worker = _worker(path, tokens, {})
    worker.update_actor(batch(4 * tokens // length, length, vocab, prompt=length // 2))
    return {"bytes": _resident("VmHWM") - bare, "seconds": time.perf_counter() - started}


def _resident(field: str) -> int:
    line = next(x for x in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if x.startswith(field))
    return int(line.split()[1]) * 1024
