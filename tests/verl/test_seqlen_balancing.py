"""Balance over ranks, budgets that hold, padding that stays small, and row orders that can be undone."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verl.utils.micro_batch_cut import cost, packed_micro_batches, padding_share, split_to_count
from verl.utils.seqlen_balancing import (
    ceildiv,
    get_reverse_idx,
    get_seqlen_balanced_partitions,
    greedy_partition,
    karmarkar_karp,
    length_sorted_micro_batches,
    log_seqlen_unbalance,
    prepare_dynamic_batch,
    rearrange_micro_batches,
    restore_dynamic_batch,
    roundup_divisible,
)

lengths_lists = st.lists(st.integers(1, 60), min_size=1, max_size=40)


def each_once(parts, n):
    return sorted(itertools.chain.from_iterable(parts)) == list(range(n))


@pytest.mark.parametrize("equal_size", [True, False])
def test_log_normal_lengths_on_eight_ranks(equal_size):
    lengths = np.ceil(np.exp(np.random.default_rng(0).normal(6, 1, 1024))).astype(int)
    parts = get_seqlen_balanced_partitions(lengths, 8, equal_size)
    sums = [lengths[p].sum() for p in parts]
    assert each_once(parts, 1024)
    assert max(sums) / np.mean(sums) <= 1.05
    if equal_size:
        assert {len(p) for p in parts} == {128}
    report = log_seqlen_unbalance(lengths.tolist(), parts, "seqlen")
    assert report["seqlen/balanced_max"] == max(sums) and report["seqlen/mean"] == pytest.approx(np.mean(sums))
    assert report["seqlen/minmax_diff"] == report["seqlen/max"] - report["seqlen/min"] > max(sums) - min(sums)


@settings(max_examples=60, deadline=None)
@given(lengths_lists, st.integers(1, 6), st.booleans())
def test_partitions_hold_every_sequence_once(lengths, k, equal_size):
    if equal_size:
        lengths = lengths[: len(lengths) // k * k]
    if len(lengths) < k:
        with pytest.raises(ValueError, match="cannot fill"):
            get_seqlen_balanced_partitions(lengths, k, equal_size)
        return
    for parts in (
        get_seqlen_balanced_partitions(lengths, k, equal_size),
        karmarkar_karp(lengths, k, equal_size),
        greedy_partition(lengths, k, equal_size),
    ):
        assert len(parts) == k and each_once(parts, len(lengths))
        if equal_size:
            assert {len(p) for p in parts} == {len(lengths) // k}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=8), st.integers(2, 3))
def test_differencing_is_near_the_best_partition(lengths, k):
    """Against all assignments: the largest sum is at most 4/3 of the best (the bound of longest-first)."""
    if len(lengths) < k:
        return
    best = min(
        max(sum(n for n, a in zip(lengths, assignment, strict=True) if a == p) for p in range(k))
        for assignment in itertools.product(range(k), repeat=len(lengths))
    )
    got = max(sum(lengths[i] for i in p) for p in get_seqlen_balanced_partitions(lengths, k, equal_size=False))
    assert best <= got <= best * (4 / 3)


def test_zero_lengths_leave_no_partition_empty():
    parts = get_seqlen_balanced_partitions([0, 0, 5], 3, equal_size=False)
    assert each_once(parts, 3) and all(parts)


def test_equal_size_must_divide():
    with pytest.raises(ValueError, match="equal size"):
        get_seqlen_balanced_partitions([1, 2, 3], 2, equal_size=True)


@settings(max_examples=80, deadline=None)
@given(lengths_lists, st.integers(60, 300), st.booleans())
def test_no_micro_batch_exceeds_the_budget(lengths, budget, padded):
    parts = length_sorted_micro_batches(lengths, budget, padded)
    assert each_once(parts, len(lengths)) and all(parts)
    assert all(cost(part, lengths, padded) <= budget for part in parts)
    if padded:
        assert padding_share(parts, lengths) <= 0.05
    packed = packed_micro_batches(lengths, budget)
    assert each_once(packed, len(lengths)) and all(sum(lengths[i] for i in part) <= budget for part in packed)


def best_padded_cost(lengths, budget, overhead):
    """The cheapest contiguous cut of the sorted lengths, by trying all."""
    ordered = sorted(lengths)
    best = float("inf")
    for bits in itertools.product([0, 1], repeat=len(ordered) - 1):
        cuts = [0, *(i + 1 for i, bit in enumerate(bits) if bit), len(ordered)]
        costs = [(b - a) * ordered[b - 1] for a, b in itertools.pairwise(cuts)]
        if max(costs) <= budget:
            best = min(best, sum(costs) + overhead * len(costs))
    return best


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=9), st.integers(20, 80), st.integers(0, 40))
def test_the_cut_is_the_cheapest(lengths, budget, overhead):
    from verl.utils.micro_batch_cut import _optimal_cut

    ordered = np.sort(np.asarray(lengths))
    cuts = _optimal_cut(ordered, budget, overhead)
    costs = [(b - a) * int(ordered[b - 1]) for a, b in itertools.pairwise(cuts)]
    assert max(costs) <= budget
    assert sum(costs) + overhead * len(costs) == pytest.approx(best_padded_cost(lengths, budget, overhead))


def test_laptop_lengths_pad_little_in_few_micro_batches():
    lengths = np.clip(np.random.default_rng(1).normal(240, 60, 256), 60, 420).astype(int).tolist()
    parts = length_sorted_micro_batches(lengths, 16_384, padded=True)
    assert padding_share(parts, lengths) <= 0.05
    assert len(parts) <= 3 * ceildiv(sum(lengths), 16_384)


def test_a_sequence_over_the_budget_is_named():
    for fn in (packed_micro_batches, length_sorted_micro_batches):
        with pytest.raises(ValueError, match="sequence 1 has 11 tokens, more than the budget of 10"):
            fn([3, 11, 4], 10)


@settings(max_examples=40, deadline=None)
@given(lengths_lists, st.integers(60, 200), st.integers(0, 12), st.booleans())
def test_exactly_so_many_micro_batches(lengths, budget, more, padded):
    parts = length_sorted_micro_batches(lengths, budget, padded)
    wanted = len(parts) + more
    split = length_sorted_micro_batches(lengths, budget, padded, count=wanted)
    assert len(split) == wanted and each_once(split, len(lengths))
    assert all(cost(part, lengths, padded) <= budget for part in split)
    assert wanted > len(lengths) or all(split)  # empty ones only once every row is alone
    with pytest.raises(ValueError, match="were asked for"):
        split_to_count(parts, len(parts) - 1, lengths, padded)


def test_no_sequences_at_all():
    assert length_sorted_micro_batches([], 10) == [] and packed_micro_batches([], 10) == []
    assert length_sorted_micro_batches([], 10, count=2) == [[], []]


class Batch(dict):
    """The little of a TensorDict that is needed: tensors by key, rows by index."""

    def __getitem__(self, key):
        return dict.__getitem__(self, key) if isinstance(key, str) else Batch({k: v[key] for k, v in self.items()})


@settings(max_examples=40, deadline=None)
@given(lengths_lists, st.integers(60, 200), st.booleans(), st.integers(1, 4))
def test_dynamic_batches_and_back(lengths, budget, padded, divisor):
    width = max(lengths)
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    batch = Batch(attention_mask=mask, value=torch.arange(len(lengths)))
    parts, rows = rearrange_micro_batches(batch, budget, padded=padded, num_batches_divided_by=divisor)
    assert len(parts) % divisor == 0 and each_once(rows, len(lengths))
    assert all(cost(part, lengths, padded) <= budget for part in rows)
    squares = [sum(lengths[i] ** 2 for i in part) for part in rows]
    assert squares == sorted(squares, reverse=True)
    values = torch.cat([part["value"] for part in parts])
    assert restore_dynamic_batch(values, rows).tolist() == list(range(len(lengths)))

    data = SimpleNamespace(batch=batch, select_idxs=lambda part: batch[part])
    again, same_rows = prepare_dynamic_batch(data, budget, padded=padded, num_batches_divided_by=divisor)
    assert same_rows == rows and all(torch.equal(a["value"], b["value"]) for a, b in zip(again, parts, strict=True))


def test_small_helpers():
    assert [ceildiv(7, 2), ceildiv(6, 2), roundup_divisible(7, 4)] == [4, 3, 8]
    assert get_reverse_idx([2, 0, 1]) == [1, 2, 0]
    with pytest.raises(ValueError, match="hold 2 rows, the tensor 3"):
        restore_dynamic_batch(torch.zeros(3), [[0], [1]])
