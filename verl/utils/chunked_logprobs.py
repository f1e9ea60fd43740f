"""Log-probability and entropy of tokens, computed in chunks of tokens with an exact gradient.

With ``l`` the logits of a token (divided by the temperature), ``p = softmax(l)``::

    logp  = log_softmax(l)[label]            d logp / d l = onehot(label) - p
    H     = - sum p log p                    d H / d l    = - p (log p + H)

Float32 (float64 if the input is) exists for one chunk of logits at a time. Backward computes the
chunk again instead of keeping it: from the logits in their own dtype, or in
:func:`chunked_logprobs_entropy` from the hidden states, so that no logits are kept at all. Where
all tokens fit one chunk (a small vocabulary) its log p is kept and nothing is redone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

#: float32 numbers in a chunk of logits where no chunk size is given: 64 Mi numbers, 256 MiB
CHUNK_NUMBERS = 2**26


def _tokens_per_chunk(chunk_size: int | None, vocab: int) -> int:
    if chunk_size is None:
        return max(1, CHUNK_NUMBERS // max(1, vocab))
    if chunk_size < 1:
        raise ValueError(f"chunk_size counts tokens and must be at least 1, got {chunk_size}")
    return chunk_size


def _working_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _log_softmax(logits: torch.Tensor, dtype: torch.dtype, temperature: float = 1.0) -> torch.Tensor:
    """log p of a chunk of logits (n, V) in full precision."""
    if temperature != 1.0:
        logits = logits.to(dtype) / temperature
    return torch.log_softmax(logits, dim=-1, dtype=dtype)


def _bounded(log_p: torch.Tensor) -> torch.Tensor:
    """log p with a finite number for impossible tokens, since 0 * -inf is NaN and their share is 0."""
    return log_p.clamp(min=torch.finfo(log_p.dtype).min / 2)


def _entropy(log_p: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """Entropy (n,) of log p (n, V), and whether there were impossible tokens (looked for only where the
    plain sum is NaN: a pass over all numbers costs)."""
    entropy = -log_p.exp().mul_(log_p).sum(-1)
    if not entropy.isnan().any():
        return entropy, False
    log_p = _bounded(log_p)
    return -log_p.exp().mul_(log_p).sum(-1), True


def _backward_chunk(log_p, labels, entropy, grad_logp, grad_entropy) -> torch.Tensor:
    """Gradient with respect to the logits (n, V) that log p came from."""
    p = log_p.exp()
    if grad_entropy is None:
        grad = p.mul_(-grad_logp.unsqueeze(-1))
    else:
        coef = (log_p + entropy.unsqueeze(-1)).mul_(grad_entropy.unsqueeze(-1))
        if grad_logp is not None:
            coef.add_(grad_logp.unsqueeze(-1))
        grad = p.mul_(coef).neg_()
    if grad_logp is not None:
        grad.scatter_add_(-1, labels.unsqueeze(-1), grad_logp.unsqueeze(-1))
    return grad


class _Chunks:
    """Forward over chunks: fills logp and entropy (N,) and remembers what backward needs to know."""

    def __init__(self, n: int, like: torch.Tensor, labels: torch.Tensor | None, chunk: int, with_entropy: bool):
        self.dtype = _working_dtype(like.dtype)
        self.logp = None if labels is None else like.new_empty(n, dtype=self.dtype)
        self.entropy = like.new_empty(n, dtype=self.dtype) if with_entropy else None
        self.labels, self.impossible = labels, False
        self.slices = [slice(start, start + chunk) for start in range(0, n, chunk)]

    def take(self, s: slice, log_p: torch.Tensor) -> None:
        if self.labels is not None:
            self.logp[s] = log_p.gather(-1, self.labels[s].unsqueeze(-1)).squeeze(-1)
        if self.entropy is not None:
            self.entropy[s], impossible = _entropy(log_p)
            self.impossible |= impossible


def _part(s: slice, *tensors: torch.Tensor | None) -> list[torch.Tensor | None]:
    return [None if x is None else x[s] for x in tensors]


class _FromLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, labels, chunk, with_entropy, inplace_backward):
        chunks = _Chunks(logits.shape[0], logits, labels, chunk, with_entropy)
        for s in chunks.slices:
            chunks.take(s, _log_softmax(logits[s], chunks.dtype))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(logits, labels, chunks.entropy)
        ctx.chunks = (chunks.slices, chunks.dtype, chunks.impossible)
        ctx.inplace = inplace_backward
        return chunks.logp, chunks.entropy

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_logp, grad_entropy):
        logits, labels, entropy = ctx.saved_tensors
        if grad_logp is None and grad_entropy is None:
            return None, None, None, None, None
        slices, dtype, impossible = ctx.chunks
        grad = logits.data if ctx.inplace else torch.empty_like(logits)
        for s in slices:
            log_p = _log_softmax(logits[s], dtype)
            log_p = _bounded(log_p) if impossible else log_p
            grad[s] = _backward_chunk(log_p, *_part(s, labels, entropy, grad_logp, grad_entropy))
        return grad, None, None, None, None


class _FromHidden(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, labels, temperature, chunk, with_entropy):
        chunks = _Chunks(hidden.shape[0], hidden, labels, chunk, with_entropy)
        log_p = None
        for s in chunks.slices:
            log_p = _log_softmax(F.linear(hidden[s], weight), chunks.dtype, temperature)
            chunks.take(s, log_p)
        kept = log_p if len(chunks.slices) == 1 else None  # one chunk: cheaper to keep than to compute again
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hidden, weight, labels, chunks.entropy, kept)
        ctx.chunks = (chunks.slices, chunks.dtype, chunks.impossible)
        ctx.temperature = temperature
        return chunks.logp, chunks.entropy

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_logp, grad_entropy):
        hidden, weight, labels, entropy, kept = ctx.saved_tensors
        if grad_logp is None and grad_entropy is None:
            return None, None, None, None, None, None
        slices, dtype, impossible = ctx.chunks
        want_hidden, want_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if want_hidden else None
        # several chunks are summed in the working precision: a bfloat16 sum would lose small ones
        grad_weight = torch.zeros_like(weight, dtype=dtype if len(slices) > 1 else weight.dtype) if want_weight else None
        for s in slices:
            log_p = kept if kept is not None else _log_softmax(F.linear(hidden[s], weight), dtype, ctx.temperature)
            log_p = _bounded(log_p) if impossible else log_p
            grad = _backward_chunk(log_p, *_part(s, labels, entropy, grad_logp, grad_entropy))
            if ctx.temperature != 1.0:
                grad.div_(ctx.temperature)
            grad = grad.to(hidden.dtype)
            if want_hidden:
                grad_hidden[s] = grad @ weight
            if want_weight:
                grad_weight += grad.t() @ hidden[s]
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None, None, None


@torch.no_grad()
def calculate_sum_pi_squared_from_logits(logits: torch.Tensor, chunk_size: int | None = None) -> torch.Tensor:
    """``sum_v p_v^2`` of ``p = softmax(logits)``: ``(..., V)`` -> float32 ``(...)`` (float64 if the input is). No gradient."""
    shape, flat = logits.shape[:-1], logits.reshape(-1, logits.shape[-1])
    sums = [_sum_pi_squared(_log_softmax(part, _working_dtype(logits.dtype))) for part in flat.split(_tokens_per_chunk(chunk_size, flat.shape[-1]))]
    return torch.cat(sums).reshape(shape)


@torch.no_grad()
def chunked_sum_pi_squared(
    hidden: torch.Tensor, head_weight: torch.Tensor, temperature: float = 1.0, chunk_size: int | None = None
) -> torch.Tensor:
    """``sum_v p_v^2`` of ``p = softmax(hidden @ head_weight.T / temperature)``: hidden (N, H), head_weight (V, H) -> (N,), as
    :func:`chunked_logprobs_entropy` computes it. No gradient."""
    hidden, head_weight = _as_computed(hidden, head_weight)
    chunk, dtype = _tokens_per_chunk(chunk_size, head_weight.shape[0]), _working_dtype(hidden.dtype)
    return torch.cat([_sum_pi_squared(_log_softmax(F.linear(part, head_weight), dtype, temperature)) for part in hidden.split(chunk)])


def _sum_pi_squared(log_p: torch.Tensor) -> torch.Tensor:
    return log_p.exp_().square_().sum(-1)


def logprobs_entropy_from_logits(
    logits: torch.Tensor,
    labels: torch.Tensor | None,
    *,
    chunk_size: int | None = None,
    with_entropy: bool = True,
    inplace_backward: bool = False,
):
    """``(logp, entropy)`` of logits ``(..., V)`` and labels ``(...)``; see the module docstring.

    ``chunk_size``: tokens a chunk (default: 256 MiB of float32). ``logp`` is None without labels,
    ``entropy`` without ``with_entropy``. ``inplace_backward`` writes the gradient over the logits'
    own memory; only where nothing reads the logits afterwards.
    """
    shape, vocab = logits.shape[:-1], logits.shape[-1]
    if labels is not None and labels.shape != shape:
        raise ValueError(f"labels {tuple(labels.shape)} must have the logits' shape without the vocabulary {tuple(shape)}")
    flat_labels = None if labels is None else labels.reshape(-1)
    out = _FromLogits.apply(
        logits.reshape(-1, vocab), flat_labels, _tokens_per_chunk(chunk_size, vocab), with_entropy, inplace_backward
    )
    return tuple(None if x is None else x.reshape(shape) for x in out)


def logprobs_from_logits(
    logits: torch.Tensor, labels: torch.Tensor, inplace_backward: bool = False, chunk_size: int | None = None
) -> torch.Tensor:
    """``log softmax(logits)[label]``: logits ``(..., V)``, labels ``(...)`` -> float32 ``(...)``."""
    return logprobs_entropy_from_logits(
        logits, labels, chunk_size=chunk_size, with_entropy=False, inplace_backward=inplace_backward
    )[0]


def entropy_from_logits(logits: torch.Tensor, chunk_size: int | None = None) -> torch.Tensor:
    """Entropy in nats of ``softmax(logits)``: ``(..., V)`` -> float32 ``(...)``."""
    return logprobs_entropy_from_logits(logits, None, chunk_size=chunk_size)[1]


def entropy_from_logits_with_chunking(logits: torch.Tensor, chunk_size: int = 2048) -> torch.Tensor:
    """:func:`entropy_from_logits` with VeRL's name and default chunk for the chunked form."""
    return entropy_from_logits(logits, chunk_size)


