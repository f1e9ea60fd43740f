"""Cutting a batch: every row once, limits kept, prompts shared, nothing computed that is not needed."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from verl.utils.attention import resolve_attention, torch_varlen_attention
from verl.workers.micro_batch import (
    BatchLimits,
    check_right_padded,
    empty_micro_batch,
    make_micro_batch,
    needed_lengths,
    split_rows,
)

CPU = torch.device("cpu")
FORMS = [BatchLimits(), BatchLimits(packed=True), BatchLimits(share_prompts=True)]


@st.composite
def ragged_batches(draw):
    """(input_ids (B, T), selected (B, T-1)) in which some rows share a prompt and some have nothing selected."""
    rows, width = draw(st.integers(1, 7)), draw(st.integers(3, 12))
    bits = st.lists(st.booleans(), min_size=width - 1, max_size=width - 1)
    selected = torch.tensor([draw(bits) for _ in range(rows)])
    tokens = st.lists(st.integers(0, 2), min_size=width, max_size=width)  # few ids, so that prompts coincide
    input_ids = torch.tensor([draw(tokens) for _ in range(rows)])
    return input_ids, selected


@settings(max_examples=60, deadline=None)
@given(ragged_batches(), st.sampled_from(FORMS), st.integers(12, 30), st.booleans())
def test_every_row_once_within_the_budget_and_every_position_in_its_place(batch, form, budget, by_tokens):
    input_ids, selected = batch
    limits = BatchLimits(
        max_tokens=budget if by_tokens else None, max_rows=None if by_tokens else 2,
        packed=form.packed, share_prompts=form.share_prompts,
    )  # fmt: skip
    groups = split_rows(input_ids, selected, range(len(input_ids)), limits)
    assert sorted(row for group in groups for row in group) == selected.any(dim=1).nonzero().flatten().tolist()
    for group in groups:
        micro = make_micro_batch(input_ids, selected, group, limits, CPU)
        assert micro.computed_tokens <= budget if by_tokens else len(group) <= 2
        # what a position has seen, spelled out: its own token and position, and the label that follows
        flat, row, column = micro.model_inputs["input_ids"].flatten()[micro.positions], *micro.at
        assert torch.equal(flat, input_ids[micro.rows[row], column])
        assert torch.equal(micro.labels, input_ids[micro.rows[row], column + 1])
        if "position_ids" in micro.model_inputs:
            assert torch.equal(micro.model_inputs["position_ids"].flatten()[micro.positions], column)
        assert torch.equal(micro.to_matrix(torch.ones(len(column))).bool(), selected[micro.rows, : micro.width])
        assert micro.width == int(needed_lengths(selected[micro.rows]).max())


def test_a_shared_prompt_stands_once_and_there_is_no_padding():
    input_ids = torch.tensor([[7, 8, 9, 1, 2, 0], [7, 8, 9, 3, 0, 0], [7, 8, 5, 4, 4, 4]])
    selected = torch.tensor([[0, 0, 1, 1, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 1]]).bool()
    micro = make_micro_batch(input_ids, selected, [0, 1, 2], BatchLimits(share_prompts=True), CPU)
    # row 0 adds token 1, row 1 adds nothing that predicts, row 2 has another prompt
    assert micro.model_inputs["input_ids"].tolist() == [[7, 8, 9, 1, 7, 8, 5, 4, 4]]
    assert micro.model_inputs["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 4]]
    assert micro.model_inputs["segment_lengths"] == (3, 1, 5) and micro.model_inputs["segment_prefixes"] == (-1, 0, -1)
    assert micro.positions.tolist() == [2, 3, 2, 6, 7, 8]
    assert (micro.real_tokens, micro.computed_tokens) == (4 + 3 + 5, 9)


def test_a_row_above_the_budget_is_refused():
    with pytest.raises(ValueError, match="ppo_max_token_len_per_gpu"):
        split_rows(
            torch.ones(1, 9, dtype=torch.long), torch.ones(1, 8, dtype=torch.bool), [0], BatchLimits(8 - 1, share_prompts=True)
        )


@pytest.mark.parametrize("limits", FORMS)
def test_an_empty_micro_batch_runs_and_holds_no_row(limits):
    micro = empty_micro_batch(limits, CPU)
    assert len(micro.rows) == 0 and micro.real_tokens == 0 and len(micro.positions) == 1
    assert micro.take(torch.ones(4, 9)).shape == (0, micro.width)


def test_padding_on_the_left_or_in_the_middle_is_refused():
    check_right_padded(torch.tensor([[1, 1, 0], [1, 1, 1]]))
    with pytest.raises(ValueError, match="RIGHT padded"):
        check_right_padded(torch.tensor([[0, 1, 1]]))


@pytest.mark.parametrize("window", [None, 3])
def test_segments_attend_like_separate_rows(window):
    """Three sequences, two of them continuing one prompt, against a dense mask written from the definition."""
    generator = torch.Generator().manual_seed(0)
    lengths, prefixes = (4, 2, 3, 5), (-1, 0, 0, -1)
    q = torch.randn(1, 4, 14, 8, generator=generator)
    k, v = torch.randn(2, 1, 2, 14, 8, generator=generator)
    found, _ = torch_varlen_attention(
        None, q, k, v, None, scaling=0.5, sliding_window=window, segment_lengths=lengths, segment_prefixes=prefixes
    )
    segment = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))
    start = torch.tensor([0, 4, 4, 0])  # position at which a segment begins in its sequence
    position = torch.cat([torch.arange(n) for n in lengths]) + start[segment]
    own = segment[:, None] == segment[None, :]
    prompt = torch.tensor(prefixes)[segment][:, None] == segment[None, :]
    back = position[:, None] - position[None, :]
    mask = (own | prompt) & (back >= 0) & (back < (window or 99))
    k, v = (tensor.repeat_interleave(2, dim=1) for tensor in (k, v))
    scores = (q @ k.transpose(2, 3) * 0.5).masked_fill(~mask, float("-inf"))
    torch.testing.assert_close(found, (scores.softmax(-1) @ v).transpose(1, 2), atol=1e-6, rtol=1e-5)


def test_attention_follows_the_device_and_the_config():
    assert resolve_attention(False, "cuda") == ("sdpa", False)
    assert resolve_attention(True, "cpu") == ("sdpa", False)
    assert resolve_attention(True, "cuda")[1]
    assert resolve_attention(True, "cpu", "torch_varlen") == ("torch_varlen", True)
    assert resolve_attention(False, "cpu", share_prompts=True) == ("torch_varlen", True)
    with pytest.raises(ValueError, match="use_prefix_grouper"):
        resolve_attention(False, "cpu", "eager", share_prompts=True)
