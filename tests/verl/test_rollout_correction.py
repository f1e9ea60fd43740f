"""Weights and rejection against plain loops; rejected tokens leave no trace in the loss."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from ragged_batches import batches, draw, tensor

from verl.trainer.ppo.core_algos import agg_loss, batch_counts
from verl.trainer.ppo.rollout_correction import (
    compute_offpolicy_metrics,
    compute_rollout_correction_and_add_to_batch,
    compute_rollout_correction_and_rejection_mask,
    compute_rollout_correction_weights,
    compute_rollout_rejection_mask,
)


def ratios(b, level):
    """Ratio of every position, from exp of sums; only sampled tokens count."""
    out = np.ones(b.mask.shape)
    for i, m in enumerate(b.mask):
        d = b.logp[i] - b.old[i]
        if level == "token":
            out[i] = np.exp(d)
        elif m.any():
            out[i] = np.exp(d[m].sum() if level == "sequence" else d[m].mean())
    return out


@settings(max_examples=30, deadline=None)
@given(batches, st.sampled_from(["token", "sequence"]), st.floats(0.8, 2.0))
def test_weights(params, level, threshold):
    b = draw(params)
    raw = ratios(b, level)
    weights, metrics = compute_rollout_correction_weights(tensor(b.logp - b.old), tensor(b.mask), level, threshold)
    want = np.where(b.mask, np.minimum(raw, threshold), 0.0)
    np.testing.assert_allclose(weights.numpy(), want, atol=1e-12)
    if b.mask.any():
        w = want[b.mask]
        assert metrics["rollout_is_mean"] == pytest.approx(w.mean())
        assert metrics["rollout_is_max"] == pytest.approx(raw[b.mask].max())
        assert metrics["rollout_is_truncated_fraction"] == pytest.approx((raw[b.mask] > threshold).mean())
        assert metrics["rollout_is_eff_sample_size"] == pytest.approx(w.sum() ** 2 / (len(w) * (w**2).sum()))
        normal, _ = compute_rollout_correction_weights(tensor(b.logp - b.old), tensor(b.mask), level, threshold, True)
        mean = w.mean() if level == "token" else np.mean([want[i][m][0] for i, m in enumerate(b.mask) if m.any()])
        np.testing.assert_allclose(normal.numpy(), want / mean, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    batches, st.sampled_from(["token", "sequence", "geometric"]), st.floats(1.05, 2.0), st.one_of(st.none(), st.floats(0.3, 0.9))
)
def test_rejection(params, level, upper, lower):
    b = draw(params)
    kept, metrics = compute_rollout_rejection_mask(tensor(b.logp - b.old), tensor(b.mask).float(), level, upper, lower)
    raw = ratios(b, level)
    want = b.mask & (raw >= (1 / upper if lower is None else lower)) & (raw <= upper)
    np.testing.assert_array_equal(kept.bool().numpy(), want)
    if b.mask.any():
        assert metrics["rollout_rs_masked_fraction"] == pytest.approx(1 - want[b.mask].mean(), abs=1e-6)
        rows = b.mask.any(1)
        assert metrics["rollout_rs_seq_masked_fraction"] == pytest.approx((want != b.mask).any(1)[rows].mean())


@settings(max_examples=25, deadline=None)
@given(batches, st.sampled_from(["token", "sequence", "geometric"]), st.sampled_from([None, "token", "sequence"]))
def test_rejected_tokens_are_never_counted(params, rejection, weighting):
    """The loss of the masked batch is the loss of a batch that never held those tokens."""
    b = draw(params)
    weights, mask, metrics = compute_rollout_correction_and_rejection_mask(
        tensor(b.logp), tensor(b.old), tensor(b.mask), rollout_is=weighting, rollout_rs=rejection, rollout_rs_threshold=1.3
    )
    assert metrics and all(key.startswith("rollout_corr/") for key in metrics)
    assert (weights is None) == (weighting is None)
    kept = mask.numpy()
    losses = b.values if weights is None else b.values * weights.numpy()
    if weights is not None:
        assert not weights[~mask].any()
        np.testing.assert_allclose(weights.numpy()[kept], np.minimum(ratios(b, weighting), 2.0)[kept], atol=1e-12)
    value = agg_loss(tensor(losses), mask, "token-mean", **batch_counts(mask)).item()
    assert value == pytest.approx(losses[kept].mean() if kept.any() else 0.0)


@settings(max_examples=20, deadline=None)
@given(batches)
def test_offpolicy_metrics(params):
    b = draw(params)
    metrics = compute_offpolicy_metrics(tensor(b.logp), tensor(b.old), tensor(b.mask))
    d = (b.logp - b.old)[b.mask]
    if len(d):
        want = {
            "logprob_diff_mean": np.abs(d).mean(),
            "logprob_diff_max": np.abs(d).max(),
            "kl": -d.mean(),
            "k3_kl": (np.exp(d) - d - 1).mean(),
            "training_ppl": np.exp(-b.logp[b.mask].mean()),
            "rollout_ppl": np.exp(-b.old[b.mask].mean()),
        }
        assert metrics == pytest.approx(want)
    else:
        assert metrics["logprob_diff_max"] == 0.0


def test_no_correction_asked_for():
    mask = torch.ones(1, 2)
    weights, same, metrics = compute_rollout_correction_and_rejection_mask(torch.zeros(1, 2), torch.zeros(1, 2), mask)
    assert weights is None and same is mask and metrics["rollout_corr/kl"] == 0.0


@pytest.mark.parametrize(
    "call, message",
    [
        (partial(compute_rollout_correction_weights, rollout_is="batch"), "rollout_is is 'batch'"),
        (partial(compute_rollout_correction_weights, rollout_is_threshold=0), "rollout_is_threshold"),
        (partial(compute_rollout_rejection_mask, rollout_rs="turn"), "rollout_rs is 'turn'"),
        (partial(compute_rollout_rejection_mask, rollout_rs_threshold=None), "rollout_rs_threshold"),
        (partial(compute_rollout_rejection_mask, rollout_rs_threshold_lower=3.0), "rollout_rs_threshold_lower"),
        (partial(compute_rollout_rejection_mask, rollout_rs="token,turn"), "rollout_rs is 'turn'"),
        (partial(compute_rollout_rejection_mask, rollout_rs="token_k1,token_k2", rollout_rs_threshold="2,2,2"), "3 entries for the 2 options"),
        (partial(compute_rollout_rejection_mask, rollout_rs="token_k3", rollout_rs_threshold="0.5_2.0"), "token_k3 is never below 0"),
        (partial(compute_rollout_rejection_mask, rollout_rs="token_k1", rollout_rs_threshold="2.0_0.5"), "lower bound is above"),
        (partial(compute_rollout_rejection_mask, rollout_rs="token_k1", rollout_rs_threshold="0.5_1_2"), "one or two"),
        (partial(compute_rollout_rejection_mask, rollout_rs="token_k1", rollout_rs_threshold="half"), "such as '0.5_2.0'"),
        (partial(compute_rollout_rejection_mask, rollout_rs="token_k1", rollout_rs_threshold=0.52), "YAML reads 0.5_2 as 0.52"),
        (partial(compute_rollout_rejection_mask, rollout_rs="token_k1", rollout_rs_threshold_lower=0.4), "'LOWER_UPPER'"),
        (partial(compute_rollout_correction_weights, rollout_is_threshold="3_2"), "rollout_is_threshold"),
    ],
)
def test_wrong_settings_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(1, 2), torch.ones(1, 2))


def statistic(option, d, mask):
    """What VeRL's options bound, of each token or of its row, from the formulas."""
    form = option.rsplit("_", 1)[1]
    value = {"k1": -d, "k2": d**2 / 2, "k3": np.exp(d) - 1 - d}[form]
    if option.startswith("token"):
        return value
    reduce = {"seq_sum": np.sum, "seq_mean": np.mean, "seq_max": np.max}[option.rsplit("_", 1)[0]]
    return np.stack([np.full(len(m), reduce(row[m]) if m.any() else 0.0) for row, m in zip(value, mask, strict=True)])


