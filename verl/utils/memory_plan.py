"""Memory of one rank, by arithmetic: parameters, gradients, optimizer, activations, the engine's share.

Formulas, with P parameters, R ranks (FSDP shards over all of them), ``e`` bytes a number in the
computation (2 for bfloat16, 4 for float32) and T tokens in a micro-batch::

    parameters   4 P / R            float32, sharded; the optimizer updates these
    gradients    4 P / R            of what is trained (LoRA: the adapters)
    optimizer    8 P / R            AdamW's two moments, of what is trained
    whole        what FSDP2 gathers: embedding and head (root) with their gradients, (2e + 4) root; three blocks
                 (one computes, one is fetched, one is copied out) and one block's gradient with what is sent and
                 received of it, (3e + e + 8) block; everything, (e + 8) P, if nothing is resharded after forward
    activations  T (layers A + 2 H e + 3 I e), A = e (4 I + 5 H + 5 Q + 2 K) + what the float32 norms keep;
                 with checkpointing T (layers H e + A + ...)
    logits       about 3 chunks of at most 256 MiB in float32 (verl.utils.chunked_logprobs)
    engine       weights e P / TP and the KV cache, or gpu_memory_utilization of the device

A, per token and block, was fitted to what autograd keeps for Qwen2, Qwen3 and Llama blocks under
transformers' SDPA attention; a test measures it again. Numbers are peaks of the update and of the
rollout: what is offloaded or asleep does not count.
"""

from __future__ import annotations

from dataclasses import dataclass

from verl.utils.model_shape import ModelShape

GiB = 2**30
#: float32 numbers of logits that exist at a time, as in verl.utils.chunked_logprobs
LOGITS_CHUNK = 2**26


@dataclass(frozen=True)
class MemorySetup:
    """How a model is trained and served on one rank. Bytes a number: ``compute_bytes`` of the trainer,
    ``engine_bytes`` of the engine. ``device_bytes``: memory of the GPU; ``None`` on a CPU."""

    ranks: int
    micro_tokens: int
    row_tokens: int
    compute_bytes: int = 2
    engine_bytes: int = 2
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
    gpu_memory_utilization: float = 0.5
    kv_cache_bytes: int | None = None
    engine_sleeps: bool = True
    max_num_batched_tokens: int = 8192
    bucket_bytes: int = 512 * 2**20
    device_bytes: int | None = None


@dataclass(frozen=True)
class Part:
    """``update`` and ``rollout``: bytes that count in that phase."""

    name: str
    update: float
    rollout: float
    note: str = ""


@dataclass(frozen=True)
class MemoryPlan:
    parts: tuple[Part, ...]
    kv_tokens: int

    @property
    def update(self) -> float:
        """Bytes at the peak of an update."""
        return sum(part.update for part in self.parts)

    @property
    def rollout(self) -> float:
        """Bytes while episodes are played."""
        return sum(part.rollout for part in self.parts)

    @property
    def peak(self) -> float:
        return max(self.update, self.rollout)

    def lines(self) -> list[str]:
        out = [f"{'GiB a rank':<14}{'update':>9}{'rollout':>9}"]
        for part in (*self.parts, Part("total", self.update, self.rollout)):
            out.append(f"  {part.name:<12}{part.update / GiB:>9.2f}{part.rollout / GiB:>9.2f}  {part.note}".rstrip())
        out.append(f"  KV cache for {self.kv_tokens:,} tokens of context an engine")
        return out


def activation_bytes_per_token(shape: ModelShape, e: int) -> float:
    """What autograd keeps of one token in one block (A of the module docstring)."""
    numbers = 4 * shape.intermediate + 5 * shape.hidden + 5 * shape.q + 2 * shape.kv
    norms = 0.0
    if shape.qk_norm:
        numbers += 2 * (shape.q + shape.kv)
        norms += shape.q + shape.kv
    norms += 2 * shape.hidden
    return e * numbers + (2 * norms if e == 2 else 0)  # RMSNorm computes in float32


def activations(shape: ModelShape, setup: MemorySetup) -> float:
    """Bytes kept between forward and backward of one micro-batch."""
    block, e, tokens = activation_bytes_per_token(shape, setup.compute_bytes), setup.compute_bytes, setup.micro_tokens
    ends = 2 * shape.hidden * e + (2 * shape.hidden if e == 2 else 0)
    # while a block is differentiated, the gradients of its MLP's three inner tensors exist as well
    inner = 3 * shape.intermediate * e
    kept = shape.layers * shape.hidden * e + block if setup.checkpointing else shape.layers * block
    return tokens * (kept + ends + inner)


def whole(shape: ModelShape, setup: MemorySetup, trained: float) -> tuple[float, str]:
    """Bytes of what is whole on every rank during an update, and of what; ``trained``: parameters with a gradient."""
    e, share = setup.compute_bytes, trained / shape.parameters
    if not setup.reshard_after_forward or shape.layer_parameters < setup.min_num_params:
        return e * shape.parameters + 8 * trained, "all weights and gradients"
    root = (e + (e + 4) * share) * shape.root_parameters
    blocks = (3 * e + (e + 8) * share) * shape.layer_parameters
    return root + blocks, "embedding, head and three blocks, with gradients"


