"""Bytes that an update holds for a while: what autograd keeps, what FSDP2 makes whole, logits in chunks.

With ``e`` bytes a number in the computation (2 for bfloat16, 4 for float32), H, I, Q and K the widths of the hidden
state, the MLP, all query heads and all key heads, V tokens of vocabulary, T tokens in a micro-batch, one position in
one block keeps::

    two norms      e 6 H     input, input over its length, output, each; 8 H in bfloat16, which is normed in float32
    attention      e (2 Q + 2 K)     queries and output, keys and values
    MLP            e 4 I     gate, its SiLU, up, their product
    Qwen3's norms of queries and keys     e 2 (Q + K), e 3 (Q + K) in bfloat16

and half as much of the last norm, with the head's input; with gradient checkpointing e H a block, and all of it for
one block at a time. A test counts it on the models themselves. The moments that can be the peak, and what is whole::

    loss         embedding and head, and the last block, fetched ahead; chunks of logits; the head's gradient
    backward     embedding, head and its gradient, and of one block the weights, its gradients, the next block as it is
                 fetched, and what was sent of the one before: (3 e + 4) numbers, or (e + 8) while gloo reduces, which
                 copies what it is given
    reduction    only where all blocks are one FSDP unit: all gradients, and as much again to send them

Such a unit is fetched again before the backward pass, and what came is kept beside the weights made of it. Where
whole weights stay between micro-batches (``reshard_after_forward: false``) all of them and all gradients, in float32,
are there at the first two moments. Seen with torch's profiler, torch 2.13.
"""

from __future__ import annotations

from dataclasses import dataclass

from verl.utils.memory_setup import MemorySetup
from verl.utils.model_shape import ModelShape

#: float32 numbers of logits that exist at a time, as in verl.utils.chunked_logprobs
LOGITS_CHUNK = 2**26
#: with shared prompts: keys that are copied for each token, if a prompt is half of its sequence
COPIED_KEYS = 2


@dataclass(frozen=True)
class Moment:
    """Bytes at one moment of an update, besides shards and optimizer."""

    name: str
    whole: float
    activations: float
    logits: float = 0.0

    @property
    def total(self) -> float:
        return self.whole + self.activations + self.logits


def block_bytes_per_token(shape: ModelShape, setup: MemorySetup) -> float:
    """What autograd keeps of one token in one block."""
    e, half = setup.compute_bytes, setup.compute_bytes == 2
    numbers = (8 if half else 6) * shape.hidden + 4 * shape.intermediate + 2 * shape.q
    if shape.qk_norm:
        numbers += (3 if half else 2) * (shape.q + shape.kv)
    keys = 2 * shape.kv
    if setup.share_prompts:
        # a sequence's keys stand behind its prompt's: copied; the GPU kernel is given copies of all
        keys = COPIED_KEYS * keys if setup.on_gpu else (COPIED_KEYS + 1) * keys
        numbers += 0 if setup.on_gpu else setup.row_tokens  # the mask of each continued sequence, in the same dtype
    if (setup.packed or setup.share_prompts) and not setup.on_gpu:
        numbers += shape.q  # sequences are attended to one by one, and put together again
    return e * (numbers + keys)


def end_bytes_per_token(shape: ModelShape, setup: MemorySetup) -> float:
    """What is kept of one token behind the last block: the last norm and what the head is given."""
    return setup.compute_bytes * shape.hidden * (4 if setup.compute_bytes == 2 else 3)


def trained_parameters(shape: ModelShape, setup: MemorySetup) -> int:
    """Numbers that have a gradient on all ranks together."""
    return shape.lora_parameters(setup.lora_rank) if setup.lora_rank else shape.parameters


def is_one_unit(shape: ModelShape, setup: MemorySetup) -> bool:
    """Whether blocks are too small to be sharded by themselves."""
    return shape.layer_parameters < setup.min_num_params


def keeps_whole(shape: ModelShape, setup: MemorySetup) -> bool:
    """Whether all weights are whole on every rank between a forward and its backward."""
    return not setup.reshard_after_forward or is_one_unit(shape, setup)


def logits_bytes(shape: ModelShape, setup: MemorySetup) -> float:
    """Log-probabilities in chunks: log p, p and the entropy's factor in float32, then the gradient of a chunk, and
    the head's gradient with what a chunk adds to it (summed in float32 where there are several chunks)."""
    e = setup.compute_bytes
    tokens = min(setup.micro_tokens, max(1, LOGITS_CHUNK // shape.vocab))
    chunk, head = tokens * shape.vocab, 0 if setup.lora_rank else shape.vocab * shape.hidden
    total = 4 if setup.micro_tokens > tokens else e
    return max(12 * chunk + total * head, (8 + (e if e == 2 else 0)) * chunk + (total + e) * head)


def moments(shape: ModelShape, setup: MemorySetup) -> list[Moment]:
    """The moments of an update at which it may need most."""
    e, tokens, trained = setup.compute_bytes, setup.micro_tokens, trained_parameters(shape, setup)
    block = block_bytes_per_token(shape, setup)
    inside = e * (2 * shape.intermediate + 2 * shape.hidden)  # gradients of a block's activations
    between = e * shape.hidden if setup.checkpointing else block
    kept = tokens * (shape.layers * between + end_bytes_per_token(shape, setup))
    if setup.checkpointing:
        inside += block
    if keeps_whole(shape, setup):
        at_loss = e * shape.parameters + (e * shape.parameters if setup.reshard_after_forward else 4 * trained)
        at_backward = at_loss
    else:
        at_loss = e * (shape.root_parameters + shape.layer_parameters)
        gradient = 0 if setup.lora_rank else 1
        reducing = e + 8 * gradient if not setup.on_gpu else 0
        head = gradient * e * shape.vocab * shape.hidden
        at_backward = e * shape.root_parameters + head + max(3 * e + 4 * gradient, reducing) * shape.layer_parameters
    found = [
        Moment("loss", at_loss, kept, logits_bytes(shape, setup)),
        Moment("backward", at_backward, kept + tokens * inside),
    ]
    if is_one_unit(shape, setup):
        found.append(Moment("reduction", 8 * trained + 4 * trained / setup.ranks, 0))
    return found


def update_peak(shape: ModelShape, setup: MemorySetup) -> Moment:
    """The moment of an update that needs most."""
    return max(moments(shape, setup), key=lambda moment: moment.total)
