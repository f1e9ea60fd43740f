"""What vLLM is started with: its arguments and environment as a function of the settings and of the machine.

Plain values, without vLLM and without a GPU, so that a test can look at what a GPU would get. vLLM 0.32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from verl.utils.memory_setup import CPU_KV_BYTES
from verl.workers.rollout.vllm_logging import config_path

Role = Literal["policy", "past_self"]

#: one-shot all-reduces that map the other ranks' memory: they look the others up among the devices that this process sees
_PEER_MEMORY = {
    "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",
    "VLLM_ALLREDUCE_USE_FLASHINFER": "0",
    "VLLM_ALLREDUCE_USE_FLASHINFER_PCIE_IPC": "0",
}


@dataclass(frozen=True)
class EngineSettings:
    """The settings of one engine, mostly keys of ``actor_rollout_ref.rollout``.

    Attributes:
        model_path: a Hugging Face folder or hub name.
        enforce_eager: without CUDA graphs; ``None``: on a CPU, and with CUDA graphs on a GPU.
        enable_sleep_mode: its memory can be lent to a trainer; one engine a process may have it.
        keep_torch_compile: the process compiles something of its own (``actor.use_torch_compile``), so
            torch.compile stays on, on a CPU too.
        log_file: where the engine's own log goes on a GPU (INFO: size of the KV cache, all-reduce, sleep).
    """

    model_path: str
    max_model_len: int
    dtype: str = "float32"
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.5
    kv_cache_memory_bytes: int | None = None
    block_size: int | None = None
    max_num_seqs: int = 256
    max_num_batched_tokens: int | None = None
    enforce_eager: bool | None = None
    enable_prefix_caching: bool = True
    trust_remote_code: bool = False
    load_format: str = "auto"
    enable_sleep_mode: bool = False
    keep_torch_compile: bool = False
    log_file: str | None = None
    seed: int = 0

    @classmethod
    def from_rollout(cls, rollout, model_path: str, *, on_gpu: bool, role: Role = "policy", **more) -> EngineSettings:
        """From ``actor_rollout_ref.rollout``.

        A past self is an engine next to the policy's in one process: on a GPU it has a share of its own
        (``past_self_gpu_memory_utilization``) and holds it throughout, for vLLM's sleep mode allows one instance a
        process. It runs without CUDA graphs, whose pool would be the policy's.
        """
        chosen = {
            "max_model_len": rollout.max_model_len,
            "dtype": rollout.dtype,
            "tensor_parallel_size": rollout.tensor_model_parallel_size,
            "gpu_memory_utilization": rollout.gpu_memory_utilization,
            "kv_cache_memory_bytes": rollout.get("kv_cache_memory_bytes"),
            "block_size": rollout.get("block_size"),
            "max_num_seqs": rollout.max_num_seqs,
            "max_num_batched_tokens": rollout.get("max_num_batched_tokens"),
            "enforce_eager": rollout.get("enforce_eager"),
            "enable_prefix_caching": rollout.get("enable_prefix_caching", True),
            "load_format": rollout.get("load_format", "auto"),
            "enable_sleep_mode": rollout.get("free_cache_engine", True),
        }
        if role == "past_self":
            chosen |= {"load_format": "auto", "enable_sleep_mode": False}  # no trainer sends it weights
            if on_gpu:
                chosen |= {
                    "gpu_memory_utilization": rollout.past_self_gpu_memory_utilization,
                    "kv_cache_memory_bytes": None,
                    "enforce_eager": True,
                }
        return cls(model_path, **chosen, **more)

    def sleeps(self, on_gpu: bool) -> bool:
        """Whether the engine can give its memory away; a CPU engine cannot."""
        return self.enable_sleep_mode and on_gpu

    def arguments(self, *, on_gpu: bool, visible_gpus: int = 1) -> dict[str, Any]:
        """Keyword arguments of ``vllm.EngineArgs``. ``visible_gpus``: devices that this process sees."""
        cache = self.kv_cache_memory_bytes
        found = dict(
            model=self.model_path,
            tokenizer=self.model_path,
            trust_remote_code=self.trust_remote_code,
            dtype=self.dtype,
            max_model_len=self.max_model_len,
            tensor_parallel_size=self.tensor_parallel_size,
            distributed_executor_backend="external_launcher" if self.tensor_parallel_size > 1 else "uni",
            gpu_memory_utilization=self.gpu_memory_utilization,
            kv_cache_memory_bytes=CPU_KV_BYTES if cache is None and not on_gpu else cache,
            max_num_seqs=self.max_num_seqs,
            max_num_batched_tokens=self.max_num_batched_tokens or max(8192, self.max_model_len),
            enforce_eager=self.enforce_eager or not on_gpu,
            enable_prefix_caching=self.enable_prefix_caching,
            # a prompt cut over two steps breaks seeded requests on a CPU (vLLM 0.32 rewinds the
            # generator by an offset that CPU generators lack), so prompts stay whole there
            enable_chunked_prefill=on_gpu,
            # prefixes are shared by whole blocks; vLLM's 128 on a CPU is longer than most prompts of games
            block_size=self.block_size or (None if on_gpu else 32),
            load_format=self.load_format,
            enable_sleep_mode=self.sleeps(on_gpu),
            logprobs_mode="processed_logprobs",
            worker_extension_cls="verl.workers.rollout.vllm_extension.WeightSyncExtension",
            disable_log_stats=True,
            use_tqdm_on_load=False,
            seed=self.seed,
            async_scheduling=False,
            generation_config="vllm",
        )
        if self._ranks_apart(on_gpu, visible_gpus):
            found |= {"disable_custom_all_reduce": True, "compilation_config": {"pass_config": {"fuse_allreduce_rms": False}}}
        return found

    def environment(self, *, on_gpu: bool, visible_gpus: int = 1) -> dict[str, str]:
        """Environment variables that vLLM reads; what is set already stays."""
        found = {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_LOGGING_LEVEL": "INFO" if on_gpu and self.log_file else "ERROR",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
        }
        if not on_gpu and not self.keep_torch_compile:
            # one small function of the sampler would be compiled at the first call, seconds of a C++ compiler for nothing
            found["TORCH_COMPILE_DISABLE"] = "1"
        if on_gpu and self.log_file:
            found["VLLM_LOGGING_CONFIG_PATH"] = config_path(self.log_file)
        return found | (_PEER_MEMORY if self._ranks_apart(on_gpu, visible_gpus) else {})

    def _ranks_apart(self, on_gpu: bool, visible_gpus: int) -> bool:
        """Whether ranks of this engine do not see one another's devices, as under Ray: NCCL alone reaches them."""
        return on_gpu and self.tensor_parallel_size > visible_gpus

