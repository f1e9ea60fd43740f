"""Log-probability and entropy of tokens, computed in chunks of tokens with an exact gradient.

With ``l`` the logits of a token (divided by the temperature), ``p = softmax(l)``::

    logp  = l[label] - logsumexp(l)          d logp / d l = onehot(label) - p
    H     = - sum p log p                    d H / d l    = - p (log p + H)

Float32 (float64 if the input is) exists for one chunk of logits at a time. Backward computes the
chunk again instead of keeping it: from the logits in their own dtype, or in
:func:`chunked_logprobs_entropy` from the hidden states, so that no logits are kept at all. Where
all tokens fit one chunk (a small vocabulary) the float32 logits are kept and nothing is redone.
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


def _log_softmax_parts(logits: torch.Tensor, lse: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``(p, log p)`` of full-precision logits (n, V); log p is finite even where a logit is -inf."""
    logp = (logits - lse.unsqueeze(-1)).clamp_(min=torch.finfo(logits.dtype).min / 2)
    return logp.exp(), logp


def _forward_chunk(logits: torch.Tensor, labels: torch.Tensor | None, with_entropy: bool):
    """``(logp or None, entropy or None, logsumexp)`` of full-precision logits (n, V), each (n,)."""
    lse = torch.logsumexp(logits, dim=-1)
    logp = None if labels is None else logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1) - lse
    entropy = None
    if with_entropy:
        p, log_p = _log_softmax_parts(logits, lse)
        entropy = -p.mul_(log_p).sum(-1)
    return logp, entropy, lse


def _backward_chunk(logits, labels, lse, entropy, grad_logp, grad_entropy) -> torch.Tensor:
    """Gradient with respect to full-precision logits (n, V)."""
    p, log_p = _log_softmax_parts(logits, lse)
    if grad_entropy is None:
        grad = p.mul_(-grad_logp.unsqueeze(-1))
    else:
        coef = log_p.add_(entropy.unsqueeze(-1)).mul_(grad_entropy.unsqueeze(-1))
        if grad_logp is not None:
            coef.add_(grad_logp.unsqueeze(-1))
        grad = p.mul_(coef).neg_()
    if grad_logp is not None:
        grad.scatter_add_(-1, labels.unsqueeze(-1), grad_logp.unsqueeze(-1))
    return grad


class _FromLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, labels, chunk, with_entropy, inplace_backward):
        dtype, n = _working_dtype(logits.dtype), logits.shape[0]
        logp = None if labels is None else logits.new_empty(n, dtype=dtype)
        entropy = logits.new_empty(n, dtype=dtype) if with_entropy else None
        lse = logits.new_empty(n, dtype=dtype)
        for start in range(0, n, chunk):
            s = slice(start, start + chunk)
            lp, h, lse[s] = _forward_chunk(logits[s].to(dtype), None if labels is None else labels[s], with_entropy)
            if logp is not None:
                logp[s] = lp
            if with_entropy:
                entropy[s] = h
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(logits, labels, lse, entropy)
        ctx.chunk, ctx.inplace = chunk, inplace_backward
        return logp, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_logp, grad_entropy):
        logits, labels, lse, entropy = ctx.saved_tensors
        if grad_logp is None and grad_entropy is None:
            return None, None, None, None, None
        grad = logits.data if ctx.inplace else torch.empty_like(logits)
        for start in range(0, logits.shape[0], ctx.chunk):
            s = slice(start, start + ctx.chunk)
            part = [None if x is None else x[s] for x in (labels, lse, entropy, grad_logp, grad_entropy)]
            grad[s] = _backward_chunk(logits[s].to(lse.dtype), *part)
        return grad, None, None, None, None


