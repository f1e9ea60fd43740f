"""VeRL's helper for rollout correction: its results, and its metrics against NumPy."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from omegaconf import OmegaConf
from ragged_batches import batches, draw, tensor

from verl.protocol import DataProto
from verl.trainer.ppo import rollout_correction
from verl.trainer.ppo.rollout_corr_helper import (
    SUPPORTED_ROLLOUT_RS_OPTIONS,
    TOKEN_LEVEL_ROLLOUT_RS_OPTIONS,
    apply_bypass_mode,
    compute_offpolicy_metrics,
    compute_rollout_corr_metrics_from_logprobs,
    compute_rollout_correction_and_add_to_batch,
    compute_rollout_correction_and_rejection_mask,
    compute_rollout_correction_weights,
    compute_rollout_rejection_mask,
)


def some(params):
    b = draw(params)
    b.mask[0, 0] = True  # VeRL refuses a batch without a token
    return b


def test_options():
    assert len(SUPPORTED_ROLLOUT_RS_OPTIONS) == 11 and {"token_k1", "seq_max_k3"} <= SUPPORTED_ROLLOUT_RS_OPTIONS
    assert sorted(TOKEN_LEVEL_ROLLOUT_RS_OPTIONS) == ["token_k1", "token_k2", "token_k3"]


@settings(max_examples=40, deadline=None)
@given(batches)
def test_rejection_metrics(params):
    b = some(params)
    d, mask = b.logp - b.old, b.mask
    kept, metrics = compute_rollout_rejection_mask(tensor(d), tensor(mask), "seq_sum_k1,token_k2", "0.7_1.5,0.05")
    rows = mask.any(1)
    whole = (-d * mask).sum(1)[rows]
    low, high = np.log(0.7), np.log(1.5)
    square = (d**2 / 2)[mask]
    rejected = np.repeat(((whole < low) | (whole > high)), mask.sum(1)[rows])
    want = {
        "seq_sum_k1_mean": np.repeat(whole, mask.sum(1)[rows]).mean(),
        "seq_sum_k1_max": whole.max(),
        "seq_sum_k1_min": whole.min(),
        "seq_sum_k1_fraction_high": (whole > high).mean(),
        "seq_sum_k1_fraction_low": (whole < low).mean(),
        "seq_sum_k1_std": np.repeat(whole, mask.sum(1)[rows]).clip(low, high).std(),
        "seq_sum_k1_seq_std": whole.std(ddof=1) if len(whole) > 1 else 0.0,
        "seq_sum_k1_seq_max_deviation": np.abs(whole).max(),
        "seq_sum_k1_seq_fraction_low": (whole < low).mean(),
        "seq_sum_k1_masked_fraction": rejected.mean(),
        "token_k2_mean": square.mean(),
        "token_k2_max": square.max(),
        "token_k2_fraction_high": (square > 0.05).mean(),
        "token_k2_fraction_low": 0.0,
        "token_k2_std": square.clip(0, 0.05).std(),
        "token_k2_masked_fraction": (square > 0.05).mean(),
        "masked_fraction": 1 - kept.numpy()[mask].mean(),
        "seq_masked_fraction": (kept.numpy() != mask).any(1).mean(),
    }
    assert {name: metrics[f"rollout_rs_{name}"] for name in want} == pytest.approx(want, abs=1e-5)
    ours = rollout_correction.compute_rollout_rejection_mask(tensor(d), tensor(mask), "seq_sum_k1,token_k2", "0.7_1.5,0.05")[0]
    assert torch.equal(kept, ours)


@settings(max_examples=40, deadline=None)
@given(batches)
def test_weights_stay_on_rejected_tokens(params):
    b = some(params)
    proto, mask, metrics = compute_rollout_correction_and_rejection_mask(
        tensor(b.logp), tensor(b.old), tensor(b.mask), rollout_is="token", rollout_is_threshold=1.5, rollout_rs="token_k1",
        rollout_rs_threshold="0.8_1.25",
    )  # fmt: skip
    ratio = np.exp(b.logp - b.old)
    assert isinstance(proto, DataProto)
    np.testing.assert_allclose(proto.batch["rollout_is_weights"].numpy(), np.minimum(ratio, 1.5) * b.mask, atol=1e-9)
    np.testing.assert_array_equal(mask.numpy(), b.mask & (1 / ratio >= 0.8) & (1 / ratio <= 1.25))
    applied = np.minimum(ratio, 1.5)[b.mask]
    rows = [np.minimum(ratio[i], 1.5)[m].mean() if m.any() else 0.0 for i, m in enumerate(b.mask)]
    want = {
        "mean": applied.mean(),
        "max": applied.max(),
        "min": applied.min(),
        "std": applied.std(),
        "ratio_fraction_high": (ratio[b.mask] > 1.5).mean(),
        "ratio_fraction_low": (ratio[b.mask] < 1 / 1.5).mean(),
        "eff_sample_size": applied.sum() ** 2 / (len(applied) * (applied**2).sum()),
        "seq_mean": np.mean(rows),
        "seq_max_deviation": np.abs(np.array(rows) - 1).max(),
    }
    assert {name: metrics[f"rollout_corr/rollout_is_{name}"] for name in want} == pytest.approx(want, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(batches)
def test_perplexities_are_means_over_rows(params):
    b = draw(params, empty_rows=False)
    metrics = compute_offpolicy_metrics(tensor(b.logp), tensor(b.old), tensor(b.mask))
    rows = list(zip(b.logp, b.old, b.mask, strict=True))
    trained, played = (np.array([-row[which][row[2]].mean() for row in rows]) for which in (0, 1))
    ratio = (b.logp - b.old)[b.mask]
    want = {
        "training_ppl": np.exp(trained).mean(),
        "rollout_ppl": np.exp(played).mean(),
        "kl": -ratio.mean(),
        "k3_kl": (np.exp(ratio) - ratio - 1).mean(),
        "log_ppl_abs_diff": np.abs(trained - played).mean(),
        "ppl_ratio": np.exp(trained - played).mean(),
        "chi2_token": (np.exp(ratio) ** 2).mean() - 1,
        "chi2_seq": np.mean([np.exp(2 * (lp - o)[m].sum()) for lp, o, m in rows]) - 1,
    }
    assert {name: metrics[name] for name in want} == pytest.approx(want)
    assert compute_rollout_corr_metrics_from_logprobs(tensor(b.logp), tensor(b.old), tensor(b.mask)) == {
        f"rollout_corr/{name}": value for name, value in metrics.items()
    }
    assert set(compute_offpolicy_metrics(tensor(b.logp), None, tensor(b.mask))) == {"training_ppl", "training_log_ppl"}


def test_two_bounds_and_normalisation_of_sequences():
    mask = torch.tensor([[1.0, 1, 0], [1, 0, 0], [1, 1, 1]])
    d = torch.log(torch.tensor([[1.5, 1.0, 9.0], [0.3, 1.0, 1.0], [1.0, 1.2, 1.0]]))
    weights, metrics = compute_rollout_correction_weights(d, mask, "sequence", "0.5_5.0", rollout_is_batch_normalize=True)
    mean = (1.5 + 0.0 + 1.2) / 3
    want = torch.tensor([[1.5, 1.5, 0], [0, 0, 0], [1.2, 1.2, 1.2]]) / mean
    torch.testing.assert_close(weights, want)
    assert metrics["rollout_is_batch_norm_factor"] == pytest.approx(mean)
    assert metrics["rollout_is_oob_ratio"] == pytest.approx(1 / 6)
    assert metrics["rollout_is_max"] == pytest.approx(1.5) and metrics["rollout_is_min"] == pytest.approx(0.3)


def test_on_a_batch_and_in_bypass_mode():
    old = torch.tensor([[-1.0, -1.0, -2.0]])
    tensors = {"old_log_probs": old, "rollout_log_probs": old - torch.tensor([[0.1, 1.0, -1.0]]), "response_mask": torch.ones(1, 3)}
    section = OmegaConf.create({"rollout_is": "token", "rollout_rs": "token_k1", "rollout_rs_threshold": "0.5_2.0", "bypass_mode": True})
    batch, metrics = compute_rollout_correction_and_add_to_batch(DataProto.from_dict(tensors=tensors), section)
    assert batch.batch["response_mask"].tolist() == [[1, 0, 0]]
    assert batch.batch["rollout_is_weights"][0].tolist() == pytest.approx([np.exp(0.1), 2.0, np.exp(-1)])
    assert metrics["rollout_corr/rollout_rs_masked_fraction"] == pytest.approx(2 / 3)

    loss = OmegaConf.create({"loss_mode": "vanilla"})
    OmegaConf.set_struct(loss, True)
    apply_bypass_mode(batch, section, loss)
    assert torch.equal(batch.batch["old_log_probs"], tensors["rollout_log_probs"])
    assert loss.loss_mode == "bypass_mode" and loss.rollout_correction.rollout_rs_threshold == "0.5_2.0"
    plain, with_attributes = {}, SimpleNamespace()
    apply_bypass_mode(batch, section, plain)
    apply_bypass_mode(batch, section, with_attributes)
    assert plain["loss_mode"] == with_attributes.loss_mode == "bypass_mode"
    with pytest.raises(ValueError, match="rollout_log_probs"):
        apply_bypass_mode(DataProto.from_dict(tensors={"old_log_probs": old}), section, {})


def test_what_is_wrong_is_named():
    x, mask = torch.zeros(1, 2), torch.ones(1, 2)
    with pytest.raises(TypeError, match="not a boolean"):
        compute_rollout_correction_weights(x, mask, rollout_is_threshold=True)
    with pytest.raises(ValueError, match="one shape"):
        compute_rollout_correction_and_rejection_mask(x, x[:, 1:], mask)
    with pytest.raises(ValueError, match="at least one valid token"):
        compute_rollout_correction_and_rejection_mask(x, x, torch.zeros(1, 2))
    with pytest.raises(ValueError, match="must be a string"):
        compute_rollout_rejection_mask(x, mask, None, 2.0)
    with pytest.raises(ValueError, match="needs rollout_rs_threshold"):
        compute_rollout_correction_and_rejection_mask(x, x, mask, rollout_rs="token_k1")
    with pytest.raises(AssertionError, match="holds no token"):
        compute_offpolicy_metrics(x, x, torch.zeros(1, 2))