#: VeRL's options with a threshold and the bounds of the statistic that it means
OPTIONS = [
    ("token_k1", "0.7_1.2", np.log(0.7), np.log(1.2)), ("seq_sum_k1", "0.6_2.5", np.log(0.6), np.log(2.5)),
    ("seq_mean_k1", "1.2", -np.log(1.2), np.log(1.2)), ("token_k2", 0.05, -1, 0.05), ("seq_sum_k2", "0.3", -1, 0.3),
    ("seq_mean_k2", 0.08, -1, 0.08), ("seq_max_k2", 0.2, -1, 0.2), ("token_k3", "0.06", -1, 0.06), ("seq_sum_k3", 0.3, -1, 0.3),
    ("seq_mean_k3", 0.08, -1, 0.08), ("seq_max_k3", 0.2, -1, 0.2),
]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(batches, st.lists(st.sampled_from(OPTIONS), min_size=1, max_size=3, unique_by=lambda o: o[0]))
def test_verls_options_alone_and_together(params, options):
    b = draw(params)
    d, want = b.logp - b.old, b.mask.copy()
    for option, _, low, high in options:
        found = statistic(option, d, b.mask)
        want &= (found >= low) & (found <= high)
    names, thresholds = ", ".join(o[0] for o in options), ",".join(str(o[1]) for o in options)
    kept, metrics = compute_rollout_rejection_mask(tensor(d), tensor(b.mask), names, thresholds)
    np.testing.assert_array_equal(kept.numpy(), want)
    if b.mask.any():
        assert metrics["rollout_rs_masked_fraction"] == pytest.approx(1 - want[b.mask].mean(), abs=1e-6)
    assert ("rollout_rs_" + options[0][0] + "_masked_fraction" in metrics) == (len(options) > 1)


