"""Every policy loss against its formula in plain NumPy (value), finite differences (gradient), and under
every cut of the mini-batch; the value and entropy losses likewise."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ragged_batches import batches, cuts, draw, tensor

from verl.trainer.ppo.core_algos import (
    COV_SELECTORS,
    POLICY_LOSS_REGISTRY,
    add_cov_selected,
    batch_counts,
    compute_entropy_loss,
    compute_policy_loss,
    compute_value_loss,
    get_policy_loss_fn,
    register_policy_loss,
    with_batch_info,
)

LOW, HIGH, C, BETA, TAU = 0.2, 0.28, 3.0, 0.05, (1.0, 1.05)
CONFIG = SimpleNamespace(
    clip_ratio=0.2,
    clip_ratio_low=LOW,
    clip_ratio_high=HIGH,
    clip_ratio_c=C,
    tau_pos=TAU[0],
    tau_neg=TAU[1],
    policy_loss=SimpleNamespace(
        dro_beta=BETA, clip_cov_ratio=0.3, clip_cov_lb=0.0, clip_cov_ub=5.0, kl_cov_ratio=0.3, ppo_kl_coef=0.7,
        rollout_correction={"loss_type": "reinforce", "rollout_is": "token", "rollout_rs": "token_k1", "rollout_rs_threshold": 1.5},
    ),
)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def binary_kl(q, p):
    return q * np.log(q / p) + (1 - q) * np.log((1 - q + 1e-8) / (1 - p + 1e-8))


def vanilla(lp, old, adv):
    r = np.exp(lp - old)
    ppo = max(-adv * r, -adv * np.clip(r, 1 - LOW, 1 + HIGH))
    return min(ppo, -adv * C) if adv < 0 else ppo


def dppo(lp, old, adv, outside):
    return 0.0 if outside else -adv * min(np.exp(lp - old), C) * lp


def dppo_tv(lp, old, adv):
    rise = np.exp(lp) - np.exp(old)
    return dppo(lp, old, adv, rise > HIGH if adv > 0 else rise < -LOW)


def dppo_kl(lp, old, adv):
    kl, rose = binary_kl(np.exp(old), np.exp(lp)), lp > old
    return dppo(lp, old, adv, kl > HIGH and rose if adv > 0 else kl > LOW and lp < old)


TOKEN = {
    "vanilla": vanilla,
    "cispo": lambda lp, old, adv: -np.clip(np.exp(lp - old), 1 - LOW, 1 + HIGH) * adv * lp,
    "gpg": lambda lp, old, adv: -adv * lp,
    "dro": lambda lp, old, adv: -(adv * lp - BETA / 2 * (lp - old) ** 2),
    "sapo": lambda lp, old, adv: -adv * sigmoid((t := TAU[0] if adv > 0 else TAU[1]) * (np.exp(lp - old) - 1)) * 4 / t,
    "dppo_tv": dppo_tv,
    "dppo_kl": dppo_kl,
}
SEQUENCE = {"gspo", "sapo", "geo_mean"}


def rows_of(b):
    return [
        (b.logp[i][m], b.old[i][m], b.adv[i][m], w[m]) for i, (m, w) in enumerate(zip(b.mask, b.weights, strict=True)) if m.any()
    ]


def plain(name, b, mode):
    """The aggregated loss; b.weights are the rollout weights (1 where there are none)."""
    rows = rows_of(b)
    if not rows:
        return 0.0
    if name == "geo_mean":
        losses = []
        for lp, old, adv, w in rows:
            d, s = lp - old, np.sign(adv)
            kept = s * np.minimum(s * d, s * np.clip(d, -LOW, HIGH))
            losses.append(-adv.mean() * np.exp(kept.mean()) * np.exp(np.log(w).mean()))
        return np.mean(losses)
    if name == "gspo":
        losses = []
        for lp, old, adv, w in rows:
            s = np.exp((lp - old).mean())
            losses.append(np.maximum(-adv * s, -adv * np.clip(s, 1 - LOW, 1 + HIGH)) * w)
    else:
        losses = [np.array([TOKEN[name](*x) for x in zip(lp, old, adv, strict=True)]) * w for lp, old, adv, w in rows]
    if name in SEQUENCE or mode == "seq-mean-token-mean":
        return np.mean([x.mean() for x in losses])
    return np.concatenate(losses).mean()


def run(name, b, mode, config=CONFIG, logp=None, part=slice(None), **kwargs):
    logp = tensor(b.logp) if logp is None else logp
    weights = None if (b.weights == 1).all() else tensor(b.weights)[part]
    return get_policy_loss_fn(name)(
        old_log_prob=tensor(b.old)[part],
        log_prob=logp[part],
        advantages=tensor(b.adv)[part],
        response_mask=tensor(b.mask)[part],
        loss_agg_mode=mode,
        config=config,
        rollout_is_weights=weights,
        **{k: v[part] for k, v in kwargs.items()},
    )


def with_weights(params, weighted):
    b = draw(params)
    b.weights = b.rng.uniform(0.2, 2.0, b.mask.shape) if weighted else np.ones(b.mask.shape)
    return b


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-mean"])
@pytest.mark.parametrize("name", [*TOKEN, "gspo", "geo_mean"])
@settings(max_examples=15, deadline=None)
@given(params=batches, weighted=st.booleans())
def test_value(name, mode, params, weighted):
    b = with_weights(params, weighted)
    loss, metrics = run(name, b, mode)
    assert loss.item() == pytest.approx(plain(name, b, mode), abs=1e-9)
    kl = (b.old - b.logp)[b.mask]
    assert metrics["actor/ppo_kl"] == pytest.approx(kl.mean() if len(kl) else 0.0, abs=1e-6)
    assert {"actor/pg_clipfrac", "actor/pg_clipfrac_lower"} <= set(metrics)


def surrogate(name, b):
    """Per-token function of log pi whose derivative is the loss's: what the stop-gradients mean, with the
    weights that they freeze computed beforehand."""
    ratio = np.exp(b.logp - b.old)
    mask = b.mask
    if name == "cispo":
        return lambda lp: -np.clip(ratio, 1 - LOW, 1 + HIGH) * b.adv * lp
    if name in ("dppo_tv", "dppo_kl"):
        frozen = np.array(
            [[TOKEN[name](x, o, a) / x for x, o, a in zip(*r, strict=True)] for r in zip(b.logp, b.old, b.adv, strict=True)]
        )
        return lambda lp: frozen * lp
    if name == "gspo":
        mean = np.array([(lp - o)[m].mean() if m.any() else 0.0 for lp, o, m in zip(b.logp, b.old, mask, strict=True)])
        s = np.exp(mean)[:, None]
        return lambda lp: np.maximum(
            -b.adv * s * np.exp(lp - b.logp), -b.adv * np.clip(s * np.exp(lp - b.logp), 1 - LOW, 1 + HIGH)
        )
    return lambda lp: np.array(
        [[TOKEN[name](x, o, a) for x, o, a in zip(*r, strict=True)] for r in zip(lp, b.old, b.adv, strict=True)]
    )


@pytest.mark.parametrize("name", [*TOKEN, "gspo", "geo_mean"])
@settings(max_examples=10, deadline=None)
@given(params=batches)
def test_gradient_by_finite_differences(name, params):
    b = with_weights(params, False)
    logp = tensor(b.logp).requires_grad_()
    loss, _ = run(name, b, "token-mean", logp=logp)
    got = torch.autograd.grad(loss, logp)[0].numpy()
    assert not got[~b.mask].any()
    h, per_token = 1e-6, np.zeros_like(b.logp)
    counts = batch_counts(tensor(b.mask))
    if name == "geo_mean":  # couples the tokens of a row: move one at a time
        for i, t in zip(*np.nonzero(b.mask), strict=True):
            sides = []
            for sign in (1, -1):
                moved = SimpleNamespace(**vars(b))
                moved.logp = b.logp.copy()
                moved.logp[i, t] += sign * h
                sides.append(plain(name, moved, ""))
            per_token[i, t] = (sides[0] - sides[1]) / (2 * h)
    else:
        fn = surrogate(name, b)
        per_token = np.where(b.mask, (fn(b.logp + h) - fn(b.logp - h)) / (2 * h), 0.0)
        if name in SEQUENCE:
            per_token /= np.maximum(b.mask.sum(1), 1)[:, None] * max(1, counts["global_batch_size"])
        else:
            per_token /= max(1, counts["batch_num_tokens"])
    near_kink = np.abs(np.exp(b.logp - b.old)[..., None] - [1 - LOW, 1 + HIGH, C]).min(-1) < 1e-4
    np.testing.assert_allclose(np.where(near_kink, 0, got), np.where(near_kink, 0, per_token), atol=1e-5)


@pytest.mark.parametrize("name", sorted(POLICY_LOSS_REGISTRY))
@settings(max_examples=8, deadline=None)
@given(params=batches, ranks=st.integers(1, 3), pieces=st.integers(1, 7))
def test_any_cut_gives_the_same_loss_and_gradient(name, params, ranks, pieces):
    b = with_weights(params, True)
    extra = {}
    if name in COV_SELECTORS:
        args = [tensor(x) for x in (b.old, b.logp, b.adv, b.mask)]
        extra = {"cov_selected": COV_SELECTORS[name](*args, CONFIG, torch.Generator().manual_seed(0))}
    logp = tensor(b.logp).requires_grad_()
    whole, _ = run(name, b, "token-mean", logp=logp, **extra)
    want = torch.autograd.grad(whole, logp)[0]
    config = with_batch_info(CONFIG, dp_size=ranks, **batch_counts(tensor(b.mask)))
    total, gradient = 0.0, torch.zeros_like(logp)
    for rank_rows in cuts(b.rng, b.rows, ranks):
        for part in np.array_split(rank_rows, pieces):
            loss, _ = run(name, b, "token-mean", config, logp, part, **extra)
            total += loss.item() / ranks
            gradient += torch.autograd.grad(loss, logp)[0] / ranks
    assert total == pytest.approx(whole.item(), abs=1e-12)
    torch.testing.assert_close(gradient, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", sorted(POLICY_LOSS_REGISTRY))
def test_garbage_outside_the_mask_reaches_nothing(name):
    b = with_weights((5, 4, 6), False)
    clean, _ = run(name, b, "token-mean")
    for key in ("logp", "old"):
        getattr(b, key)[~b.mask] = np.nan
    logp = tensor(b.logp).requires_grad_()
    loss, _ = run(name, b, "token-mean", logp=logp)
    loss.backward()
    if name != "clip_cov":  # draws its tokens at random
        assert loss.item() == pytest.approx(clean.item())
    assert torch.isfinite(logp.grad).all() and not logp.grad[~tensor(b.mask)].any()


@settings(max_examples=25, deadline=None)
@given(batches)
def test_kl_cov(params):
    b = with_weights(params, False)
    n = int(b.mask.sum())
    lp, old, adv = b.logp[b.mask], b.old[b.mask], b.adv[b.mask]
    loss = -adv * np.exp(lp - old)
    if n:
        cov = (adv - adv.mean()) * (lp - lp.mean())
        top = np.argsort(-cov)[: max(1, int(0.3 * n))]
        loss[top] += 0.7 * np.abs(lp - old)[top]
    got, metrics = run("kl_cov", b, "token-mean")
    assert got.item() == pytest.approx(loss.mean() if n else 0.0, abs=1e-9)
    assert metrics["actor/ppo_kl"] == pytest.approx(np.abs(lp - old).mean() if n else 0.0, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(batches)
def test_clip_cov(params):
    b = with_weights(params, False)
    args = [tensor(x) for x in (b.old, b.logp, b.adv, b.mask)]
    selected = COV_SELECTORS["clip_cov"](*args, CONFIG, torch.Generator().manual_seed(1)).numpy()
    n = int(b.mask.sum())
    if n:
        ratio = np.exp(b.logp - b.old)
        cov = (b.adv - b.adv[b.mask].mean()) * (b.logp - b.logp[b.mask].mean())
        clipped = -b.adv * np.clip(ratio, 1 - LOW, 1 + HIGH) > -b.adv * ratio
        candidates = b.mask & (cov > 0) & (cov < 5) & ~clipped
        assert not (selected & ~candidates).any()
        assert selected.sum() == min(max(1, int(0.3 * n)), candidates.sum())
        token = np.maximum(-b.adv * ratio, -b.adv * np.clip(ratio, 1 - LOW, 1 + HIGH)) * ~selected
        got, metrics = run("clip_cov", b, "token-mean", cov_selected=tensor(selected))
        assert got.item() == pytest.approx(token[b.mask].mean(), abs=1e-9)
        assert metrics["actor/pg_clipfrac"] == pytest.approx(selected.sum() / n, abs=1e-6)


@pytest.mark.parametrize("mode", sorted(COV_SELECTORS))
@pytest.mark.parametrize("key", ["old_log_probs", "rollout_log_probs"])
def test_selection_for_a_whole_step(mode, key):
    b = draw((3, 7, 9))
    batch = {key: tensor(b.old), "advantages": tensor(b.adv), "response_mask": tensor(b.mask)}
    config = {"clip_ratio": 0.2, "policy_loss": {**vars(CONFIG.policy_loss), "loss_mode": mode}}
    data = add_cov_selected(SimpleNamespace(batch=dict(batch)), config, seed=3)
    again = add_cov_selected(SimpleNamespace(batch=dict(batch)), config, seed=3)
    chosen = data.batch["cov_selected"].numpy()
    assert torch.equal(data.batch["cov_selected"], again.batch["cov_selected"])
    assert 0 < chosen.sum() <= 0.3 * b.mask.sum() and not (chosen & ~b.mask).any()
    cov = (b.adv - b.adv[b.mask].mean()) * (b.old - b.old[b.mask].mean())
    if mode == "kl_cov":
        assert cov[chosen].min() >= cov[b.mask & ~chosen].max()
    del batch[key]
    with pytest.raises(KeyError, match="has neither"):
        add_cov_selected(SimpleNamespace(batch=batch), config)
    untouched = add_cov_selected(SimpleNamespace(batch=batch), {"policy_loss": {"loss_mode": "vanilla"}})
    assert "cov_selected" not in untouched.batch


def test_vanilla_metrics_and_older_form():
    """Ratios 2 and 0.5 with positive advantage (one clipped), 4 with negative (dual clip)."""
    logp = torch.log(torch.tensor([[2.0, 0.5, 4.0, 1.0]]))
    adv, mask, old = torch.tensor([[1.0, 1.0, -1.0, 5.0]]), torch.tensor([[1, 1, 1, 0]]), torch.zeros(1, 4)
    loss, metrics = get_policy_loss_fn("vanilla")(old, logp, adv, mask, config={"clip_ratio": 0.2})
    assert loss.item() == pytest.approx((-1.2 - 0.5 + 3.0) / 3)
    assert metrics["actor/pg_clipfrac"] == pytest.approx(1 / 3)
    assert metrics["actor/pg_clipfrac_lower"] == pytest.approx(1 / 3)
    values = compute_policy_loss(old, logp, adv, mask, cliprange=0.2)
    assert [v.item() for v in values] == pytest.approx([loss.item(), 1 / 3, metrics["actor/ppo_kl"], 1 / 3])


def test_wrong_settings_are_named():
    x, mask = torch.zeros(1, 2), torch.ones(1, 2)
    for name, config, message in [
        ("vanilla", {"clip_ratio_c": 1.0}, "clip_ratio_c"),
        ("dro", None, "dro_beta"),
        ("dro", {"policy_loss": {"dro_beta": -1}}, "dro_beta"),
        ("sapo", {"tau_pos": 0}, "tau_pos"),
        ("kl_cov", {"policy_loss": {"kl_cov_ratio": 0}}, "kl_cov_ratio"),
    ]:
        with pytest.raises(ValueError, match=message):
            get_policy_loss_fn(name)(x, x, x, mask, config=config)
    with pytest.raises(ValueError, match="did you mean 'vanilla'"):
        get_policy_loss_fn("vanila")
    with pytest.raises(ValueError, match="cliprange"):
        compute_policy_loss(x, x, x, mask)


def test_a_users_loss_finds_the_counts():
    @register_policy_loss("mine_for_test")
    def mine(old_log_prob, log_prob, advantages, response_mask, loss_agg_mode, config, rollout_is_weights=None):
        return log_prob.sum() / config.global_batch_info["batch_num_tokens"] * config.clip_ratio, {}

    try:
        config = with_batch_info({"clip_ratio": 0.5}, batch_num_tokens=4)
        assert get_policy_loss_fn("mine_for_test")(None, torch.ones(2), None, None, "", config)[0].item() == 0.25
        assert config.get("absent", 7) == 7
        with pytest.raises(AttributeError, match="absent"):
            _ = config.absent
    finally:
        del POLICY_LOSS_REGISTRY["mine_for_test"]


@settings(max_examples=25, deadline=None)
@given(batches)
def test_value_and_entropy_loss(params):
    b = draw(params)
    predicted, returns = b.adv, b.rewards
    clip = np.clip(predicted, b.values - 0.5, b.values + 0.5)
    token = np.maximum((predicted - returns) ** 2, (clip - returns) ** 2)[b.mask]
    share = ((clip - returns) ** 2 > (predicted - returns) ** 2)[b.mask]
    loss, clipfrac = compute_value_loss(tensor(predicted), tensor(returns), tensor(b.values), tensor(b.mask), 0.5)
    assert loss.item() == pytest.approx(0.5 * token.mean() if len(token) else 0.0)
    assert clipfrac.item() == pytest.approx(share.mean() if len(share) else 0.0, abs=1e-6)
    args = (tensor(predicted), tensor(returns), tensor(b.values), tensor(b.mask), 0.5)
    counted, _ = compute_value_loss(*args, dp_size=2, batch_num_tokens=7)  # VeRL's arguments
    assert counted.item() == pytest.approx(compute_value_loss(*args, global_batch_info={"dp_size": 2, "batch_num_tokens": 7})[0].item())
    assert counted.item() == pytest.approx(0.5 * 2 * token.sum() / 7)

    logits = b.rng.normal(size=(b.rows, b.width, 5))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    entropy = -(p * np.log(p)).sum(-1)[b.mask]
    got = compute_entropy_loss(tensor(logits), tensor(b.mask))
    assert got.item() == pytest.approx(entropy.mean() if len(entropy) else 0.0)
    half = compute_entropy_loss(tensor(logits), tensor(b.mask), global_batch_info={"batch_num_tokens": 2 * max(1, len(entropy))})
    assert half.item() == pytest.approx(got.item() / 2)
