"""What only a GPU can show of what was read in the sources of vLLM, torch, Ray and transformers (docs/multi_gpu.md).

Each ``check_*`` runs one thing and returns what it saw, ``{"check", "device", "ok", ...}``; ``ok`` is ``None`` where the check
cannot run here. None of them starts Ray. Those that need several ranks start processes of their own, one a GPU; on a
machine without one they run over gloo, so that the checks themselves are tested.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from verl.utils.memory_plan import GiB


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _result(check: str, ok: bool | None, **seen: Any) -> dict[str, Any]:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"check": check, "device": name, "ok": ok, **seen}


# -- collectives --------------------------------------------------------------------------------


def _rank(job: Callable[[int, int], Any], rank: int, size: int, store: str, queue) -> None:
    try:
        if torch.cuda.is_available():
            torch.cuda.set_device(rank)
            options = {"backend": "cpu:gloo,cuda:nccl", "device_id": torch.device("cuda", rank)}  # as verl.utils.device has it
        else:
            options = {"backend": "gloo"}
        dist.init_process_group(init_method=f"file://{store}", rank=rank, world_size=size, timeout=timedelta(seconds=60), **options)
        queue.put((rank, job(rank, size)))
        dist.destroy_process_group()
    except BaseException as error:  # noqa: BLE001  whatever happened is the answer
        queue.put((rank, f"{type(error).__name__}: {error}"[:300]))


def _on_ranks(job: Callable[[int, int], Any], size: int, limit_s: float = 120.0) -> dict[int, Any]:
    """What ``job(rank, size)`` returns on each rank; a rank that does not answer in time is missing (it hangs)."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        ranks = [context.Process(target=_rank, args=(job, r, size, str(Path(folder, "store")), queue)) for r in range(size)]
        for process in ranks:
            process.start()
        found, deadline = {}, time.monotonic() + limit_s
        while len(found) < size and time.monotonic() < deadline:
            with contextlib.suppress(Exception):
                rank, answer = queue.get(timeout=1.0)
                found[rank] = answer
        for process in ranks:
            process.join(10)
            if process.is_alive():
                process.kill()
    return found


def _ranks() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 3


def _groups_job(rank: int, size: int) -> list[float]:
    device, sums = torch.device(_device()), []
    for members in ([0], [0, size - 1], list(range(size))):  # no partition: rank 0 is in all, those between in one
        group = dist.new_group(members)
        if rank in members:
            value = torch.tensor(float(rank + 1), device=device)
            dist.all_reduce(value, group=group)
            sums.append(value.item())
    return sums


