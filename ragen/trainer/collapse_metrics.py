"""Has the policy's reasoning collapsed? Two ways it can (RAGEN's diagnostics), told apart here:

- *entropy collapse*: given its prompt the reasoning hardly varies, H(R|X) falls;
- *template collapse*: the reasoning no longer depends on the prompt, I(X;R) falls, even while H(R|X)
  is high.

Each reasoning r_i, sampled for prompt x_{o(i)}, is scored under all N prompts of the step,
``L_ij = log p(r_i | x_j)`` (:func:`cross_scores`). Under a uniform choice among the N prompts::

    H(R|X) = -mean_i L_{i,o(i)}
    H(R)   = -mean_i log( 1/N sum_j exp L_ij )
    I(X;R) = H(R) - H(R|X)                       at most log N in expectation
    retrieval accuracy = share of i with argmax_j L_ij = o(i)      chance: 1/N

in nats a sequence (``*_seq*``), and for comparison over runs with L_ij divided by the length of r_i.
Which tokens are a prompt and which a reasoning: ``ragen.trainer.thoughts``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from ragen.trainer.thoughts import Thought

#: (input_ids, attention_mask (B, T), response_mask (B, T-1)) -> log-probabilities (B, T-1) of input_ids[:, 1:] where the
#: response_mask is true
LogProbFn = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def cross_scores(
    prompts: Sequence[Sequence[int]],
    reasonings: Sequence[Sequence[int]],
    log_prob_fn: LogProbFn,
    pad_token_id: int = 0,
    rows_per_call: int = 128,
) -> np.ndarray:
    """``L`` (M, N): summed log-probability of each of M reasonings after each of N prompts, by M x N
    teacher-forced rows, right padded, at most ``rows_per_call`` in one call of ``log_prob_fn``."""
    # prompt by prompt: rows that begin alike stand together, and may be computed with their beginning shared
    pairs = [(i, j) for j in range(len(prompts)) for i in range(len(reasonings))]
    scores = np.zeros((len(reasonings), len(prompts)))
    for at in range(0, len(pairs), rows_per_call):
        part = pairs[at : at + rows_per_call]
        rows = [list(prompts[j]) + list(reasonings[i]) for i, j in part]
        width = max(map(len, rows))
        ids = torch.tensor([row + [pad_token_id] * (width - len(row)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows])[:, None]
        begins = torch.tensor([len(prompts[j]) for _, j in part])[:, None]
        column = torch.arange(width)[None]
        scored = (column >= begins) & (column < lengths)
        log_probs = log_prob_fn(ids, (column < lengths).long(), scored[:, 1:])
        sums = (log_probs.double() * scored[:, 1:]).sum(-1)
        for (i, j), value in zip(part, sums.tolist(), strict=True):
            scores[i, j] = value
    return scores


def _log_mean_exp(scores: np.ndarray) -> np.ndarray:
    top = scores.max(axis=1, keepdims=True)
    return (top + np.log(np.exp(scores - top).mean(axis=1, keepdims=True)))[:, 0]


def collapse_metrics(
    scores: np.ndarray, own: Sequence[int], lengths: Sequence[int], prefix: str = "collapse"
) -> dict[str, float]:
    """RAGEN's metrics from ``L`` (M, N), the N prompts all different: ``own`` (M,) is the column of each
    reasoning's prompt, ``lengths`` (M,) its tokens. Raises ``ValueError`` for fewer than two prompts or an
    empty reasoning."""
    scores, own = np.asarray(scores, dtype=np.float64), np.asarray(own)
    count, prompts = scores.shape
    if prompts < 2:
        raise ValueError(f"collapse metrics compare prompts: got {prompts}, need 2 or more (es_manager.train.env_groups)")
    if len(lengths) != count or min(lengths, default=0) < 1:
        raise ValueError("every reasoning needs a length of at least one token; leave out empty ones")
    rows = np.arange(count)
    per_token = scores / np.asarray(lengths, dtype=np.float64)[:, None]
    accuracy, chance = float((scores.argmax(axis=1) == own).mean()), 1.0 / prompts
    found = {
        "conditional_entropy_est": -float(per_token[rows, own].mean()),
        "reasoning_entropy_est": -float(_log_mean_exp(per_token).mean()),
        "conditional_entropy_seq_est": -float(scores[rows, own].mean()),
        "reasoning_entropy_seq_est": -float(_log_mean_exp(scores).mean()),
        "mi_upper_bound": math.log(prompts),
        "retrieval_accuracy": accuracy,
        "retrieval_chance_level": chance,
        "retrieval_above_chance": accuracy - chance,
    }
    found["mi_estimate"] = found["reasoning_entropy_est"] - found["conditional_entropy_est"]
    found["mi_seq_estimate"] = found["reasoning_entropy_seq_est"] - found["conditional_entropy_seq_est"]
    return {f"{prefix}/{name}": value for name, value in found.items()}


def compute_collapse_metrics(
    thoughts: Sequence[Thought],
    log_prob_fn: LogProbFn,
    pad_token_id: int = 0,
    rows_per_call: int = 128,
    prefix: str = "collapse",
) -> dict[str, float]:
    """The diagnostics of a sample of thoughts. Costs (thoughts x different prompts) rows of ``log_prob_fn``.
    Returns {} where there are fewer than two different prompts."""
    column: dict[tuple[int, ...], int] = {}
    prompts = []
    for thought in thoughts:
        if thought.asked not in column:
            column[thought.asked] = len(prompts)
            prompts.append(thought.prompt)
    if len(prompts) < 2:
        return {}
    scores = cross_scores(prompts, [t.tokens for t in thoughts], log_prob_fn, pad_token_id, rows_per_call)
    return collapse_metrics(scores, [column[t.asked] for t in thoughts], [len(t.tokens) for t in thoughts], prefix)
