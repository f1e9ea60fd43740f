"""Aggregation against plain loops, and its one promise: loss and gradient do not depend on the cut."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ragged_batches import batches, cuts, draw, tensor

from verl.trainer.ppo.core_algos import LOSS_AGG_MODES, agg_loss, batch_counts

SCALE = 40.0


def plain(loss, mask, mode):
    rows = [row[m] for row, m in zip(loss, mask, strict=True) if m.any()]
    if not rows:
        return 0.0
    if mode in ("token-mean", "token-sum"):
        tokens = np.concatenate(rows)
        return float(tokens.mean() if mode == "token-mean" else tokens.sum())
    per_row = {
        "seq-mean-token-sum": [r.sum() for r in rows],
        "seq-mean-token-mean": [r.mean() for r in rows],
        "seq-mean-token-sum-norm": [r.sum() / SCALE for r in rows],
    }[mode]
    return float(np.mean(per_row))


@pytest.mark.parametrize("mode", LOSS_AGG_MODES)
@settings(max_examples=25, deadline=None)
@given(params=batches)
def test_whole_batch(mode, params):
    b = draw(params)
    got = agg_loss(tensor(b.values), tensor(b.mask), mode, loss_scale_factor=SCALE)
    assert got.item() == pytest.approx(plain(b.values, b.mask, mode))


@pytest.mark.parametrize("mode", LOSS_AGG_MODES)
@settings(max_examples=25, deadline=None)
@given(params=batches, ranks=st.integers(1, 3), pieces=st.integers(1, 8), extra=st.integers(0, 3))
def test_any_cut_gives_the_same_loss_and_gradient(mode, params, ranks, pieces, extra):
    """Ranks x micro-batches of any size (empty ones too), shuffled, each padded to a width of its own."""
    b = draw(params)
    counts = batch_counts(tensor(b.mask))
    loss = tensor(b.values).requires_grad_()
    whole = agg_loss(loss, tensor(b.mask), mode, loss_scale_factor=SCALE)
    want = torch.autograd.grad(whole, loss)[0]

    total, gradients = 0.0, torch.zeros_like(loss)
    for rank_rows in cuts(b.rng, b.rows, ranks):
        for part in np.array_split(rank_rows, pieces):
            longest = max((np.flatnonzero(b.mask[r])[-1] + 1 for r in part if b.mask[r].any()), default=1)
            width = min(b.width, longest)
            mat = torch.nn.functional.pad(loss[part][:, :width], (0, extra), value=float("nan"))
            mask = torch.nn.functional.pad(tensor(b.mask)[part][:, :width], (0, extra))
            piece = agg_loss(mat, mask, mode, dp_size=ranks, loss_scale_factor=SCALE, **counts)
            total += piece.item() / ranks  # FSDP averages over ranks
            gradients += torch.autograd.grad(piece, loss)[0] / ranks
    assert total == pytest.approx(whole.item(), abs=1e-12)
    torch.testing.assert_close(gradients, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", LOSS_AGG_MODES)
def test_nothing_trained_costs_nothing(mode):
    loss = torch.full((2, 3), float("nan"), requires_grad=True)
    value = agg_loss(
        loss, torch.zeros(2, 3, dtype=torch.bool), mode, loss_scale_factor=1.0, batch_num_tokens=0, global_batch_size=0
    )
    value.backward()
    assert value.item() == 0 and loss.grad.abs().sum() == 0


def test_rejected_sequences_are_not_counted():
    """A sequence that lost all its tokens counts neither as tokens nor as a sequence."""
    loss = torch.tensor([[1.0, 3.0], [7.0, 9.0]])
    mask = torch.tensor([[1, 1], [0, 0]])
    assert batch_counts(mask) == {"batch_num_tokens": 2, "global_batch_size": 1}
    assert agg_loss(loss, mask, "token-mean").item() == 2.0
    assert agg_loss(loss, mask, "seq-mean-token-mean").item() == 2.0
    assert agg_loss(loss, mask, "seq-mean-token-sum").item() == 4.0


def test_missing_counts_are_errors():
    loss, mask = torch.ones(2, 3), torch.ones(2, 3)
    with pytest.raises(ValueError, match="batch_num_tokens"):
        agg_loss(loss, mask, "token-mean", dp_size=2)
    with pytest.raises(ValueError, match="global_batch_size"):
        agg_loss(loss, mask, "seq-mean-token-sum", dp_size=2)
    with pytest.raises(ValueError, match="loss_scale_factor"):
        agg_loss(loss, mask, "seq-mean-token-sum-norm", global_batch_size=4)
    with pytest.raises(ValueError, match="unknown loss_agg_mode 'mean'"):
        agg_loss(loss, mask, "mean")
    # a whole batch may be normalised by its own width, as VeRL does
    assert agg_loss(loss, mask, "seq-mean-token-sum-norm").item() == 1.0