def check_groups_that_are_no_partition() -> dict[str, Any]:
    """``device_id`` in ``init_process_group`` makes ``new_group`` split the communicator, in which every rank takes part: do
    groups that overlap, or leave ranks out, hang? Needs two ranks (tensor parallelism makes such groups)."""
    size = _ranks()
    if size < 2:
        return _result("groups_no_partition", None, why="needs two GPUs")
    found = _on_ranks(_groups_job, size)
    total = float(size * (size + 1) // 2)
    wanted = {0: [1.0, 1.0 + size, total], size - 1: [1.0 + size, total]} | {r: [total] for r in range(1, size - 1)}
    return _result("groups_no_partition", found == wanted, ranks=size, hangs=sorted(set(range(size)) - set(found)), found=str(found))


def _sync_group_job(form: str, rank: int, size: int) -> float:
    store = dist.PrefixStore(f"checks_{form}", dist.distributed_c10d._get_default_store())
    timeout = timedelta(seconds=60)
    if not torch.cuda.is_available():
        group = dist.ProcessGroupGloo(store, rank, size, timeout)
    elif form == "timedelta":  # as verl.workers.weight_sync builds it
        group = dist.ProcessGroupNCCL(store, rank, size, timeout)
    else:
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = timeout
        group = dist.ProcessGroupNCCL(store, rank, size, options)
    value = torch.full((1024,), float(rank + 1), device=_device())
    group.broadcast(value, 0).wait()
    return value.sum().item()


def check_weight_sync_group() -> dict[str, Any]:
    """``ProcessGroupNCCL(store, rank, size, timedelta)`` of the weight sync against the form with ``Options``."""
    size, seen = min(_ranks(), 2), {}
    for form in ("timedelta", "options"):
        seen[form] = _on_ranks(functools.partial(_sync_group_job, form), size)
    right = {form: found == {rank: 1024.0 for rank in range(size)} for form, found in seen.items()}
    return _result("weight_sync_group", right["timedelta"], options_form=right["options"], ranks=size, found=str(seen))


# -- kernels ------------------------------------------------------------------------------------


def check_varlen_attention(heads: int = 8, kv_heads: int = 2, width: int = 64) -> dict[str, Any]:
    """Outputs and gradients of ``torch_varlen`` with fewer key heads than query heads, and with segments that continue a
    prompt (more keys than queries), in bfloat16, against the form that goes segment by segment in float32."""
    from verl.utils.attention import _by_segment, torch_varlen_attention

    device, half = torch.device(_device()), torch.bfloat16
    lengths, prefixes = (96, 33, 1, 64, 40), (-1, 0, 0, -1, 3)
    total, starts = sum(lengths), [sum(lengths[:i]) for i in range(len(lengths))]
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(1, n, total, width, generator=generator).to(device, half) for n in (heads, kv_heads, kv_heads)]
    index = [i for s, p in enumerate(prefixes) for part in ((p,) if p >= 0 else ()) + (s,) for i in range(starts[part], starts[part] + lengths[part])]
    keys = [lengths[s] + (lengths[p] if p >= 0 else 0) for s, p in enumerate(prefixes)]
    bounds = {name: torch.tensor([0, *torch.tensor(sizes).cumsum(0).tolist()], dtype=torch.int32, device=device)
              for name, sizes in (("q", lengths), ("k", keys))}  # fmt: skip
    weight = torch.randn(1, total, heads, width, generator=generator).to(device)

    def gradients(function: Callable[..., torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
        q, k, v = (tensor.detach().to(dtype).requires_grad_() for tensor in made)
        output = function(q, k, v)
        (output.float() * weight).sum().backward()
        return [output.detach().float(), *(tensor.grad.float() for tensor in (q, k, v))]

    def kernel(q, k, v):
        return torch_varlen_attention(
            None, q, k, v, None, scaling=width**-0.5, segment_lengths=lengths, segment_prefixes=prefixes, cu_seq_lens_q=bounds["q"],
            cu_seq_lens_k=bounds["k"], max_length_q=max(lengths), max_length_k=max(keys), key_index=torch.tensor(index, device=device),
        )[0]  # fmt: skip

    ours = gradients(kernel, half)
    exact = gradients(lambda q, k, v: _by_segment(q, k, v, width**-0.5, None, lengths, prefixes), torch.float32)
    gaps = {
        name: float((a - b).norm() / b.norm()) for name, a, b in zip(("output", "query", "key", "value"), ours, exact, strict=True)
    }
    return _result("varlen_attention", max(gaps.values()) < 0.02, relative_error=gaps)


# -- engine -------------------------------------------------------------------------------------


def _engine(model_path: str, **settings: Any):
    from verl.workers.rollout.vllm_rollout import VLLMEngine

    on_gpu = torch.cuda.is_available()
    return VLLMEngine(
        model_path, max_model_len=512, dtype="bfloat16" if on_gpu else "float32", max_num_seqs=64,
        gpu_memory_utilization=settings.pop("share", 0.3), **settings,
    )  # fmt: skip


def _replies(engine, prompts: list[list[int]], temperature: float) -> list[Any]:
    from verl.workers.rollout.base import SamplingParams

    for i, prompt in enumerate(prompts):
        engine.add(str(i), prompt, SamplingParams(max_tokens=24, temperature=temperature, seed=1000 + i))
    found = {}
    while engine.unfinished:
        found |= {int(reply.request_id): reply for reply in engine.step()}
    return [found[i] for i in range(len(prompts))]


def _reference(model, prompt: list[int], reply, temperature: float) -> torch.Tensor:
    ids = torch.tensor([prompt + reply.token_ids], device=model.device)
    with torch.no_grad():
        logprobs = (model(ids).logits[0].float() / (temperature or 1.0)).log_softmax(-1)
    at = torch.arange(len(prompt) - 1, len(prompt) - 1 + len(reply.token_ids), device=model.device)
    return logprobs[at, torch.tensor(reply.token_ids, device=model.device)].cpu()


_PROMPTS = [[5 + (i * 7 + j) % 200 for j in range(4 + 9 * (i % 6))] for i in range(16)]


def check_seeds_and_log_probabilities(model_path: str = "assets/starter", temperatures: tuple[float, ...] = (1.0, 0.5, 1.3)) -> dict[str, Any]:
    """A reply follows from its seed, alone or in company, and its log-probabilities are those of the distribution it was drawn
    from, at temperatures other than 1 too (vLLM's second model runner on a GPU), against plain transformers in float32."""
    from transformers import AutoModelForCausalLM

    engine = _engine(model_path)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).to(_device()).eval()
    seen, same = {}, True
    for temperature in temperatures:
        together = _replies(engine, _PROMPTS, temperature)
        again = _replies(engine, _PROMPTS[:1], temperature)
        same &= again[0].token_ids == together[0].token_ids
        seen[str(temperature)] = max(
            float((_reference(model, prompt, reply, temperature) - torch.tensor(reply.logprobs)).abs().max())
            for prompt, reply in zip(_PROMPTS, together, strict=True)
        )
    runner = engine._engine.vllm_config.use_v2_model_runner
    engine.close()
    limit = 0.1 if torch.cuda.is_available() else 1e-4  # bfloat16 against float32
    return _result("seeds_and_log_probabilities", same and max(seen.values()) < limit, seeds=same, worst_gap=seen, second_runner=runner)


def check_sleep_of_level_2(model_path: str = "assets/starter") -> dict[str, Any]:
    """Sleep at level 2, wake, sync: greedy replies are what they were, the memory was free, no copy was kept in host memory.
    With CUDA graphs, and a past self's engine built in between, as a run has it."""
    from transformers import AutoModelForCausalLM

    weights = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    tied = weights.config.tie_word_embeddings
    state = {name: value for name, value in weights.state_dict().items() if not (tied and name == "lm_head.weight")}
    engine = _engine(model_path, enable_sleep_mode=True)
    engine.load_weights((name, value.to(_device())) for name, value in state.items())
    before = [reply.token_ids for reply in _replies(engine, _PROMPTS, 0.0)]
    past = _engine(model_path, share=0.2, enforce_eager=True)
    freed, same = [], True
    for _ in range(3):
        free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
        engine.sleep()
        freed.append((torch.cuda.mem_get_info()[0] - free) / GiB if torch.cuda.is_available() else 0.0)
        same &= [reply.token_ids for reply in _replies(past, _PROMPTS, 0.0)] == before
        engine.wake(["weights"])
        engine.load_weights((name, value.to(_device())) for name, value in state.items())
        engine.wake(["kv_cache"])
        same &= [reply.token_ids for reply in _replies(engine, _PROMPTS, 0.0)] == before
    lost = engine.not_synced
    engine.close()  # first: whichever is closed gives back the pools that the sleeping one's memory comes from
    past.close()
    return _result("sleep_of_level_2", same and lost == [], freed_gib=freed, not_synced=lost)


def check_cuda_graphs(model_path: str = "assets/starter", tokens: int = 24) -> dict[str, Any]:
    """Start and speed of an engine with CUDA graphs and without: what ``enforce_eager: null`` means on a GPU."""
    if not torch.cuda.is_available():
        return _result("cuda_graphs", None, why="needs a GPU")
    seen = {}
    for name, eager in (("graphs", False), ("eager", True)):
        started = time.perf_counter()
        engine = _engine(model_path, enforce_eager=eager, share=0.4)
        begun = time.perf_counter()
        _replies(engine, _PROMPTS * 4, 1.0)
        ready = time.perf_counter()
        count = sum(len(reply.token_ids) for _ in range(3) for reply in _replies(engine, _PROMPTS * 4, 1.0))
        seen[name] = {"start_s": begun - started, "tokens_per_s": count / (time.perf_counter() - ready)}
        engine.close()
        torch.cuda.empty_cache()
    return _result("cuda_graphs", seen["graphs"]["tokens_per_s"] > seen["eager"]["tokens_per_s"], **seen)


# -- memory -------------------------------------------------------------------------------------


def check_optimizer_offload(parameters: int = 200_000_000) -> dict[str, Any]:
    """Host memory at the peak of moving Adam's moments off a GPU and back (``load_fsdp_optimizer``), in multiples of them."""
    import resource

    from verl.utils.fsdp_utils import load_fsdp_optimizer, offload_fsdp_optimizer

    if not torch.cuda.is_available():
        return _result("optimizer_offload", None, why="needs a GPU")
    weight = torch.nn.Parameter(torch.zeros(parameters, device="cuda"))
    optimizer = torch.optim.AdamW([weight])
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    moments, before = 8 * parameters, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    on_gpu = torch.cuda.memory_allocated()
    for _ in range(3):
        offload_fsdp_optimizer(optimizer)
        freed = on_gpu - torch.cuda.memory_allocated()
        load_fsdp_optimizer(optimizer)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return _result("optimizer_offload", freed >= 0.99 * moments, host_peak_over_moments=grown / moments, freed_gib=freed / GiB)


def check_7b_plan() -> dict[str, Any]:
    """7B on this card: the plan refuses half of it for the engine, and names the share that fits. Arithmetic alone; whether
    the reserve of the plan is enough shows in a run (``torch.cuda.mem_get_info`` at the peak of an update)."""
    from ragen.trainer.config import compose
    from ragen.trainer.memory import plan_run
    from verl.utils.config_check import ConfigError

    memory = torch.cuda.get_device_properties(0).total_memory / GiB if torch.cuda.is_available() else 140.0
    asked = ["trainer.plan_only=true", "trainer.n_gpus_per_node=1", "model_path=Qwen/Qwen2.5-7B-Instruct", f"trainer.device_memory_gb={memory:.1f}"]
    try:
        plan_run(compose("_8_tictactoe", [*asked, "actor_rollout_ref.rollout.gpu_memory_utilization=0.5"]))
    except ConfigError as error:
        return _result("7b_plan", "gpu_memory_utilization of at most" in str(error), memory_gib=memory, says=str(error))
    return _result("7b_plan", False, memory_gib=memory, says="fits at 0.5")


CHECKS: tuple[Callable[[], dict[str, Any]], ...] = (
    check_groups_that_are_no_partition, check_weight_sync_group, check_varlen_attention, check_seeds_and_log_probabilities,
    check_sleep_of_level_2, check_cuda_graphs, check_optimizer_offload, check_7b_plan,
)  # fmt: skip