@settings(max_examples=30, deadline=None)
@given(batches, st.sampled_from([("token", "token_k1"), ("sequence", "seq_sum_k1"), ("geometric", "seq_mean_k1")]), st.floats(1.01, 3))
def test_verls_names_for_ours_differ_in_the_direction_alone(params, names, upper):
    """With a number as threshold the two are the same; with two, VeRL's bound the inverse ratio."""
    b = draw(params)
    d, mask = tensor(b.logp - b.old), tensor(b.mask)
    ours, theirs = names
    assert torch.equal(compute_rollout_rejection_mask(d, mask, ours, upper)[0], compute_rollout_rejection_mask(d, mask, theirs, upper)[0])
    bounds, inverse = f"0.9_{upper}", f"{1 / upper!r}_{1 / 0.9!r}"
    same = compute_rollout_rejection_mask(d, mask, ours, bounds)[0], compute_rollout_rejection_mask(d, mask, theirs, inverse)[0]
    assert torch.equal(*same)


@settings(max_examples=30, deadline=None)
@given(batches, st.sampled_from(["token", "sequence"]))
def test_weights_outside_two_bounds_are_zero(params, level):
    b = draw(params)
    raw = ratios(b, level)
    weights, metrics = compute_rollout_correction_weights(tensor(b.logp - b.old), tensor(b.mask), level, "0.8_1.25")
    want = np.where(b.mask & (raw >= 0.8) & (raw <= 1.25), raw, 0.0)
    np.testing.assert_allclose(weights.numpy(), want, atol=1e-12)
    if b.mask.any():
        assert metrics["rollout_is_truncated_fraction"] == pytest.approx((want == 0)[b.mask].mean(), abs=1e-6)


def test_on_a_batch():
    """Ratios e^0.1, e^1, e^-1: with bounds [1/2, 2] the last two are rejected; weights of what is left."""
    old = torch.tensor([[-1.0, -1.0, -2.0]])
    rollout = torch.tensor([[-1.1, -2.0, -1.0]])
    batch = {"old_log_probs": old, "rollout_log_probs": rollout, "response_mask": torch.ones(1, 3, dtype=torch.bool)}
    config = OmegaConf.create(
        {
            "rollout_is": "token",
            "rollout_is_threshold": 1.05,
            "rollout_rs": "token",
            "rollout_rs_threshold": 2.0,
            "rollout_rs_threshold_lower": None,
        }
    )
    data, metrics = compute_rollout_correction_and_add_to_batch(SimpleNamespace(batch=batch), config)
    assert data.batch["response_mask"].tolist() == [[True, False, False]]
    assert data.batch["rollout_is_weights"].tolist() == [[pytest.approx(1.05), 0.0, 0.0]]
    assert metrics["rollout_corr/rollout_rs_masked_fraction"] == pytest.approx(2 / 3)
