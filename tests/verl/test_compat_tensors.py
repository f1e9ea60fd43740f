"""VeRL's helpers for groups, padded batches and statistics over ranks, against NumPy and real gloo ranks."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_cases import run_ranks

import verl.utils
from verl.utils.device import init_process_group
from verl.utils.groupwise import as_torch_index, group_mean_std
from verl.utils.model import compute_position_id_with_mask, create_random_mask
from verl.utils.torch_functional import (
    calculate_sum_pi_squared_from_logits,
    chunked_sum_pi_squared,
    distributed_masked_mean,
    distributed_mean_max_min_std,
    expand_as_nested,
)

groups = st.lists(st.integers(0, 4), min_size=1, max_size=12)


@given(groups, st.sampled_from(["int", "near", "half", "text", "digits", "tensor", "float tensor", "array", "uuid"]))
def test_labels_become_numbers_without_gaps(labels, kind):
    made = {
        "int": lambda: [x * 1000 - 7 for x in labels],
        "near": lambda: [x + 1e-9 for x in labels],
        "half": lambda: np.array(labels) + 0.5,
        "text": lambda: [f"group {x}" for x in labels],
        "digits": lambda: [f"0{x}" for x in labels],
        "tensor": lambda: torch.tensor(labels, dtype=torch.int16)[:, None],
        "float tensor": lambda: torch.tensor(labels, dtype=torch.float16) / 4,
        "array": lambda: np.array([f"u{x}" for x in labels], dtype=object),
        "uuid": lambda: [("a", x) for x in labels],
    }[kind]()
    found = as_torch_index(made, device="cpu")
    assert found.dtype == torch.long and found.shape == (len(labels),)
    assert sorted(set(found.tolist())) == list(range(len(set(labels))))
    same = np.array(labels)[:, None] == np.array(labels)
    np.testing.assert_array_equal(found.numpy()[:, None] == found.numpy(), same)
    if kind != "uuid":
        assert found.tolist() == [sorted(set(labels)).index(x) for x in labels]


def test_labels_of_different_types_stay_apart():
    assert as_torch_index(["x", "0042", 42, "x", None, (1, 2)], device="cpu").unique().numel() == 5
    assert as_torch_index([], device="cpu").shape == (0,)


@given(groups, st.floats(0, 0.5))
def test_group_mean_and_deviation(labels, floor):
    scores = np.random.default_rng(len(labels)).normal(size=len(labels))
    mean, std, count = group_mean_std(torch.tensor(scores), torch.tensor(labels), eps=floor, device="cpu")
    assert mean.shape == std.shape == count.shape == (max(labels) + 1,)
    for g in range(max(labels) + 1):
        members = scores[np.array(labels) == g]
        assert count[g] == len(members)
        if len(members) < 2:
            assert (mean[g], std[g]) == (0.0, 1.0)
        else:
            assert mean[g].item() == pytest.approx(members.mean(), abs=1e-5)
            assert std[g].item() == pytest.approx(np.sqrt(max(members.var(ddof=1), floor)), abs=1e-5)


def test_groups_at_verls_paths(monkeypatch):
    assert verl.utils.as_torch_index is as_torch_index and verl.utils.group_mean_std is group_mean_std
    monkeypatch.setenv("VERL_FORCE_DEVICE", "meta")
    assert as_torch_index([1, 2]).device.type == "meta" and as_torch_index([1, 2], device="cpu").device.type == "cpu"
    with pytest.raises(ValueError, match="3 and 2"):
        group_mean_std(torch.zeros(3), torch.zeros(2), device="cpu")
    with pytest.raises(AttributeError, match="no attribute 'as_index'"):
        verl.utils.as_index  # noqa: B018
    code = "import sys, verl.utils; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 99))
def test_positions_count_real_tokens(rows, width, seed):
    np.random.seed(seed)
    mask = create_random_mask(torch.zeros(rows, width), 0.6 if width > 1 else 1.0, 0.4 if width > 1 else 0.0)
    positions = compute_position_id_with_mask(mask)
    for row, places in zip(mask.numpy(), positions.numpy(), strict=True):
        assert row.any() and (np.diff(np.flatnonzero(row)) == 1).all()
        np.testing.assert_array_equal(places[row == 1], np.arange(row.sum()))
        assert not places[: np.flatnonzero(row)[0]].any()
        assert row.sum() <= max(1, int(width * 0.6)) and np.flatnonzero(row)[0] <= int(width * 0.4)


def test_random_masks_keep_their_bounds():
    np.random.seed(0)
    mask = create_random_mask(torch.zeros(500, 20, dtype=torch.long), 0.5, 0.25, min_ratio_of_valid_token=0.3)
    lengths, starts = mask.sum(1), mask.argmax(1)
    assert set(lengths.tolist()) == set(range(6, 11)) and set(starts.tolist()) == set(range(6))
    for wrong in [(0.0, 0.1), (0.5, 1.0), (0.9, 0.5), (0.3, 0.1, 0.4), (0.01, 0.0)]:
        with pytest.raises(AssertionError):
            create_random_mask(torch.zeros(2, 20), *wrong)


def test_numbers_repeated_to_the_lengths_of_a_nested_tensor():
    lengths = [3, 1, 4]
    nested = torch.nested.as_nested_tensor([torch.zeros(n) for n in lengths], layout=torch.jagged)
    found = expand_as_nested(torch.tensor([5, 7, 9]), nested)
    assert [row.tolist() for row in found.unbind()] == [[5] * 3, [7], [9] * 4]
    for tensor, other in [(torch.zeros(3), torch.zeros(3, 2)), (torch.zeros(2), nested), (torch.zeros(3, 1), nested), (torch.zeros(3), nested.unsqueeze(-1))]:
        with pytest.raises(AssertionError):
            expand_as_nested(tensor, other)


def over_ranks(rank: int):
    init_process_group(rank, 3)
    values = torch.arange(rank + 1, dtype=torch.float64) * (rank + 1)  # of different lengths
    mask = torch.arange(rank + 1) % 2 == 0
    noisy = torch.where(mask, values, torch.nan)
    found = distributed_mean_max_min_std(values), distributed_mean_max_min_std(values, False, False, False)
    return [[None if x is None else x.item() for x in part] for part in found], distributed_masked_mean(noisy, mask).item()


def test_statistics_over_ranks():
    ranks = [np.arange(r + 1) * (r + 1.0) for r in range(3)]
    whole, chosen = np.concatenate(ranks), np.concatenate([r[::2] for r in ranks])
    for (full, short), masked in run_ranks(over_ranks, 3):
        assert full == pytest.approx([whole.mean(), whole.max(), whole.min(), whole.std(ddof=1)])
        assert short == [pytest.approx(whole.mean()), None, None, None]
        assert masked == pytest.approx(chosen.mean())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 30), st.sampled_from([None, 1, 4]), st.sampled_from([1.0, 0.6]))
def test_sum_of_squared_probabilities(seed, n, vocab, chunk, temperature):
    generator = torch.Generator().manual_seed(seed)
    hidden, weight = (torch.randn(rows, 6, dtype=torch.float64, generator=generator) for rows in (n, vocab))
    want = torch.softmax(hidden @ weight.T / temperature, -1).square().sum(-1)
    torch.testing.assert_close(chunked_sum_pi_squared(hidden, weight, temperature, chunk), want)
    logits = (hidden @ weight.T / temperature).reshape(n, 1, vocab)
    torch.testing.assert_close(calculate_sum_pi_squared_from_logits(logits, chunk), want[:, None])
    assert calculate_sum_pi_squared_from_logits(logits.bfloat16()).dtype == torch.float32
    huge = torch.tensor([[1000.0, 1000.0, -1000.0]])
    assert calculate_sum_pi_squared_from_logits(huge).item() == pytest.approx(0.5)
