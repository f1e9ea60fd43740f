"""Where to cut a rank's sequences into micro-batches so that none exceeds the token budget."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

#: padding share of the computed positions that a padded cut stays under if the budget allows it
MAX_PADDING = 0.05


def _check_budget(lengths: Sequence[int], max_tokens: int) -> None:
    if lengths and max(lengths) > max_tokens:
        worst = max(range(len(lengths)), key=lengths.__getitem__)
        raise ValueError(
            f"sequence {worst} has {lengths[worst]} tokens, more than the budget of {max_tokens} a micro-batch: "
            "raise ppo_max_token_len_per_gpu (log_prob_max_token_len_per_gpu) or shorten episodes (max_model_len)"
        )


def cost(part: Sequence[int], lengths: Sequence[int], padded: bool) -> int:
    """Positions that a micro-batch of these rows computes."""
    if not part:
        return 0
    return len(part) * max(lengths[i] for i in part) if padded else sum(lengths[i] for i in part)


def padding_share(parts: Sequence[Sequence[int]], lengths: Sequence[int]) -> float:
    """1 - real / computed positions of padded micro-batches."""
    computed = sum(cost(part, lengths, padded=True) for part in parts)
    return 1.0 - sum(lengths[i] for part in parts for i in part) / computed if computed else 0.0


def packed_micro_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Rows in as few balanced micro-batches as keep each sum of lengths within ``max_tokens``."""
    from verl.utils.seqlen_balancing import get_seqlen_balanced_partitions

    lengths = [int(n) for n in lengths]
    _check_budget(lengths, max_tokens)
    if not lengths:
        return []
    for k in range(max(1, -(-sum(lengths) // max_tokens)), len(lengths)):
        parts = get_seqlen_balanced_partitions(lengths, k, equal_size=False)
        if all(cost(part, lengths, padded=False) <= max_tokens for part in parts):
            return parts
    return [[i] for i in range(len(lengths))]


def _optimal_cut(sorted_lengths: np.ndarray, max_tokens: int, overhead: float) -> list[int]:
    """Cut points of ascending lengths that minimise ``sum(rows * longest + overhead)`` over
    micro-batches within the budget, by dynamic programming: ``best[j]`` is the cost of the first j."""
    n = len(sorted_lengths)
    best, start = np.zeros(n + 1), np.zeros(n + 1, dtype=np.int64)
    for j in range(1, n + 1):
        width = max(int(sorted_lengths[j - 1]), 1)
        first = max(0, j - max_tokens // width)  # more rows would exceed the budget
        totals = best[first:j] + width * (j - np.arange(first, j)) + overhead
        k = int(totals.argmin())
        best[j], start[j] = totals[k], first + k
    cuts, j = [n], n
    while j > 0:
        j = int(start[j])
        cuts.append(j)
    return cuts[::-1]


def length_sorted_micro_batches(
    lengths: Sequence[int], max_tokens: int, padded: bool = True, max_padding: float = MAX_PADDING, count: int | None = None
) -> list[list[int]]:
    """Rows sorted by length and cut into micro-batches within ``max_tokens``.

    Padded: the cost of a micro-batch is rows times its longest; of the cuts that waste at most
    ``max_padding`` of the computed positions, one with few micro-batches (the price of opening one is
    halved until the padding fits). Packed: the sum of lengths, in as few as possible.
    ``count`` asks for exactly so many (see :func:`split_to_count`), as ranks that step together need.
    Raises ``ValueError`` if one sequence alone exceeds the budget, or the cut needs more than ``count``.
    """
    lengths = [int(n) for n in lengths]
    _check_budget(lengths, max_tokens)
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    parts: list[list[int]] = []
    if order and padded:
        ascending = np.asarray([lengths[i] for i in order])
        overhead = float(max_tokens)
        while True:
            cuts = _optimal_cut(ascending, max_tokens, overhead)
            parts = [order[a:b] for a, b in pairwise(cuts)]
            if padding_share(parts, lengths) <= max_padding or overhead < 1:
                break
            overhead /= 2
    else:
        total = max_tokens + 1
        for i in order:
            if total + lengths[i] > max_tokens:
                parts.append([])
                total = 0
            parts[-1].append(i)
            total += lengths[i]
    return parts if count is None else split_to_count(parts, count, lengths, padded)


def split_to_count(parts: Sequence[Sequence[int]], count: int, lengths: Sequence[int], padded: bool) -> list[list[int]]:
    """Exactly ``count`` micro-batches: the most costly are halved, which never exceeds a budget that
    they kept; once all hold one row, empty ones are added at the end. Raises ``ValueError`` if there
    are more than ``count`` already."""
    parts = [list(part) for part in parts]
    if len(parts) > count:
        raise ValueError(f"the token budget needs {len(parts)} micro-batches, {count} were asked for")
    while len(parts) < count:
        splittable = [p for p in range(len(parts)) if len(parts[p]) > 1]
        if not splittable:
            return parts + [[] for _ in range(count - len(parts))]
        p = max(splittable, key=lambda p: cost(parts[p], lengths, padded))
        middle = len(parts[p]) // 2
        parts[p : p + 1] = [parts[p][:middle], parts[p][middle:]]
    return parts