def logits(shape: ModelShape, setup: MemorySetup, trained: bool = True) -> float:
    """Bytes of log-probabilities in chunks: logits, probabilities and their logarithm in float32, the
    gradient in the computation's dtype, and the head's float32 gradient where there are several chunks."""
    tokens = min(setup.micro_tokens, max(1, LOGITS_CHUNK // shape.vocab))
    several = setup.micro_tokens > tokens
    chunk = tokens * shape.vocab
    return chunk * (12 + setup.compute_bytes * trained) + (4 * shape.vocab * shape.hidden if several and trained else 0)


def _trainer_parts(shape: ModelShape, setup: MemorySetup) -> list[Part]:
    def share(numbers: float) -> float:
        return numbers / setup.ranks

    trained = shape.lora_parameters(setup.lora_rank) if setup.lora_rank else shape.parameters
    weights = 4 * share(shape.parameters + (trained if setup.lora_rank else 0))
    moments = 8 * share(trained)
    gathered, of_what = whole(shape, setup, trained)
    parts = [
        Part("parameters", weights, 0 if setup.param_offload else weights, f"float32, 1/{setup.ranks} of {shape.parameters / 1e6:,.1f}M"),
        Part("gradients", 4 * share(trained), 0, "float32" + (", adapters alone" if setup.lora_rank else "")),
        Part("optimizer", moments, 0 if setup.optimizer_offload else moments, "AdamW's moments"),
        Part("whole", gathered, 0, of_what),
        Part("activations", activations(shape, setup), 0, f"{setup.micro_tokens} tokens" + (", recomputed" if setup.checkpointing else "")),
        Part("logits", logits(shape, setup), 0, "in chunks"),
    ]
    if setup.reference and not setup.lora_rank:
        held = 0 if setup.reference_offload else 4 * share(shape.parameters)
        parts.append(Part("reference", held, held, "the model without its adapters" if setup.lora_rank else ""))
    if setup.critic:
        numbers = share(shape.value_model().parameters)
        kept = 0 if setup.critic_offload else 12 * numbers
        parts.append(Part("critic", kept + 4 * numbers, kept, "weights, moments, gradients"))
    return parts


def _engine_part(shape: ModelShape, setup: MemorySetup) -> tuple[Part, int]:
    """The engine and the tokens its KV cache holds."""
    e, tp = setup.engine_bytes, setup.tensor_parallel
    weights = e * shape.parameters / tp
    a_token = shape.kv_bytes_per_token(e) / tp
    # one forward pass of max_num_batched_tokens: the widest pair of inner tensors, and logits of the last positions
    forward = setup.max_num_batched_tokens * e * (2 * shape.intermediate / tp + 2 * shape.hidden)
    if setup.kv_cache_bytes is not None:
        cache, held = setup.kv_cache_bytes, weights + setup.kv_cache_bytes + forward
        note = f"weights {weights / GiB:.2f}, KV cache {cache / GiB:.2f}"
    else:
        held = setup.gpu_memory_utilization * (setup.device_bytes or 0)
        cache = held - weights - forward
        note = f"gpu_memory_utilization {setup.gpu_memory_utilization:g}: weights {weights / GiB:.2f}, KV cache {max(0, cache) / GiB:.2f}"
    asleep = setup.engine_sleeps and setup.device_bytes is not None
    return Part("engine", 0 if asleep else held, held, note + (", asleep in the update" if asleep else "")), int(max(0, cache) // a_token)


def plan_memory(shape: ModelShape, setup: MemorySetup) -> MemoryPlan:
    """Peak memory of one rank in both phases."""
    engine, kv_tokens = _engine_part(shape, setup)
    largest = shape.vocab * shape.hidden * setup.engine_bytes
    bucket = max(min(setup.bucket_bytes, shape.parameters * setup.engine_bytes), largest)
    sync = Part("weight sync", 0, bucket if setup.ranks > 1 else 0, "one bucket of whole tensors")
    return MemoryPlan((*_trainer_parts(shape, setup), engine, sync), kv_tokens)


def faults(plan: MemoryPlan, setup: MemorySetup, capacity: float) -> list[str]:
    """Why ``plan`` cannot run in ``capacity`` bytes a rank; empty if it can."""
    out = []
    free = 1 - (plan.rollout - next(p.rollout for p in plan.parts if p.name == "engine")) / capacity
    if plan.update > capacity:
        largest = max(plan.parts, key=lambda part: part.update)
        out.append(
            f"the update needs {plan.update / GiB:.1f} GiB a rank and there are {capacity / GiB:.1f}; the largest part is "
            f"{largest.name} ({largest.update / GiB:.1f}): use more ranks, fewer tokens a micro-batch "
            "(actor_rollout_ref.actor.ppo_max_token_len_per_gpu), optimizer_offload or LoRA"
        )
    if plan.rollout > capacity:
        hint = f"actor_rollout_ref.rollout.gpu_memory_utilization of at most {max(0.0, free):.2f}" if setup.device_bytes else "a smaller kv_cache_memory_bytes"
        out.append(
            f"rollouts need {plan.rollout / GiB:.1f} GiB a rank and there are {capacity / GiB:.1f}: use {hint}, more ranks, "
            "or param_offload and optimizer_offload"
        )
    if plan.kv_tokens < setup.row_tokens:
        out.append(
            f"the KV cache holds {plan.kv_tokens:,} tokens, less than one trajectory of actor_rollout_ref.rollout.max_model_len = "
            f"{setup.row_tokens:,}: raise gpu_memory_utilization or kv_cache_memory_bytes, or tensor_model_parallel_size"
        )
    return out
