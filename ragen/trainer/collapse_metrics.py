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
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

#: (input_ids, attention_mask, position_ids), each (B, T) -> log-probabilities (B, T-1) of input_ids[:, 1:]
LogProbFn = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def first_turn_pairs(
    input_ids: torch.Tensor, response_mask: torch.Tensor, end_of_thought: Sequence[int] = ()
) -> tuple[list[list[int]], list[list[int]]]:
    """Prompt and first reply of every row: ``input_ids`` (B, T), ``response_mask`` (B, T-1), true where
    ``input_ids[:, 1:]`` was sampled. With ``end_of_thought`` (the tokens of ``</think>``) the reply is
    cut before it. Rows without a sampled token give an empty reply."""
    prompts, replies = [], []
    stop = list(end_of_thought)
    for ids, mask in zip(input_ids.tolist(), response_mask.bool().tolist(), strict=True):
        start = mask.index(True) if True in mask else len(mask)
        end = mask.index(False, start) if False in mask[start:] else len(mask)
        reply = ids[start + 1 : end + 1]
        if stop:
            cut = next((i for i in range(len(reply)) if reply[i : i + len(stop)] == stop), len(reply))
            reply = reply[:cut]
        prompts.append(ids[: start + 1])
        replies.append(reply)
    return prompts, replies


def cross_scores(
    prompts: Sequence[Sequence[int]],
    reasonings: Sequence[Sequence[int]],
    log_prob_fn: LogProbFn,
    pad_token_id: int = 0,
    rows_per_call: int = 64,
) -> np.ndarray:
    """``L`` (M, N): summed log-probability of each of M reasonings after each of N prompts, by M x N
    teacher-forced rows, right padded, at most ``rows_per_call`` in one call of ``log_prob_fn``."""
    pairs = [(i, j) for i in range(len(reasonings)) for j in range(len(prompts))]
    scores = np.zeros((len(reasonings), len(prompts)))
    for at in range(0, len(pairs), rows_per_call):
        part = pairs[at : at + rows_per_call]
        rows = [list(prompts[j]) + list(reasonings[i]) for i, j in part]
        width = max(map(len, rows))
        ids = torch.tensor([row + [pad_token_id] * (width - len(row)) for row in rows])
        attention = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        log_probs = log_prob_fn(ids, attention, torch.arange(width).expand_as(ids))
        for row, (i, j) in enumerate(part):
            begin = len(prompts[j]) - 1
            scores[i, j] = float(log_probs[row, begin : begin + len(reasonings[i])].double().sum())
    return scores


def _log_mean_exp(scores: np.ndarray) -> np.ndarray:
    top = scores.max(axis=1, keepdims=True)
    return (top + np.log(np.exp(scores - top).mean(axis=1, keepdims=True)))[:, 0]


def collapse_metrics(
    scores: np.ndarray, own: Sequence[int], lengths: Sequence[int], identical: Sequence[int] | None = None
) -> dict[str, float]:
    """RAGEN's metrics from ``L`` (M, N): ``own`` (M,) is the column of each reasoning's prompt, ``lengths``
    (M,) its tokens. ``identical`` (N,) gives columns with the same prompt the same number: retrieving
    either is right. Raises ``ValueError`` for fewer than two prompts or an empty reasoning."""
    scores, own = np.asarray(scores, dtype=np.float64), np.asarray(own)
    count, prompts = scores.shape
    if prompts < 2:
        raise ValueError(f"collapse metrics compare prompts: got {prompts}, need 2 or more (es_manager.train.env_groups)")
    if len(lengths) != count or min(lengths, default=0) < 1:
        raise ValueError("every reasoning needs a length of at least one token; leave out empty ones")
    rows = np.arange(count)
    per_token = scores / np.asarray(lengths, dtype=np.float64)[:, None]
    same = np.asarray(identical) if identical is not None else np.arange(prompts)
    hit = same[scores.argmax(axis=1)] == same[own]
    chance = float(np.mean([(same == same[o]).mean() for o in own]))
    metrics = {
        "collapse/conditional_entropy_est": -float(per_token[rows, own].mean()),
        "collapse/reasoning_entropy_est": -float(_log_mean_exp(per_token).mean()),
        "collapse/conditional_entropy_seq_est": -float(scores[rows, own].mean()),
        "collapse/reasoning_entropy_seq_est": -float(_log_mean_exp(scores).mean()),
        "collapse/mi_upper_bound": math.log(prompts),
        "collapse/retrieval_accuracy": float(hit.mean()),
        "collapse/retrieval_chance_level": chance,
        "collapse/retrieval_above_chance": float(hit.mean()) - chance,
    }
    metrics["collapse/mi_estimate"] = metrics["collapse/reasoning_entropy_est"] - metrics["collapse/conditional_entropy_est"]
    metrics["collapse/mi_seq_estimate"] = (
        metrics["collapse/reasoning_entropy_seq_est"] - metrics["collapse/conditional_entropy_seq_est"]
    )
    return metrics


def compute_collapse_metrics(
    input_ids: torch.Tensor,
    response_mask: torch.Tensor,
    groups: Sequence[object],
    log_prob_fn: LogProbFn,
    end_of_thought: Sequence[int] = (),
    pad_token_id: int = 0,
    rows_per_call: int = 64,
    max_samples: int | None = None,
) -> dict[str, float]:
    """The diagnostics of a step's batch, from the first turn of each trajectory.

    ``groups`` (B,): rows of one group share their prompt. Costs (reasonings x groups) rows of
    ``log_prob_fn``; ``max_samples`` takes so many reasonings, evenly spread over the batch. Returns {}
    where fewer than two groups have a reasoning. ``collapse/valid_thinking_rate`` is the share of rows
    that have one.
    """
    prompts, replies = first_turn_pairs(input_ids, response_mask, end_of_thought)
    valid = [i for i, reply in enumerate(replies) if reply]
    rate = len(valid) / max(1, len(replies))
    if max_samples is not None and len(valid) > max_samples:
        valid = [valid[len(valid) * k // max_samples] for k in range(max_samples)]
    column: dict[object, int] = {}
    representative = []
    for i in valid:
        if groups[i] not in column:
            column[groups[i]] = len(representative)
            representative.append(prompts[i])
    if len(representative) < 2:
        return {}
    numbers: dict[tuple[int, ...], int] = {}
    identical = [numbers.setdefault(tuple(p), len(numbers)) for p in representative]
    chosen = [replies[i] for i in valid]
    scores = cross_scores(representative, chosen, log_prob_fn, pad_token_id, rows_per_call)
    metrics = collapse_metrics(scores, [column[groups[i]] for i in valid], [len(r) for r in chosen], identical)
    return {**metrics, "collapse/valid_thinking_rate": rate}
