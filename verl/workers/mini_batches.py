"""The update loop that actor and critic share: mini-batches, micro-batches, one optimizer step each.

Every rank holds its share of every mini-batch; shares differ in size and may be empty. Losses are normalised by counts of
the WHOLE mini-batch, so gradients and metrics are sums over micro-batches and ranks, however the rows were cut.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from verl.protocol import DataProto
from verl.utils.fsdp_utils import accumulate_gradients, clip_grad_norm
from verl.workers.micro_batch import (
    BatchLimits,
    MicroBatch,
    empty_micro_batch,
    make_micro_batch,
    most_over_ranks,
    selected_positions,
    split_rows,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MiniBatch:
    """This rank's share of one mini-batch, and what it must know of the whole.

    Attributes:
        groups: rows of the batch, a list a micro-batch.
        forwards: micro-batches that every rank runs (those of the busiest).
        tokens, sequences: trained tokens, and sequences with at least one, over all ranks.
        sequence_tokens: (B,) for every row of the batch the trained tokens of the sequence that it is a part of. A sequence
            is a trajectory, whose turns may be rows (`non_tensor_batch["traj_id"]`; a row each where there is none).
    """

    index: int
    groups: list[list[int]]
    forwards: int
    tokens: int
    sequences: int
    sequence_tokens: torch.Tensor

    def counts(self, rows: torch.Tensor, loss_scale_factor: float) -> dict:
        """What `agg_loss` must know of the whole mini-batch, for a micro-batch of `rows` (b,)."""
        return {
            "dp_size": 1,  # gradients are summed over the ranks, not averaged
            "batch_num_tokens": self.tokens,
            "global_batch_size": self.sequences,
            "loss_scale_factor": loss_scale_factor,
            "sequence_tokens": self.sequence_tokens[rows.to(self.sequence_tokens.device)].to(rows.device),
        }


class UpdateMetrics:
    """Metrics of an update: sums of global shares (averaged over the optimizer steps), totals and maxima."""

    def __init__(self):
        self.shares: dict[str, float] = {}
        self.totals: dict[str, float] = {}
        self.maxima: dict[str, float] = {}

    def share(self, name: str, value: torch.Tensor | float) -> None:
        """Add one micro-batch's part of a mean over a mini-batch; the parts of all ranks add up to the mean."""
        self.shares[name] = self.shares.get(name, 0.0) + float(value)

    def total(self, name: str, value: torch.Tensor | float) -> None:
        """Add to a sum over everything."""
        self.totals[name] = self.totals.get(name, 0.0) + float(value)

    def maximum(self, name: str, value: torch.Tensor | float) -> None:
        """Keep the largest value seen anywhere."""
        self.maxima[name] = max(self.maxima.get(name, -math.inf), float(value))

    def over_ranks(self, steps: int) -> dict[str, float]:
        """The global metrics, the same on every rank; all ranks call it together."""
        everyone = [(self.shares, self.totals, self.maxima)]
        if dist.is_initialized() and dist.get_world_size() > 1:
            mine, everyone = everyone[0], [None] * dist.get_world_size()
            dist.all_gather_object(everyone, mine)
        merged = UpdateMetrics()
        for shares, totals, maxima in everyone:
            for name, value in shares.items():
                merged.share(name, value / max(steps, 1))
            for name, value in totals.items():
                merged.total(name, value)
            for name, value in maxima.items():
                merged.maximum(name, value)
        return {**merged.shares, **merged.totals, **merged.maxima}


def plan_mini_batches(data: DataProto, limits: BatchLimits, device: torch.device) -> list[MiniBatch]:
    """Cut this rank's rows into mini-batches and those into micro-batches. All ranks call it together.

    Args:
        data: `response_mask` (B, T-1); `traj_id` (B,), rows of one trajectory, all of them on this rank and in one mini-batch
            (each row one where absent); `mini_batch` (B,) int, which mini-batch a row belongs to (all rows one where absent);
            `meta_info["num_mini_batches"]`, where a rank may lack rows of the last.
    """
    mask, keys = selected_positions(data), data.batch.keys()
    if "mini_batch" in keys:
        belongs = data.batch["mini_batch"].long()
    elif "mini_batch" in data.non_tensor_batch:
        belongs = torch.as_tensor(data.non_tensor_batch["mini_batch"].astype("int64"))
    else:
        belongs = torch.zeros(len(mask), dtype=torch.long)
    highest = int(belongs.max()) + 1 if len(belongs) else 0
    count = data.meta_info.get("num_mini_batches") or most_over_ranks([highest], device)[0]
    if highest > count:
        raise ValueError(f"mini_batch {highest - 1} in a batch whose meta_info says num_mini_batches={count}")

    input_ids = data.batch["input_ids"]
    groups = [split_rows(input_ids, mask, (belongs == index).nonzero().flatten().tolist(), limits) for index in range(count)]
    trained = mask.sum(dim=1)
    sequence_tokens, first = _by_sequence(data, trained)
    counts = torch.zeros(2, count, dtype=torch.long)
    counts[0].index_add_(0, belongs, trained)
    counts[1].index_add_(0, belongs, (first & (sequence_tokens > 0)).long())
    counts = counts.to(device)
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(counts)
    forwards = most_over_ranks([len(group) for group in groups], device)
    tokens, sequences = counts.tolist()
    return [MiniBatch(i, groups[i], forwards[i], tokens[i], sequences[i], sequence_tokens) for i in range(count) if forwards[i]]


