"""vLLM in this process: continuous batching without an engine process beside it.

In-process is faster to start and to run than vLLM's engine process on a CPU, and on GPUs it lets
weights be handed over without leaving the process. vLLM reseeds and re-threads its process at start;
both are put back (:func:`_undisturbed`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
from collections.abc import Iterable

import numpy as np
import torch

from verl.workers.rollout.base import Reply, RolloutEngine, SamplingParams

log = logging.getLogger(__name__)


def vllm_available() -> bool:
    import importlib.util

    return importlib.util.find_spec("vllm") is not None


@contextlib.contextmanager
def _undisturbed():
    """Random states, thread count and ``torch.set_num_threads`` as they were before."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    threads, set_threads = torch.get_num_threads(), torch.set_num_threads
    try:
        yield
    finally:
        torch.set_num_threads = set_threads
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


class VLLMEngine(RolloutEngine):
    """``model_path``: a Hugging Face folder or hub name (architecture, tokenizer and first weights).

    ``keep_torch_compile``: the process compiles something of its own (``actor.use_torch_compile``), so
    torch.compile stays on, on a CPU too.
    ``tensor_parallel_size`` > 1 needs one process a rank, started by the trainer
    (``external_launcher``); every rank must then make the same calls in the same order.
    """

    def __init__(
        self,
        model_path: str,
        *,
        max_model_len: int,
        dtype: str = "float32",
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.5,
        kv_cache_memory_bytes: int | None = None,
        block_size: int | None = None,
        max_num_seqs: int = 256,
        max_num_batched_tokens: int | None = None,
        enforce_eager: bool = False,
        enable_prefix_caching: bool = True,
        trust_remote_code: bool = False,
        load_format: str = "auto",
        enable_sleep_mode: bool = False,
        keep_torch_compile: bool = False,
        seed: int = 0,
    ):
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])  # it speaks before it reads that
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        self.max_model_len = max_model_len
        on_gpu = torch.cuda.is_available()
        if not on_gpu and not keep_torch_compile:
            # one small function of the sampler would be compiled at the first call, seconds of a C++ compiler for nothing
            os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
        if not on_gpu and kv_cache_memory_bytes is None:
            kv_cache_memory_bytes = 256 * 2**20  # the fraction of host memory is read from a wrong total
        with _undisturbed():
            from vllm import EngineArgs, LLMEngine

            args = EngineArgs(
                model=model_path,
                tokenizer=model_path,
                trust_remote_code=trust_remote_code,
                dtype=dtype,
                max_model_len=max_model_len,
                tensor_parallel_size=tensor_parallel_size,
                distributed_executor_backend="external_launcher" if tensor_parallel_size > 1 else "uni",
                gpu_memory_utilization=gpu_memory_utilization,
                kv_cache_memory_bytes=kv_cache_memory_bytes,
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=max_num_batched_tokens or max(8192, max_model_len),
                enforce_eager=enforce_eager or not on_gpu,
                enable_prefix_caching=enable_prefix_caching,
                # a prompt cut over two steps breaks seeded requests on a CPU (vLLM 0.32 rewinds the
                # generator by an offset that CPU generators lack), so prompts stay whole there
                enable_chunked_prefill=on_gpu,
                # prefixes are shared by whole blocks; vLLM's 128 on a CPU is longer than most prompts of games
                block_size=block_size or (None if on_gpu else 32),
                load_format=load_format,
                enable_sleep_mode=enable_sleep_mode and on_gpu,
                logprobs_mode="processed_logprobs",
                worker_extension_cls="verl.workers.rollout.vllm_extension.WeightSyncExtension",
                disable_log_stats=True,
                use_tqdm_on_load=False,
                seed=seed,
                async_scheduling=False,
                generation_config="vllm",
            )
            self._engine = LLMEngine.from_engine_args(args)
        self._can_sleep = enable_sleep_mode and on_gpu
        self._running: set[str] = set()

    def add(self, request_id: str, prompt_ids: list[int], params: SamplingParams) -> None:
        from vllm import SamplingParams as VLLMSamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._check_room(prompt_ids)
        self._engine.add_request(
            request_id,
            {"prompt_token_ids": list(prompt_ids)},
            VLLMSamplingParams(
                max_tokens=min(params.max_tokens, self.max_model_len - len(prompt_ids)),
                temperature=params.temperature,
                top_p=params.top_p,
                top_k=params.top_k if params.top_k > 0 else 0,
                seed=params.seed,
                stop_token_ids=list(params.stop_token_ids),
                ignore_eos=True,  # what ends a reply is in stop_token_ids
                logprobs=0 if params.logprobs else None,  # 0: the sampled token's own
                flat_logprobs=True,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            ),
        )
        self._running.add(request_id)

    def step(self) -> list[Reply]:
        replies = []
        state = torch.get_rng_state()  # vLLM draws from the process's generator even where every request has its own
        outputs = self._engine.step()
        torch.set_rng_state(state)
        for output in outputs:
            if not output.finished:
                continue
            self._running.discard(output.request_id)
            done = output.outputs[0]
            ids = list(done.token_ids)
            logprobs = done.logprobs
            # flat form: entry start_indices[i] is the sampled token of position i
            values = [logprobs.logprobs[start] for start in logprobs.start_indices] if logprobs is not None else []
            replies.append(Reply(output.request_id, ids, values, cut=done.finish_reason == "length"))
        return replies

    @property
    def unfinished(self) -> int:
        return len(self._running)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        with _undisturbed():
            self._engine.collective_rpc("take_weights", args=(weights,))
        self.reset_prefix_cache()

    def reset_prefix_cache(self) -> None:
        if not self._engine.reset_prefix_cache():
            raise RuntimeError("the engine kept cached prefixes: requests were still running, as they must not be during a weight sync")

    def sleep(self, level: int = 1) -> None:
        if self._can_sleep:
            self._engine.reset_prefix_cache()
            self._engine.sleep(level=level)

    def wake(self, tags: list[str] | None = None) -> None:
        if self._can_sleep:
            self._engine.wake_up(tags)

    def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.engine_core.shutdown()
