"""REINFORCE and bypass_mode against the formulas in NumPy: weights, clipping and rejection by the ratio to the engine."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ragged_batches import batches, draw, tensor

from verl.trainer.ppo.core_algos import (
    batch_counts,
    compute_policy_loss_bypass_mode,
    compute_policy_loss_reinforce,
    get_policy_loss_fn,
    with_batch_info,
)

CLIP = {"clip_ratio": 0.2, "clip_ratio_c": 3.0}


def run(b, section, mode="token-mean", **counts):
    config = {**CLIP, "policy_loss": {"rollout_correction": section}}
    config = with_batch_info(config, **counts) if counts else config
    logp = tensor(b.logp).requires_grad_()
    loss, metrics = compute_policy_loss_bypass_mode(tensor(b.old), logp, tensor(b.adv), tensor(b.mask), mode, config)
    return loss.item(), torch.autograd.grad(loss, logp)[0].numpy(), metrics


@settings(max_examples=40, deadline=None)
@given(
    batches, st.sampled_from([None, "token", "sequence"]), st.sampled_from([None, ("token_k2", 0.05), ("seq_mean_k1", "0.8_1.2")]),
    st.sampled_from(["token-mean", "seq-mean-token-sum"]),
)  # fmt: skip
def test_weighted_reinforce(params, level, rejection, mode):
    """loss = - sum w kept A log pi / N, and w is a constant in the gradient."""
    b = draw(params)
    ratio = b.logp - b.old
    weight = np.ones_like(ratio)
    if level == "token":
        weight = np.minimum(np.exp(ratio), 1.5)
    elif level == "sequence":
        weight = np.minimum(np.exp((ratio * b.mask).sum(1, keepdims=True)), 1.5) * weight
    kept = b.mask.astype(float)
    section = {"loss_type": "reinforce", "rollout_is": level, "rollout_is_threshold": 1.5}
    if rejection:
        section |= {"rollout_rs": rejection[0], "rollout_rs_threshold": rejection[1]}
        if rejection[0] == "token_k2":
            kept = kept * (ratio**2 / 2 <= 0.05)
        else:
            mean = (ratio * b.mask).sum(1) / np.maximum(b.mask.sum(1), 1)
            kept = kept * ((np.exp(-mean) >= 0.8) & (np.exp(-mean) <= 1.2))[:, None]
    divisor = max(1, b.mask.sum() if mode == "token-mean" else b.mask.any(1).sum())
    loss, gradient, metrics = run(b, section, mode)
    assert loss == pytest.approx(-(weight * kept * b.adv * b.logp).sum() / divisor, abs=1e-9)
    np.testing.assert_allclose(gradient, -weight * kept * b.adv / divisor, atol=1e-9)
    if rejection and b.mask.any():
        assert metrics["rollout_corr/rollout_rs_masked_fraction"] == pytest.approx(1 - kept[b.mask].mean(), abs=1e-6)
    if b.mask.any():
        assert metrics["actor/ppo_kl"] == pytest.approx(-ratio[b.mask].mean())


@settings(max_examples=25, deadline=None)
@given(batches)
def test_ppo_clip_is_vanilla_with_the_rejected_tokens_at_no_cost(params):
    b = draw(params)
    args = tensor(b.old), tensor(b.logp), tensor(b.adv), tensor(b.mask)
    vanilla, _ = get_policy_loss_fn("vanilla")(*args, config=CLIP)
    assert run(b, {"rollout_is": "token"})[0] == pytest.approx(vanilla.item(), abs=1e-12)  # the weight is in the ratio already
    kept = np.abs(b.logp - b.old) <= np.log(1.3)
    partly, _ = get_policy_loss_fn("vanilla")(*args, config=CLIP, rollout_is_weights=tensor(kept.astype(float)))
    loss, gradient, _ = run(b, {"loss_type": "ppo_clip", "rollout_rs": "token", "rollout_rs_threshold": 1.3})
    assert loss == pytest.approx(partly.item(), abs=1e-12)
    assert not gradient[~kept].any()


def test_reinforce_by_either_name():
    b = draw((11, 4, 6))
    args = tensor(b.old), tensor(b.logp), tensor(b.adv), tensor(b.mask)
    by_function, metrics = compute_policy_loss_reinforce(*args, loss_agg_mode="token-mean")
    by_name, _ = get_policy_loss_fn("reinforce")(*args, loss_agg_mode="token-mean")
    assert by_function.item() == by_name.item() == pytest.approx(-(b.adv * b.logp)[b.mask].mean())
    assert list(metrics) == ["actor/ppo_kl"]


def test_wrong_settings_are_named():
    b = draw((3, 2, 3))
    args = tensor(b.old), tensor(b.logp), tensor(b.adv), tensor(b.mask)
    with pytest.raises(ValueError, match="rollout_correction, which is missing"):
        compute_policy_loss_bypass_mode(*args, config=CLIP)
    with pytest.raises(ValueError, match="loss_type is 'gspo'"):
        run(b, {"loss_type": "gspo"})
    normal = {"loss_type": "reinforce", "rollout_is": "token", "rollout_is_batch_normalize": True}
    assert run(b, normal)[2]["rollout_corr/rollout_is_mean"] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="needs the whole mini-batch"):
        run(b, normal, **batch_counts(tensor(b.mask)))
