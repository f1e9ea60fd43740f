"""Memory of one rank, by arithmetic: parameters, gradients, optimizer, activations, the engine's share.

Formulas, with P parameters, R ranks (FSDP shards over all of them), ``e`` bytes a number and V x H the embedding::

    parameters    4 P / R       float32, sharded; the optimizer updates these (2 with fsdp_config.model_dtype=bf16)
    gradients     4 P / R       of what is trained (LoRA: the adapters), from the first micro-batch to the step
    optimizer     8 P / R       AdamW's two moments, of what is trained
    whole, activations, logits      for a while within an update: verl.utils.memory_update
    reserve       on a GPU 4 GiB (GPU_RESERVE): its context, NCCL's buffers, CUDA graphs, fragmentation. Not measured.
    past selves   on a GPU past_self_gpu_memory_utilization of it each, throughout: they cannot sleep; on a CPU as the engine
    engine        on a GPU gpu_memory_utilization of it; on a CPU weights e P (vLLM 0.32 packs embedding and head besides:
                  2 e V H), the KV cache, one forward pass; the hf engine has no fixed cache: its sequences at full length
    weight sync   a bucket in float32 as it is gathered (a rank's own part 1/R, gloo a copy of the whole), then the
                  bucket and its largest tensor in the engine's hands: as it came, and as it is laid out anew

The phases follow one another, and what one leaves is given back (``ShardedModel.offload``; on a CPU the allocator
gives large blocks back by itself, ``ragen.trainer.worker_setup``). What is offloaded or asleep does not count. Not
counted either: the bare process with its libraries. Log-probabilities, values and the reference are computed while
the engine sleeps, by less than an update needs, so they have no phase of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

from verl.utils.memory_setup import MemorySetup
from verl.utils.memory_update import trained_parameters, update_peak
from verl.utils.model_shape import ModelShape

__all__ = ["GiB", "MemoryPlan", "MemorySetup", "Part", "faults", "plan_memory"]

GiB = 2**30
#: what nobody asks for and a GPU still holds: context, NCCL, CUDA graphs, fragmentation
GPU_RESERVE = 4 * GiB


@dataclass(frozen=True)
class Part:
    """``update``, ``sync`` and ``rollout``: bytes that count in that phase."""

    name: str
    update: float = 0.0
    sync: float = 0.0
    rollout: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class MemoryPlan:
    """With ``split`` the update and the sync are a training rank's, and the rollout is a rollout worker's."""

    parts: tuple[Part, ...]
    kv_tokens: int
    split: bool = False
    past_self_tokens: int | None = None

    @property
    def update(self) -> float:
        """Bytes at the peak of an update."""
        return sum(part.update for part in self.parts)

    @property
    def sync(self) -> float:
        """Bytes while the engine takes over weights."""
        return sum(part.sync for part in self.parts)

    @property
    def rollout(self) -> float:
        """Bytes while episodes are played."""
        return sum(part.rollout for part in self.parts)

    @property
    def peak(self) -> float:
        return max(self.update, self.sync, self.rollout)

    def lines(self) -> list[str]:
        whose = "  (rollout: of a rollout worker)" if self.split else ""
        out = [f"{'GiB a rank':<14}{'update':>9}{'sync':>9}{'rollout':>9}{whose}"]
        for part in (*self.parts, Part("total", self.update, self.sync, self.rollout)):
            sizes = "".join(f"{size / GiB:>9.2f}" for size in (part.update, part.sync, part.rollout))
            out.append(f"  {part.name:<12}{sizes}  {part.note}".rstrip())
        out.append(f"  KV cache for {self.kv_tokens:,} tokens of context an engine")
        return out


def _trainer_parts(shape: ModelShape, setup: MemorySetup) -> list[Part]:
    ranks, size, trained = setup.ranks, setup.param_bytes, trained_parameters(shape, setup)
    weights = size * (shape.parameters + (trained if setup.lora_rank else 0)) / ranks
    moments = 2 * size * trained / ranks
    most = update_peak(shape, setup)
    # gradients that stay whole are sharded when the last micro-batch is through: no other moment has both
    gradients = size * trained / ranks if setup.reshard_after_forward else 0
    recomputed = ", recomputed" if setup.checkpointing else ""
    shared = ", prompts shared (taken for half of a sequence)" if setup.share_prompts else ""
    parts = [
        _held("parameters", weights, setup.param_offload, f"1/{ranks} of {shape.parameters / 1e6:,.1f}M", in_sync=True),
        Part("gradients", update=gradients, note="of the adapters" if setup.lora_rank else ""),
        _held("optimizer", moments, setup.optimizer_offload, "AdamW's moments"),
        Part("whole", update=most.whole, note=f"gathered weights, gradients on their way, at the {most.name}"),
        Part("activations", update=most.activations, note=f"{setup.micro_tokens} tokens{recomputed}{shared}"),
        Part("logits", update=most.logits, note="in chunks" if most.logits else f"less than what the {most.name} adds"),
    ]
    if setup.reference and not setup.lora_rank:
        held = 0 if setup.reference_offload else size * shape.parameters / ranks
        parts.append(Part("reference", held, held, held))
    if setup.critic:
        numbers = shape.value_model().parameters / ranks
        kept = 0 if setup.critic_offload else 3 * size * numbers
        parts.append(Part("critic", kept + size * numbers, kept, kept, "weights, moments, gradients"))
    return [Part(p.name, p.update, p.sync, 0, p.note) for p in parts] if setup.split else parts


def _held(name: str, size: float, offloaded: bool, note: str, in_sync: bool = False) -> Part:
    """What stays between phases unless it is offloaded; ``in_sync``: comes back for the weight sync."""
    between = 0 if offloaded else size
    return Part(name, size, size if in_sync else between, between, note)


def _packed(shape: ModelShape, setup: MemorySetup) -> int:
    """Numbers that vLLM lays out anew on a CPU and keeps as they were besides: embedding and head (it packs both,
    of tied ones too; of all other weights the packed form alone is left)."""
    return 2 * shape.vocab * shape.hidden if setup.engine == "vllm" and not setup.on_gpu else 0


def _weights(shape: ModelShape, setup: MemorySetup) -> float:
    return setup.engine_bytes * (shape.parameters / setup.tensor_parallel + _packed(shape, setup))


def _forward(shape: ModelShape, setup: MemorySetup) -> float:
    """Bytes of one forward pass of the engine and of choosing a token for each sequence."""
    e, inner = setup.engine_bytes, 2 * shape.intermediate / setup.tensor_parallel
    if setup.engine == "hf":  # all prompts at once, padded: the MLP, or keys and values repeated for all heads and a mask
        attention = 2 * shape.q + setup.row_tokens
        return setup.sequences * setup.row_tokens * e * (2 * shape.hidden + max(inner, attention))
    return setup.max_num_batched_tokens * e * (2 * shape.hidden + inner) + 16 * setup.sequences * shape.vocab


def _engine_part(shape: ModelShape, setup: MemorySetup) -> tuple[Part, int]:
    """The engine and the tokens its KV cache holds."""
    weights, forward = _weights(shape, setup), _forward(shape, setup)
    a_token = shape.kv_bytes_per_token(setup.engine_bytes) / setup.tensor_parallel
    if setup.engine == "hf":  # grows with the replies: each layer's is copied as it does
        tokens = setup.sequences * setup.row_tokens
        cache = tokens * a_token * (1 + 1 / shape.layers)
        note = f"weights {weights / GiB:.2f}, cache of {setup.sequences} sequences {cache / GiB:.2f}"
        own = 0 if setup.split else weights
        return Part("engine", own, own, weights + cache + forward, note), tokens
    if setup.kv_cache_bytes is not None:
        cache, held = setup.kv_cache_bytes, weights + setup.kv_cache_bytes + forward
        note = f"weights {weights / GiB:.2f}, KV cache {cache / GiB:.2f}"
    else:
        held = setup.gpu_memory_utilization * (setup.device_bytes or 0)
        cache = max(0, held - weights - forward)
        note = f"gpu_memory_utilization {setup.gpu_memory_utilization:g}: weights {weights / GiB:.2f}, KV cache {cache / GiB:.2f}"
    tokens = int(cache // a_token)
    if setup.split:
        return Part("engine", 0, 0, held, note), tokens
    if setup.engine_sleeps and setup.on_gpu:  # its cache sleeps on until the weights are there
        return Part("engine", 0, weights, held, f"{note}, asleep in the update"), tokens
    idle = held if setup.on_gpu else held - forward
    return Part("engine", idle, idle, held, note), tokens


def _sync_part(shape: ModelShape, setup: MemorySetup) -> Part:
    """One bucket of whole tensors, and what the engine makes of its largest."""
    largest = shape.vocab * shape.hidden
    bucket = max(min(setup.bucket_bytes, setup.param_bytes * shape.parameters), setup.param_bytes * largest)
    tensor = setup.param_bytes * largest
    anew = 0 if setup.engine == "hf" else setup.engine_bytes * (largest + _packed(shape, setup) / 2)
    handed_over = tensor + anew
    if setup.split:  # the trainer fills a bucket to send, and a rollout worker receives one
        return Part("weight sync", 0, 2 * bucket + tensor, bucket + handed_over, "one bucket, and one to send")
    if setup.ranks == 1:
        return Part("weight sync", 0, handed_over, 0, "one whole tensor")
    gathering = bucket * (1 + 1 / setup.ranks + (0 if setup.on_gpu else 1))
    return Part("weight sync", 0, max(gathering, bucket + handed_over), 0, "one bucket of whole tensors")


def _past_self_part(shape: ModelShape, setup: MemorySetup, engine: Part) -> tuple[list[Part], int | None]:
    """Engines with older weights, of the policy's sizes, and the tokens that the KV cache of one holds on a GPU."""
    if not setup.past_selves:
        return [], None
    if not setup.on_gpu:
        idle, held = setup.past_selves * engine.update, setup.past_selves * engine.rollout
        return [Part("past selves", idle, idle, held, f"{setup.past_selves}, each taken for as large as the engine")], None
    share = setup.past_self_share * (setup.device_bytes or 0)
    held, weights = setup.past_selves * share, setup.engine_bytes * shape.parameters
    tokens = int(max(0, share - weights - _forward(shape, setup)) // shape.kv_bytes_per_token(setup.engine_bytes))
    idle = 0 if setup.split else held
    note = f"{setup.past_selves} of past_self_gpu_memory_utilization {setup.past_self_share:g}, awake throughout"
    return [Part("past selves", idle, idle, held, note)], tokens


def plan_memory(shape: ModelShape, setup: MemorySetup) -> MemoryPlan:
    """Peak memory of one rank in each phase."""
    engine, kv_tokens = _engine_part(shape, setup)
    past_selves, past_tokens = _past_self_part(shape, setup, engine)
    parts = [*_trainer_parts(shape, setup), engine, *past_selves, _sync_part(shape, setup)]
    if setup.on_gpu:
        parts.append(Part("reserve", GPU_RESERVE, GPU_RESERVE, GPU_RESERVE, "context, NCCL, CUDA graphs, fragmentation; not measured"))
    return MemoryPlan(tuple(parts), kv_tokens, setup.split, past_tokens)


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
        hint = "a smaller kv_cache_memory_bytes"
        if setup.on_gpu:
            hint = f"actor_rollout_ref.rollout.gpu_memory_utilization of at most {max(0.0, free):.2f}"
        out.append(
            f"rollouts need {plan.rollout / GiB:.1f} GiB a rank and there are {capacity / GiB:.1f}: use {hint}, more ranks, "
            "or param_offload and optimizer_offload"
        )
    if plan.sync > capacity:
        out.append(
            f"the weight sync needs {plan.sync / GiB:.1f} GiB a rank and there are {capacity / GiB:.1f}: use a smaller "
            "actor_rollout_ref.rollout.update_weights_bucket_megabytes, more ranks, or optimizer_offload"
        )
    if plan.past_self_tokens is not None and plan.past_self_tokens < setup.row_tokens:
        out.append(
            f"the KV cache of a past self holds {plan.past_self_tokens:,} tokens, less than one trajectory of "
            f"actor_rollout_ref.rollout.max_model_len = {setup.row_tokens:,}: raise "
            f"actor_rollout_ref.rollout.past_self_gpu_memory_utilization = {setup.past_self_share:g}"
        )
    if plan.kv_tokens < setup.row_tokens:
        out.append(
            f"the KV cache holds {plan.kv_tokens:,} tokens, less than one trajectory of "
            f"actor_rollout_ref.rollout.max_model_len = {setup.row_tokens:,}: raise gpu_memory_utilization or "
            "kv_cache_memory_bytes, or tensor_model_parallel_size"
        )
    return out
