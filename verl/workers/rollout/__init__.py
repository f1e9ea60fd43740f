"""Rollout engines behind one contract (``base.py``): vLLM in this process, and plain transformers."""

from __future__ import annotations

import logging

from verl.workers.rollout.base import Reply, RolloutEngine, SamplingParams

__all__ = ["Reply", "RolloutEngine", "SamplingParams", "build_engine"]

log = logging.getLogger(__name__)


def build_engine(
    rollout, model_path: str, *, trust_remote_code: bool = False, keep_torch_compile: bool = False, seed: int = 0
) -> RolloutEngine:
    """The engine that ``actor_rollout_ref.rollout`` asks for (``name``: vllm or hf). Where vLLM is
    not installed (macOS has no wheel) ``hf`` is taken and a warning says so."""
    import torch

    from verl.workers.rollout.vllm_rollout import VLLMEngine, vllm_available

    name = rollout.name
    if name == "vllm" and not vllm_available():
        log.warning("vLLM is not installed here: episodes are played by the plain hf engine, several times slower")
        name = "hf"
    if name == "hf":
        from verl.workers.rollout.hf_rollout import HFEngine

        return HFEngine(
            model_path, max_model_len=rollout.max_model_len, dtype=rollout.dtype, trust_remote_code=trust_remote_code,
            max_num_seqs=rollout.max_num_seqs, device="cuda" if torch.cuda.is_available() else "cpu",
        )  # fmt: skip
    if name != "vllm":
        raise ValueError(f"actor_rollout_ref.rollout.name must be vllm or hf, got {name!r}")
    return VLLMEngine(
        model_path,
        max_model_len=rollout.max_model_len,
        dtype=rollout.dtype,
        tensor_parallel_size=rollout.tensor_model_parallel_size,
        gpu_memory_utilization=rollout.gpu_memory_utilization,
        kv_cache_memory_bytes=rollout.get("kv_cache_memory_bytes"),
        block_size=rollout.get("block_size"),
        max_num_seqs=rollout.max_num_seqs,
        max_num_batched_tokens=rollout.get("max_num_batched_tokens"),
        enforce_eager=rollout.get("enforce_eager", True),
        enable_prefix_caching=rollout.get("enable_prefix_caching", True),
        trust_remote_code=trust_remote_code,
        load_format=rollout.get("load_format", "auto"),
        enable_sleep_mode=rollout.get("free_cache_engine", True),
        keep_torch_compile=keep_torch_compile,
        seed=seed,
    )
