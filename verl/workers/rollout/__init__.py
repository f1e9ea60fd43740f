"""Rollout engines behind one contract (``base.py``): vLLM in this process, and plain transformers."""

from __future__ import annotations

import dataclasses
import logging

from verl.workers.rollout.base import Reply, RolloutEngine, SamplingParams
from verl.workers.rollout.vllm_settings import EngineSettings, Role

__all__ = ["Reply", "RolloutEngine", "SamplingParams", "build_engine"]

log = logging.getLogger(__name__)


def build_engine(
    rollout, model_path: str, *, role: Role = "policy", trust_remote_code: bool = False, keep_torch_compile: bool = False,
    log_file: str | None = None, seed: int = 0,
) -> RolloutEngine:  # fmt: skip
    """The engine that ``actor_rollout_ref.rollout`` asks for (``name``: vllm or hf). Where vLLM is
    not installed (macOS has no wheel) ``hf`` is taken and a warning says so.

    ``role``: the policy's own, or a past self's next to it. ``log_file``: where vLLM's own log goes on a GPU.
    """
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
    settings = EngineSettings.from_rollout(
        rollout, model_path, on_gpu=torch.cuda.is_available(), role=role, trust_remote_code=trust_remote_code,
        keep_torch_compile=keep_torch_compile, log_file=log_file, seed=seed,
    )  # fmt: skip
    return VLLMEngine(**dataclasses.asdict(settings))