def _by_sequence(data: DataProto, trained: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Trained tokens (B,) of each row's sequence, and whether it is the sequence's first row (B,), from those of each row."""
    ids = data.non_tensor_batch.get("traj_id")
    if ids is None:
        return trained, torch.ones_like(trained, dtype=torch.bool)
    _, first_rows, belongs = np.unique(ids, return_index=True, return_inverse=True)
    belongs = torch.from_numpy(belongs.reshape(-1))
    totals = torch.zeros(len(first_rows), dtype=trained.dtype).index_add_(0, belongs, trained)
    first = torch.zeros(len(trained), dtype=torch.bool)
    first[torch.from_numpy(first_rows)] = True
    return totals[belongs], first


def loss_scale_factor(config, data: DataProto) -> float:
    """The divisor of `seq-mean-token-sum-norm`: the config's, else `meta_info["loss_scale_factor"]` (the most tokens that a
    trajectory may have, where the caller knows), else the width of the batch. The same for every rank and micro-batch."""
    return config.get("loss_scale_factor") or data.meta_info.get("loss_scale_factor") or data.batch["response_mask"].shape[1]


def run_update(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: DataProto,
    loss_of: Callable[[MicroBatch, MiniBatch, UpdateMetrics, bool], torch.Tensor],
    *,
    limits: BatchLimits,
    epochs: int,
    grad_clip: float,
    keep_whole: bool,
    prefix: str,
    device: torch.device,
) -> dict[str, float]:
    """Run every mini-batch of `data` `epochs` times, with one optimizer step each. All ranks call it together.

    Args:
        loss_of: (micro-batch, its mini-batch, metrics to add to, whether no step was taken yet) -> scalar, this micro-batch's
            share of the mini-batch's loss. For a micro-batch without rows it must still run the forward and return a
            zero that reaches every parameter.
        keep_whole: whole parameters and gradients stay on every rank between micro-batches.
        prefix: "actor" or "critic", for `<prefix>/grad_norm`, `<prefix>/skipped_steps` and `perf/<prefix>_tokens`,
            `_tokens_computed` (padding counted, a shared prompt once) and `_padding` (share of computed positions).

    A step whose gradient norm is not finite is left out, warned of and counted.
    """
    plans = plan_mini_batches(data, limits, device)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    selected = data.batch["response_mask"].bool()
    metrics, steps, norms, skipped = UpdateMetrics(), 0, [], 0
    module.train()
    for _ in range(epochs):
        for mini in plans:
            optimizer.zero_grad(set_to_none=True)
            for index in range(mini.forwards):
                if keep_whole:
                    accumulate_gradients(module, is_last=index == mini.forwards - 1)
                if index < len(mini.groups):
                    micro = make_micro_batch(data.batch["input_ids"], selected, mini.groups[index], limits, device)
                else:
                    micro = empty_micro_batch(limits, device)
                loss_of(micro, mini, metrics, steps == 0).backward()
                metrics.total(f"perf/{prefix}_tokens", micro.real_tokens)
                metrics.total(f"perf/{prefix}_tokens_computed", micro.computed_tokens)
            norm = clip_grad_norm(parameters, grad_clip)
            steps += 1
            norms.append(norm)
            if math.isfinite(norm):
                optimizer.step()
            else:
                skipped += 1
                logger.warning("%s: gradient norm is %s, this optimizer step is skipped", prefix, norm)
    optimizer.zero_grad(set_to_none=True)
    result = metrics.over_ranks(steps)
    result[f"{prefix}/grad_norm"] = sum(norms) / max(steps, 1)
    result[f"{prefix}/skipped_steps"] = float(skipped)
    if computed := result.get(f"perf/{prefix}_tokens_computed"):
        result[f"perf/{prefix}_padding"] = max(0.0, 1.0 - result[f"perf/{prefix}_tokens"] / computed)
    return result


@torch.no_grad()
def run_forward(
    module: nn.Module,
    input_ids: torch.Tensor,
    selected: torch.Tensor,
    forward: Callable[[MicroBatch], tuple[torch.Tensor | None, ...]],
    limits: BatchLimits,
    device: torch.device,
) -> tuple[torch.Tensor | None, ...]:
    """Values at the selected positions of a batch, in matrices (B, T-1) on the CPU, zero elsewhere.

    Args:
        forward: micro-batch -> tensors (n,) at its selected positions. All ranks call it equally often.
    """
    groups = split_rows(input_ids, selected, range(len(selected)), limits)
    module.eval()
    results: list[torch.Tensor | None] | None = None
    for index in range(most_over_ranks([len(groups)], device)[0]):
        if index >= len(groups):
            forward(empty_micro_batch(limits, device))
            continue
        micro = make_micro_batch(input_ids, selected, groups[index], limits, device)
        values = forward(micro)
        if results is None:
            results = [None if value is None else torch.zeros(selected.shape) for value in values]
        for result, value in zip(results, values, strict=True):
            if result is not None:
                result[micro.rows, : micro.width] = micro.to_matrix(value).cpu()
    return tuple(results) if results is not None else ()
