"""What the memory plan needs to know of a run (:mod:`verl.utils.memory_plan`)."""

from __future__ import annotations

from dataclasses import dataclass

#: KV cache of a CPU engine where kv_cache_memory_bytes is not set: the fraction of host memory is read from a wrong total
CPU_KV_BYTES = 256 * 2**20


@dataclass(frozen=True)
class MemorySetup:
    """How a model is trained and served on one rank.

    Attributes:
        ranks: FSDP shards over all of them.
        micro_tokens: tokens of a micro-batch at most; ``row_tokens``: of one sequence at most.
        compute_bytes, param_bytes, engine_bytes: a number takes so many in the trainer's computation, in the weights
            that the optimizer updates, and in the engine.
        packed: sequences stand end to end (``use_remove_padding`` on a GPU); ``share_prompts``: ``use_prefix_grouper``.
        engine: ``vllm`` or ``hf``; ``sequences``: how many an engine answers at a time.
        past_selves: engines next to the policy's, ``past_self_share`` of the GPU each.
        split: the engine is in a process of its own (``hybrid_engine: false``).
        bucket_bytes: of the weight sync.
        device_bytes: memory of the GPU; ``None`` on a CPU, where collectives are gloo's.
    """

    ranks: int
    micro_tokens: int
    row_tokens: int
    compute_bytes: int = 2
    param_bytes: int = 4
    engine_bytes: int = 2
    packed: bool = False
    share_prompts: bool = False
    tensor_parallel: int = 1
    reshard_after_forward: bool = True
    min_num_params: int = 0
    checkpointing: bool = True
    param_offload: bool = False
    optimizer_offload: bool = False
    reference: bool = False
    reference_offload: bool = False
    critic: bool = False
    critic_offload: bool = False
    lora_rank: int = 0
    engine: str = "vllm"
    sequences: int = 1
    gpu_memory_utilization: float = 0.5
    kv_cache_bytes: int | None = None
    engine_sleeps: bool = True
    past_selves: int = 0
    past_self_share: float = 0.0
    max_num_batched_tokens: int = 8192
    split: bool = False
    bucket_bytes: int = 512 * 2**20
    device_bytes: int | None = None

    @property
    def on_gpu(self) -> bool:
        return self.device_bytes is not None