def _as_computed(hidden: torch.Tensor, head_weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both in the dtype of their product: autocast's, or that of ``hidden``."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    return hidden.to(dtype), head_weight.to(dtype)


def chunked_logprobs_entropy(
    hidden: torch.Tensor,
    head_weight: torch.Tensor,
    labels: torch.Tensor,
    temperature: float = 1.0,
    chunk_size: int | None = None,
    with_entropy: bool = False,
):
    """``(logp, entropy or None)`` of ``softmax(hidden @ head_weight.T / temperature)``.

    ``hidden`` (N, H), ``head_weight`` (V, H), ``labels`` (N,) in [0, V) -> float32 (N,) each. The
    logits are computed ``chunk_size`` tokens at a time (default: 256 MiB of float32) and again in
    backward; gradients reach ``hidden`` and ``head_weight``. Under FSDP call it inside the root
    module's forward, where the head's weight is gathered. Under autocast the product runs in the
    autocast dtype, as a Linear's would. Raises ``ValueError`` for shapes that do not fit and a
    temperature that is not positive.
    """
    if hidden.dim() != 2 or head_weight.dim() != 2 or hidden.shape[1] != head_weight.shape[1]:
        raise ValueError(f"need hidden (N, H) and head_weight (V, H), got {tuple(hidden.shape)} and {tuple(head_weight.shape)}")
    if labels.shape != hidden.shape[:1]:
        raise ValueError(f"labels must have shape ({hidden.shape[0]},), got {tuple(labels.shape)}")
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature} (for greedy sampling score at temperature 1)")
    return _FromHidden.apply(
        *_as_computed(hidden, head_weight),
        labels,
        float(temperature),
        _tokens_per_chunk(chunk_size, head_weight.shape[0]),
        with_entropy,
    )
