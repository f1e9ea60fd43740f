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
from verl.workers.rollout.vllm_logging import write_log_config
from verl.workers.rollout.vllm_settings import EngineSettings

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
    """One engine in this process.

    Args:
        model_path: a Hugging Face folder or hub name (architecture, tokenizer and first weights).
        settings: the other fields of :class:`~verl.workers.rollout.vllm_settings.EngineSettings`.

    ``tensor_parallel_size`` > 1 needs one process a rank, started by the trainer
    (``external_launcher``); every rank must then make the same calls in the same order.
    """

    def __init__(self, model_path: str, **settings):
        chosen = EngineSettings(model_path, **settings)
        on_gpu = torch.cuda.is_available()
        machine = {"on_gpu": on_gpu, "visible_gpus": torch.cuda.device_count()}
        if on_gpu and chosen.log_file:
            write_log_config(chosen.log_file)
        for name, value in chosen.environment(**machine).items():
            os.environ.setdefault(name, value)
        logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])  # it speaks before it reads that
        self.max_model_len = chosen.max_model_len
        with _undisturbed():
            from vllm import EngineArgs, LLMEngine

            self._engine = LLMEngine.from_engine_args(EngineArgs(**chosen.arguments(**machine)))
        # a later engine of this process puts its own in the place of this scratch memory, which CUDA graphs point at
        self._scratch = _workspace_manager() if on_gpu else None
        self._can_sleep = chosen.sleeps(on_gpu)
        #: what a weight sync does not write, by name; ``None`` before the first
        self.not_synced: list[str] | None = None
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
            found = self._engine.collective_rpc("take_weights", args=(weights, self.not_synced is None))[0]
        if self.not_synced is None:
            self.not_synced = found
            if found and self._can_sleep:
                log.warning("the engine keeps a copy of its weights in host memory while it sleeps: a sync does not write %s", found)
        self.reset_prefix_cache()

    def reset_prefix_cache(self) -> None:
        if not self._engine.reset_prefix_cache():
            raise RuntimeError("the engine kept cached prefixes: requests were still running, as they must not be during a weight sync")

    def sleep(self, level: int | None = None) -> bool:
        if not self._can_sleep:
            return False
        if level is None:  # what every sync overwrites need not be kept in pinned host memory
            level = 2 if self.not_synced == [] else 1
        self._engine.reset_prefix_cache()
        self._engine.sleep(level=level)
        return True

    def wake(self, tags: list[str] | None = None) -> None:
        if self._can_sleep:
            self._engine.wake_up(tags)

    def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.engine_core.shutdown()


def _workspace_manager():
    from vllm.v1.worker import workspace

    return workspace._manager
