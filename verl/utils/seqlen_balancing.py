"""Sequences of unequal length dealt evenly over ranks, and cut into micro-batches within a budget.

Two layouts, two costs of a micro-batch: *packed* (padding removed) computes the sum of its lengths,
*padded* computes rows times its longest. Neither ever exceeds the token budget here; a single
sequence that does is an error that names it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from verl.compat.group_partitions import calculate_workload, get_group_balanced_partitions
from verl.utils.micro_batch_cut import length_sorted_micro_batches, packed_micro_batches, split_to_count

__all__ = [
    "calculate_workload",
    "ceildiv",
    "roundup_divisible",
    "karmarkar_karp",
    "greedy_partition",
    "get_group_balanced_partitions",
    "get_seqlen_balanced_partitions",
    "log_seqlen_unbalance",
    "get_reverse_idx",
    "rearrange_micro_batches",
    "prepare_dynamic_batch",
    "restore_dynamic_batch",
    "length_sorted_micro_batches",
]


def ceildiv(a: int, b: int) -> int:
    """``a / b`` rounded up."""
    return -(a // -b)


def roundup_divisible(a: int, b: int) -> int:
    """The smallest multiple of ``b`` that is at least ``a``."""
    return ceildiv(a, b) * b


def karmarkar_karp(seqlen_list: Sequence[int], k_partitions: int, equal_size: bool = False) -> list[list[int]]:
    """Largest differencing (Karmarkar and Karp 1982, k-way): partitions of positions whose sums are
    close. A state is k subsets; the two states with the widest spread of sums are merged, largest
    sum to smallest. With ``equal_size`` the first states are k neighbours in sorted order, so all
    partitions get as many items.
    """
    k, serial = k_partitions, itertools.count()
    order = sorted(range(len(seqlen_list)), key=lambda i: (seqlen_list[i], i))
    if equal_size:
        if len(order) % k:
            raise ValueError(f"{len(order)} sequences cannot form {k} partitions of equal size")
        blocks = [order[i : i + k] for i in range(0, len(order), k)]
    else:
        blocks = [[i] for i in order]
    heap = []
    for block in blocks:  # subsets as (sum, items), in falling order of sum
        subsets = sorted([(seqlen_list[i], [i]) for i in block] + [(0, [])] * (k - len(block)), key=lambda s: -s[0])
        heapq.heappush(heap, (subsets[-1][0] - subsets[0][0], next(serial), subsets))
    while len(heap) > 1:
        (_, _, a), (_, _, b) = heapq.heappop(heap), heapq.heappop(heap)
        merged = [(x + y, xs + ys) for (x, xs), (y, ys) in zip(a, reversed(b), strict=True)]
        merged.sort(key=lambda s: -s[0])
        heapq.heappush(heap, (merged[-1][0] - merged[0][0], next(serial), merged))
    return [items for _, items in heap[0][2]] if heap else [[] for _ in range(k)]


def greedy_partition(seqlen_list: Sequence[int], k_partitions: int, equal_size: bool = False) -> list[list[int]]:
    """Longest first, each to the partition with the smallest sum (that is not full, with ``equal_size``)."""
    if equal_size and len(seqlen_list) % k_partitions:
        raise ValueError(f"{len(seqlen_list)} sequences cannot form {k_partitions} partitions of equal size")
    room = len(seqlen_list) // k_partitions if equal_size else len(seqlen_list)
    partitions: list[list[int]] = [[] for _ in range(k_partitions)]
    heap = [(0, p) for p in range(k_partitions)]
    for i in sorted(range(len(seqlen_list)), key=lambda i: (-seqlen_list[i], i)):
        total, p = heapq.heappop(heap)
        partitions[p].append(i)
        if len(partitions[p]) < room:
            heapq.heappush(heap, (total + seqlen_list[i], p))
    return partitions


def get_seqlen_balanced_partitions(seqlen_list: Sequence[int], k_partitions: int, equal_size: bool) -> list[list[int]]:
    """Positions of ``seqlen_list`` in ``k_partitions`` lists (sorted, none empty) with close sums.

    ``equal_size``: as many items in each. Raises ``ValueError`` where there are fewer sequences than
    partitions, or their number does not divide.
    """
    lengths = [int(n) for n in seqlen_list]
    if len(lengths) < k_partitions:
        raise ValueError(
            f"{len(lengths)} sequences cannot fill {k_partitions} partitions: raise the batch size or use fewer ranks"
        )
    partitions = karmarkar_karp(lengths, k_partitions, equal_size)
    if any(not p for p in partitions):  # zero-length sequences can leave one empty
        partitions = greedy_partition([n + 1 for n in lengths], k_partitions, equal_size)
    return [sorted(p) for p in partitions]


def log_seqlen_unbalance(seqlen_list: Sequence[int], partitions: Sequence[Sequence[int]], prefix: str) -> dict[str, float]:
    """Sums a rank before balancing (equal consecutive slices) and after: ``PREFIX/min``, ``max``,
    ``minmax_diff``, ``balanced_min``, ``balanced_max``, ``mean``."""
    k = len(partitions)
    bounds = [len(seqlen_list) * r // k for r in range(k + 1)]
    before = [sum(int(n) for n in seqlen_list[a:b]) for a, b in itertools.pairwise(bounds)]
    after = [sum(int(seqlen_list[i]) for i in p) for p in partitions]
    return {
        f"{prefix}/min": min(before),
        f"{prefix}/max": max(before),
        f"{prefix}/minmax_diff": max(before) - min(before),
        f"{prefix}/balanced_min": min(after),
        f"{prefix}/balanced_max": max(after),
        f"{prefix}/mean": sum(after) / k,
    }


def get_reverse_idx(idx_map: Sequence[int]) -> list[int]:
    """The inverse of a permutation: ``reverse[idx_map[i]] == i``."""
    reverse = [0] * len(idx_map)
    for position, index in enumerate(idx_map):
        reverse[index] = position
    return reverse


def _lengths(attention_mask: torch.Tensor) -> list[int]:
    if getattr(attention_mask, "is_nested", False):
        return attention_mask.offsets().diff().tolist()
    return attention_mask.sum(dim=-1).tolist()


def rearrange_micro_batches(
    batch: Any,
    max_token_len: int,
    dp_group: Any = None,
    num_batches_divided_by: int | None = None,
    same_micro_num_in_dp: bool = True,
    min_num_micro_batch: int | None = None,
    use_dynamic_bsz_balance: bool = True,
    padded: bool = False,
) -> tuple[list[Any], list[list[int]]]:
    """Cut ``batch`` into micro-batches of at most ``max_token_len`` tokens.

    ``batch``: a TensorDict (or anything indexable by a list of rows) with ``attention_mask`` (B, T).
    ``padded`` counts rows times the longest instead of the sum of lengths; ``use_dynamic_bsz_balance``
    puts the heaviest micro-batches first, so that ranks that step together carry alike. With
    ``dp_group`` (or ``same_micro_num_in_dp`` in an initialised group) all ranks get as many, a rank
    with too few rows ending in empty ones. Returns the micro-batches and their rows.

    Raises ``ValueError`` if one sequence alone exceeds the budget.
    """
    lengths = _lengths(batch["attention_mask"])
    rows = (
        length_sorted_micro_batches(lengths, max_token_len, padded=True)
        if padded
        else packed_micro_batches(lengths, max_token_len)
    )
    count = max(len(rows), min_num_micro_batch or 1)
    if same_micro_num_in_dp and dist.is_available() and dist.is_initialized():
        device = "cpu" if dist.get_backend(dp_group) == "gloo" else torch.accelerator.current_accelerator()
        largest = torch.tensor([count], device=device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=dp_group)
        count = int(largest.item())
    if num_batches_divided_by is not None:
        count = roundup_divisible(count, num_batches_divided_by)
    rows = split_to_count(rows, count, lengths, padded)
    if use_dynamic_bsz_balance:
        rows.sort(key=lambda part: -sum(lengths[i] ** 2 for i in part))
    return [batch[part] for part in rows], rows


def prepare_dynamic_batch(
    data: Any,
    max_token_len: int,
    dp_group: Any = None,
    num_batches_divided_by: int | None = None,
    same_micro_num_in_dp: bool = True,
    min_num_micro_batch: int | None = None,
    use_dynamic_bsz_balance: bool = True,
    padded: bool = False,
) -> tuple[list[Any], list[list[int]]]:
    """:func:`rearrange_micro_batches` for a DataProto: a list of DataProtos and their rows."""
    _, rows = rearrange_micro_batches(
        _Rows(data.batch["attention_mask"]),
        max_token_len,
        dp_group,
        num_batches_divided_by,
        same_micro_num_in_dp,
        min_num_micro_batch,
        use_dynamic_bsz_balance,
        padded,
    )
    return [data.select_idxs(part) for part in rows], rows


class _Rows:
    """Stands for a batch of which only the rows of each micro-batch are wanted."""

    def __init__(self, attention_mask: torch.Tensor):
        self.attention_mask = attention_mask

    def __getitem__(self, key: Any) -> Any:
        return self.attention_mask if key == "attention_mask" else None


def restore_dynamic_batch(data: torch.Tensor, batch_idx_list: Sequence[Sequence[int]]) -> torch.Tensor:
    """Rows of the concatenated micro-batches back in the order of the batch they were cut from."""
    order = list(itertools.chain.from_iterable(batch_idx_list))
    if len(order) != data.shape[0]:
        raise ValueError(f"the micro-batches hold {len(order)} rows, the tensor {data.shape[0]}")
    return data[get_reverse_idx(order)]
