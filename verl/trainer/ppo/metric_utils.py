"""Numbers of a step under VeRL's keys: what the batch held, how long each part took, how fast it was.

Trajectories have many turns: the *response* is what the policy sampled (``response_mask``), the *prompt*
everything else that it read (``attention_mask`` less that), observations between turns included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from verl.compat.metric import reduce_metrics
from verl.compat.validation import bootstrap_metric, calc_maj_val, process_validation_metrics

__all__ = [
    "bootstrap_metric",
    "calc_maj_val",
    "compute_data_metrics",
    "compute_throughout_metrics",
    "compute_throughput_metrics",
    "compute_timing_metrics",
    "process_validation_metrics",
    "reduce_metrics",
    "token_weighted_mean",
]

#: sections of ``timing_raw`` whose time is told per token, and of which tokens
_PER_TOKEN = {
    "gen": "response",
    **dict.fromkeys(("old_log_prob", "ref", "values", "adv", "update_critic", "update_actor"), "all"),
}


def _compute_response_info(batch: Any) -> dict[str, torch.Tensor]:
    """``prompt_length`` and ``response_length`` (B,) of each row: tokens read and tokens sampled. In a batch of VeRL's form without
    a ``response_mask`` the response is the last columns, as many as ``responses`` has."""
    tensors = batch.batch
    attention = tensors["attention_mask"]
    response = tensors["response_mask"] if "response_mask" in tensors.keys() else attention[:, -tensors["responses"].shape[-1] :]
    sampled = response.sum(-1).double()
    return {"prompt_length": attention.sum(-1).double() - sampled, "response_length": sampled}


def _lengths(batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Sampled and all tokens of each row, (B,) each."""
    info = _compute_response_info(batch)
    return info["response_length"], info["response_length"] + info["prompt_length"]


def _spread(prefix: str, values: torch.Tensor) -> dict[str, float]:
    if values.numel() == 0:
        return {}
    values = values.double()
    return {f"{prefix}/mean": values.mean().item(), f"{prefix}/max": values.max().item(), f"{prefix}/min": values.min().item()}


def compute_data_metrics(
    batch: Any, use_critic: bool = True, max_response_length: int | None = None, max_prompt_length: int | None = None
) -> dict[str, float]:
    """Rewards, advantages, returns, values and lengths of a batch (a DataProto, or anything with tensors
    (B, T) in ``batch.batch``).

    Rewards are totals a row. Advantages, returns and values are over sampled tokens.
    ``critic/vf_explained_var`` is 1 - Var(returns - values) / Var(returns). Rows without a sampled token are counted in
    ``response/aborted_ratio`` and left out of ``response_length_non_aborted/*``. ``response_length/clip_ratio`` and
    ``prompt_length/clip_ratio``, the shares of rows that used up ``max_response_length`` sampled tokens or ``max_prompt_length``
    tokens read, are there where these are given; in a batch of VeRL's form, which holds ``prompts`` and ``responses`` side by
    side, they are the widths of these by default.
    """
    tensors = batch.batch
    mask = tensors["response_mask"].bool()
    response, total = _lengths(batch)
    metrics = {
        **_spread("critic/score", tensors["token_level_scores"].sum(-1)),
        **_spread("critic/rewards", tensors["token_level_rewards"].sum(-1)),
        **_spread("critic/advantages", tensors["advantages"][mask]),
        **_spread("critic/returns", tensors["returns"][mask]),
    }
    if use_critic:
        values, returns = tensors["values"][mask].double(), tensors["returns"][mask].double()
        metrics |= _spread("critic/values", values)
        if len(returns) > 1:
            metrics["critic/vf_explained_var"] = (1.0 - (returns - values).var() / (returns.var() + 1e-5)).item()
    if {"prompts", "responses"} <= set(tensors.keys()):  # alone, responses may be a whole row (input_ids without the first)
        max_response_length = max_response_length or tensors["responses"].shape[-1]
        max_prompt_length = max_prompt_length or tensors["prompts"].shape[-1]
    metrics |= {
        **_lengths_of("response_length", response, max_response_length),
        **_lengths_of("response_length_non_aborted", response[response > 0], max_response_length),
        **_lengths_of("prompt_length", total - response, max_prompt_length),
        "response/aborted_ratio": (response == 0).double().mean().item(),
    }
    columns = getattr(batch, "non_tensor_batch", {})
    for column, name in (("__num_turns__", "num_turns"), ("tool_call_counts", "tool_call_counts")):
        if column in columns:
            metrics |= _spread(name, torch.as_tensor(np.asarray(columns[column], dtype=np.float64)))
    return metrics


def _lengths_of(name: str, lengths: torch.Tensor, limit: int | None) -> dict[str, float]:
    metrics = _spread(name, lengths)
    if limit is not None and lengths.numel():
        metrics[f"{name}/clip_ratio"] = (lengths >= limit).double().mean().item()
    return metrics


def compute_timing_metrics(batch: Any, timing_raw: Mapping[str, float]) -> dict[str, float]:
    """``timing_s/NAME`` for each section of ``timing_raw`` (seconds), and ``timing_per_token_ms/NAME`` for
    those that work on tokens: generation per sampled token, the rest per token read (0 where there is none)."""
    response, total = (float(x.sum()) for x in _lengths(batch))
    tokens = {"response": response, "all": total}
    metrics = {f"timing_s/{name}": seconds for name, seconds in timing_raw.items()}
    for name, kind in _PER_TOKEN.items():
        if name in timing_raw:
            metrics[f"timing_per_token_ms/{name}"] = timing_raw[name] * 1000 / tokens[kind] if tokens[kind] else 0.0
    return metrics


def compute_throughput_metrics(batch: Any, timing_raw: Mapping[str, float], n_gpus: int) -> dict[str, float]:
    """``perf/total_num_tokens`` (``meta_info["global_token_num"]`` where it is, else the batch's own),
    ``perf/time_per_step`` (``timing_raw["step"]``, seconds) and ``perf/throughput``, tokens a second and
    device."""
    counted = getattr(batch, "meta_info", {}).get("global_token_num")
    tokens = float(np.sum(counted)) if counted is not None else float(_lengths(batch)[1].sum())
    seconds = timing_raw["step"]
    return {
        "perf/total_num_tokens": tokens,
        "perf/time_per_step": seconds,
        "perf/throughput": tokens / (seconds * n_gpus) if seconds else 0.0,
    }


#: the name VeRL's users import
compute_throughout_metrics = compute_throughput_metrics


def token_weighted_mean(metrics: Sequence[Mapping[str, float]], tokens: Sequence[float]) -> dict[str, float]:
    """Mean of micro-batch metrics that are means over tokens, each weighted by its number of trained
    tokens, so that the result does not depend on the cut. Micro-batches without a token do not count."""
    totals: dict[str, float] = {}
    weights: dict[str, float] = {}
    for piece, count in zip(metrics, tokens, strict=True):
        for key, value in piece.items():
            totals[key] = totals.get(key, 0.0) + value * count
            weights[key] = weights.get(key, 0.0) + count
    return {key: totals[key] / weights[key] for key in totals if weights[key]}