class _FromHidden(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, labels, temperature, chunk, with_entropy):
        dtype, n = _working_dtype(hidden.dtype), hidden.shape[0]
        logp, lse = hidden.new_empty(n, dtype=dtype), hidden.new_empty(n, dtype=dtype)
        entropy = hidden.new_empty(n, dtype=dtype) if with_entropy else None
        logits = None
        for start in range(0, n, chunk):
            s = slice(start, start + chunk)
            logits = F.linear(hidden[s], weight).to(dtype).div_(temperature)
            logp[s], h, lse[s] = _forward_chunk(logits, labels[s], with_entropy)
            if with_entropy:
                entropy[s] = h
        kept = logits if n <= chunk else None  # one chunk: cheaper to keep than to compute again
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hidden, weight, labels, lse, entropy, kept)
        ctx.temperature, ctx.chunk = temperature, chunk
        return logp, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_logp, grad_entropy):
        hidden, weight, labels, lse, entropy, kept = ctx.saved_tensors
        if grad_logp is None and grad_entropy is None:
            return None, None, None, None, None, None
        want_hidden, want_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if want_hidden else None
        # several chunks are summed in the working precision: a bfloat16 sum would lose small chunks
        sum_dtype = weight.dtype if hidden.shape[0] <= ctx.chunk else lse.dtype
        grad_weight = torch.zeros_like(weight, dtype=sum_dtype) if want_weight else None
        for start in range(0, hidden.shape[0], ctx.chunk):
            s = slice(start, start + ctx.chunk)
            logits = kept if kept is not None else F.linear(hidden[s], weight).to(lse.dtype).div_(ctx.temperature)
            part = [None if x is None else x[s] for x in (labels, lse, entropy, grad_logp, grad_entropy)]
            grad = _backward_chunk(logits, *part).div_(ctx.temperature).to(hidden.dtype)
            if want_hidden:
                grad_hidden[s] = grad @ weight
            if want_weight:
                grad_weight += grad.t() @ hidden[s]
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None, None, None


def logprobs_entropy_from_logits(logits: torch.Tensor, labels: torch.Tensor | None, *, chunk_size: int | None = None,
                                 with_entropy: bool = True, inplace_backward: bool = False):
    """``(logp, entropy)`` of logits ``(..., V)`` and labels ``(...)``; see the module docstring.

    ``chunk_size``: tokens a chunk (default: 256 MiB of float32). ``logp`` is None without labels,
    ``entropy`` without ``with_entropy``. ``inplace_backward`` writes the gradient over the logits'
    own memory; only where nothing reads the logits afterwards.
    """
    shape, vocab = logits.shape[:-1], logits.shape[-1]
    if labels is not None and labels.shape != shape:
        raise ValueError(f"labels {tuple(labels.shape)} must have the logits' shape without the vocabulary {tuple(shape)}")
    flat_labels = None if labels is None else labels.reshape(-1)
    out = _FromLogits.apply(logits.reshape(-1, vocab), flat_labels, _tokens_per_chunk(chunk_size, vocab),
                            with_entropy, inplace_backward)
    return tuple(None if x is None else x.reshape(shape) for x in out)


def logprobs_from_logits(logits: torch.Tensor, labels: torch.Tensor, inplace_backward: bool = False,
                         chunk_size: int | None = None) -> torch.Tensor:
    """``log softmax(logits)[label]``: logits ``(..., V)``, labels ``(...)`` -> float32 ``(...)``."""
    return logprobs_entropy_from_logits(logits, labels, chunk_size=chunk_size, with_entropy=False,
                                        inplace_backward=inplace_backward)[0]


def entropy_from_logits(logits: torch.Tensor, chunk_size: int | None = None) -> torch.Tensor:
    """Entropy in nats of ``softmax(logits)``: ``(..., V)`` -> float32 ``(...)``."""
    return logprobs_entropy_from_logits(logits, None, chunk_size=chunk_size)[1]


def entropy_from_logits_with_chunking(logits: torch.Tensor, chunk_size: int = 2048) -> torch.Tensor:
    """:func:`entropy_from_logits` with VeRL's name and default chunk for the chunked form."""
    return entropy_from_logits(logits, chunk_size)


def chunked_logprobs_entropy(hidden: torch.Tensor, head_weight: torch.Tensor, labels: torch.Tensor,
                             temperature: float = 1.0, chunk_size: int | None = None, with_entropy: bool = False):
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
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    return _FromHidden.apply(hidden.to(dtype), head_weight.to(dtype), labels, float(temperature),
                             _tokens_per_chunk(chunk_size, head_weight.shape[0]), with_entropy)
