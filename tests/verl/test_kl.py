"""KL forms against their formulas and the exact KL of small distributions; controllers; reward penalty."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from ragged_batches import batches, draw, tensor

from verl.trainer.ppo.core_algos import (
    AdaptiveKLController,
    FixedKLController,
    apply_kl_penalty,
    compute_rewards,
    get_kl_controller,
    kl_penalty,
    kl_penalty_forward,
)

PLAIN = {
    "k1": lambda d: d,
    "kl": lambda d: d,
    "abs": np.abs,
    "k2": lambda d: d**2 / 2,
    "mse": lambda d: d**2 / 2,
    "k3": lambda d: np.exp(-d) - 1 + d,
    "low_var_kl": lambda d: np.exp(-d) - 1 + d,
}
GRADIENT = {
    "k1": np.ones_like,
    "kl": np.ones_like,
    "abs": np.sign,
    "k2": lambda d: d,
    "mse": lambda d: d,
    "k3": lambda d: 1 - np.exp(-d),
    "low_var_kl": lambda d: 1 - np.exp(-d),
}


@pytest.mark.parametrize("form", PLAIN)
@settings(max_examples=15, deadline=None)
@given(params=batches)
def test_value_and_gradient(form, params):
    b = draw(params)
    d = b.logp - b.old
    logp = tensor(b.logp).requires_grad_()
    value = kl_penalty(logp, tensor(b.old), form)
    np.testing.assert_allclose(value.detach().numpy(), PLAIN[form](d), atol=1e-12)
    np.testing.assert_allclose(torch.autograd.grad(value.sum(), logp)[0].numpy(), GRADIENT[form](d), atol=1e-12)

    through = kl_penalty(logp, tensor(b.old), form + "+")
    np.testing.assert_allclose(through.detach().numpy(), PLAIN[form](d), atol=1e-12)
    np.testing.assert_allclose(torch.autograd.grad(through.sum(), logp)[0].numpy(), d, atol=1e-12)


def test_expectations_over_all_tokens():
    """Under exact expectation over the policy, k1 and k3 give the KL, and the gradient of ``+`` is the KL's."""
    torch.manual_seed(0)
    logits = torch.randn(6, dtype=torch.float64, requires_grad=True)
    ref = torch.log_softmax(torch.randn(6, dtype=torch.float64), -1)
    logp = torch.log_softmax(logits, -1)
    exact = (logp.exp() * (logp - ref)).sum()
    want = torch.autograd.grad(exact, logits, retain_graph=True)[0]
    p = logp.detach().exp()  # tokens are sampled: their weight carries no gradient
    for form in ("k1", "k3"):
        assert (p * kl_penalty(logp, ref, form)).sum().item() == pytest.approx(exact.item())
        got = torch.autograd.grad((p * kl_penalty(logp, ref, form + "+")).sum(), logits, retain_graph=True)[0]
        torch.testing.assert_close(got, want)


def test_extremes_are_bounded():
    far = kl_penalty(torch.tensor([-60.0, 0.0]), torch.tensor([0.0, -60.0]), "k3")
    assert far[0].item() == 10.0 and far[1].item() == 10.0 and torch.isfinite(far).all()


def test_full_and_unknown_are_refused():
    x = torch.zeros(1)
    for fn in (kl_penalty, kl_penalty_forward):
        with pytest.raises(ValueError, match="whole vocabulary"):
            fn(x, x, "full")
        with pytest.raises(ValueError, match="unknown kl_penalty 'k4'"):
            fn(x, x, "k4")


def test_controllers():
    adaptive = get_kl_controller(SimpleNamespace(type="adaptive", kl_coef=0.2, target_kl=0.1, horizon=100))
    adaptive.update(current_kl=0.105, n_steps=10)  # 5% over target
    assert adaptive.value == pytest.approx(0.2 * (1 + 0.05 * 0.1))
    adaptive.update(current_kl=9.0, n_steps=10)  # clipped at 20%
    assert adaptive.value == pytest.approx(0.2 * (1 + 0.05 * 0.1) * 1.02)
    resumed = AdaptiveKLController(0.2, 0.1, 100)
    resumed.load_state_dict(adaptive.state_dict())
    assert resumed.value == adaptive.value
    fixed = get_kl_controller({"type": "fixed", "kl_coef": 0.3})
    fixed.update(1.0, 1)
    assert isinstance(fixed, FixedKLController) and fixed.value == 0.3 and fixed.state_dict() == {"value": 0.3}
    with pytest.raises(ValueError, match="horizon"):
        AdaptiveKLController(0.1, 0.1, 0)
    with pytest.raises(ValueError, match="'linear'"):
        get_kl_controller({"type": "linear", "kl_coef": 0.1})


@settings(max_examples=15, deadline=None)
@given(batches)
def test_reward_penalty(params):
    b = draw(params)
    batch = {
        "response_mask": tensor(b.mask),
        "old_log_probs": tensor(b.logp),
        "ref_log_prob": tensor(b.old),
        "token_level_scores": tensor(b.rewards),
    }
    data, metrics = apply_kl_penalty(SimpleNamespace(batch=batch), FixedKLController(0.2), "kl")
    kl = np.where(b.mask, b.logp - b.old, 0.0)
    np.testing.assert_allclose(data.batch["token_level_rewards"].numpy(), b.rewards - 0.2 * kl, atol=1e-12)
    rows = [row[m].mean() for row, m in zip(kl, b.mask, strict=True) if m.any()]
    assert metrics["actor/reward_kl_penalty"] == pytest.approx(np.mean(rows) if rows else 0.0, abs=1e-12)
    assert metrics["actor/reward_kl_penalty_coeff"] == 0.2
    np.testing.assert_allclose(
        compute_rewards(tensor(b.rewards), tensor(b.logp), tensor(b.old), 0.2).numpy(),
        b.rewards - 0.2 * (b.logp - b.old),
        atol=1e-12,
    )
