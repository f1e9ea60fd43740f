"""Every advantage estimator against its formula in plain NumPy loops, on ragged batches whose rewards
stand anywhere: on sampled tokens, in the holes between turns and after the end."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ragged_batches import batches, draw, tensor

from verl.trainer.ppo.advantages_rae import update_role_baselines
from verl.trainer.ppo.core_algos import (
    ADV_ESTIMATOR_REGISTRY,
    AdvantageEstimator,
    get_adv_estimator_fn,
    register_adv_est,
)

EPS = 1e-6


def spread(per_row, mask):
    return np.asarray(per_row)[:, None] * mask


def by_group(b, scores, fn):
    """fn(scores of the group, position within it) for each row."""
    out = []
    for i in range(b.rows):
        members = [j for j in range(b.rows) if b.uid[j] == b.uid[i]]
        out.append(fn([scores[j] for j in members], members.index(i), members))
    return np.array(out)


def whiten(values, mask):
    chosen = values[mask]
    std = np.sqrt(chosen.var(ddof=1) + 1e-8) if len(chosen) > 1 else 1.0
    return np.where(mask, (values - (chosen.mean() if len(chosen) else 0.0)) / std, 0.0)


def compacted(b):
    """For each row: the sampled positions, their rewards (those of unsampled ones moved back) and values."""
    for i in range(b.rows):
        at = np.flatnonzero(b.mask[i])
        rewards = np.zeros(len(at))
        for t in range(b.width):
            if len(at):
                rewards[max(0, np.searchsorted(at, t, side="right") - 1)] += b.rewards[i, t]
        yield i, at, rewards, b.values[i][at]


def call(name, b, **kwargs):
    kwargs.setdefault("index", b.uid)
    advantages, returns = get_adv_estimator_fn(name)(
        token_level_rewards=tensor(b.rewards), response_mask=tensor(b.mask), **kwargs
    )
    assert advantages.shape == returns.shape == b.mask.shape
    assert not advantages[~tensor(b.mask)].any() and torch.isfinite(advantages).all()
    return advantages.numpy(), returns.numpy()


@settings(max_examples=40, deadline=None)
@given(batches, st.booleans())
def test_grpo(params, by_std):
    b = draw(params)
    scores = b.rewards.sum(1)

    def formula(group, k, _):
        if len(group) == 1:  # documented: mean 0, deviation 1
            return group[0] / (1 + EPS) if by_std else group[0]
        centred = group[k] - np.mean(group)
        return centred / (np.std(group, ddof=1) + EPS) if by_std else centred

    got, returns = call("grpo", b, norm_adv_by_std_in_grpo=by_std)
    np.testing.assert_allclose(got, spread(by_group(b, scores, formula), b.mask), atol=1e-9)
    np.testing.assert_array_equal(got, returns)


@settings(max_examples=40, deadline=None)
@given(batches)
def test_rloo_and_opo_and_gpg(params):
    b = draw(params)
    scores, lengths = b.rewards.sum(1), b.mask.sum(1)

    def rloo(group, k, _):
        return group[k] - np.mean(np.delete(group, k)) if len(group) > 1 else group[k]

    def opo(group, k, members):
        if len(group) == 1:
            return group[k]
        weights = lengths[members]
        return group[k] - (np.dot(weights, group) / weights.sum() if weights.sum() else 0.0)

    def gpg(group, k, _):
        return group[k] - (np.mean(group) if len(group) > 1 else 0.0)

    np.testing.assert_allclose(call("rloo", b)[0], spread(by_group(b, scores, rloo), b.mask), atol=1e-9)
    np.testing.assert_allclose(call("opo", b)[0], spread(by_group(b, scores, opo), b.mask), atol=1e-9)
    alpha = b.rows / max(1, np.count_nonzero(scores)) if scores.any() else 1.0
    np.testing.assert_allclose(call("gpg", b, f_norm=2.0)[0], spread(alpha * by_group(b, scores, gpg) / 2.0, b.mask), atol=1e-9)
    np.testing.assert_allclose(call("gpg", b, alpha=3.0)[0], spread(3.0 * by_group(b, scores, gpg), b.mask), atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(batches, st.booleans())
def test_grpo_passk(params, by_std):
    b = draw(params)
    b.uid = np.array([f"g{i // 2 % 2}" for i in range(b.rows)], dtype=object)  # rows 0 and 1 together, 4 and 5 join them
    if b.rows in (1, 3, 5, 7) and list(b.uid).count(b.uid[-1]) == 1:
        with pytest.raises(ValueError, match="has one member"):
            call("grpo_passk", b, norm_adv_by_std_in_grpo=by_std)
        return

    def formula(group, k, _):
        best, second = sorted(group, reverse=True)[:2]
        if group[k] != best or best == second:
            return 0.0
        return (best - second) / (np.std(group, ddof=1) + EPS if by_std else 1.0)

    got = call("grpo_passk", b, norm_adv_by_std_in_grpo=by_std)[0]
    np.testing.assert_allclose(got, spread(by_group(b, b.rewards.sum(1), formula), b.mask), atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(batches)
def test_gdpo(params):
    b = draw(params)
    columns = {"win": b.rng.normal(size=b.rows), "format": b.rng.integers(0, 2, b.rows) * 100.0}

    def normed(group, k, _):
        return group[k] / (1 + EPS) if len(group) == 1 else (group[k] - np.mean(group)) / (np.std(group, ddof=1) + EPS)

    config = {"gdpo_reward_keys": ["win", "format"], "gdpo_reward_weights": [1.0, 0.5]}
    total = by_group(b, columns["win"], normed) + 0.5 * by_group(b, columns["format"], normed)
    got = call("gdpo", b, config=config, non_tensor_batch=columns)[0]
    np.testing.assert_allclose(got, whiten(spread(total, b.mask), b.mask), atol=1e-7)
    alone = whiten(spread(by_group(b, b.rewards.sum(1), normed), b.mask), b.mask)
    np.testing.assert_allclose(call("gdpo", b)[0], alone, atol=1e-7)
    with pytest.raises(ValueError, match="'lose'"):
        call("gdpo", b, config={"gdpo_reward_keys": ["lose"]}, non_tensor_batch=columns)
    with pytest.raises(ValueError, match="2 rewards"):
        call("gdpo", b, config=config | {"gdpo_reward_weights": [1.0]}, non_tensor_batch=columns)


@settings(max_examples=40, deadline=None)
@given(batches, st.floats(0.5, 1.0), st.floats(0.5, 1.0))
def test_gae(params, gamma, lam):
    b = draw(params)
    raw, returns = np.zeros_like(b.values), np.zeros_like(b.values)
    for i, at, rewards, values in compacted(b):
        for k in range(len(at)):  # the sum that defines it: sum_l (gamma lam)^l delta_{k+l}
            after = np.append(values[1:], 0.0)
            deltas = rewards + gamma * after - values
            raw[i, at[k]] = sum((gamma * lam) ** (m - k) * deltas[m] for m in range(k, len(at)))
            returns[i, at[k]] = raw[i, at[k]] + values[k]
    got, got_returns = call("gae", b, values=tensor(b.values), gamma=gamma, lam=lam)
    np.testing.assert_allclose(got, whiten(raw, b.mask), atol=1e-9)
    np.testing.assert_allclose(got_returns, returns, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(batches, st.floats(0.5, 1.0), st.floats(0.5, 1.0), st.floats(0.5, 1.0))
def test_bi_level_gae(params, gamma, lam, high):
    b = draw(params)
    raw, returns = np.zeros_like(b.values), np.zeros_like(b.values)
    for i, at, rewards, values in compacted(b):
        # turns: runs of neighbouring positions
        turns = [list(run) for run in np.split(np.arange(len(at)), np.flatnonzero(np.diff(at) > 1) + 1) if len(run)]
        turn_advantage, following = 0.0, 0.0
        for turn in reversed(turns):
            *inside, end = turn
            delta = rewards[end] + high * following - values[end]
            turn_advantage = delta + high * lam * turn_advantage
            following = rewards[inside].sum() + values[end]
            earned = rewards[turn].copy()
            earned[-1] = turn_advantage + values[end]
            advantage, after = 0.0, 0.0
            for k, token in reversed(list(enumerate(turn))):
                advantage = earned[k] + gamma * after - values[token] + gamma * lam * advantage
                after = values[token]
                raw[i, at[token]], returns[i, at[token]] = advantage, advantage + values[token]
    got, got_returns = call("bi_level_gae", b, values=tensor(b.values), gamma=gamma, lam=lam, high_level_gamma=high)
    np.testing.assert_allclose(got, whiten(raw, b.mask), atol=1e-9)
    np.testing.assert_allclose(got_returns, returns, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(batches)
def test_bi_level_gae_without_discounts_is_gae(params):
    b = draw(params)
    kwargs = {"values": tensor(b.values), "gamma": 1.0, "lam": 1.0}
    for one, other in zip(call("bi_level_gae", b, high_level_gamma=1.0, **kwargs), call("gae", b, **kwargs), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)


def test_a_turn_that_earned_nothing_is_a_turn():
    """Two turns, the second (last) one with reward 0: the first turn's reward must not leak past its end
    discount, and the turn of reward 0 must bootstrap like any other (VeRL's relatives found turns by rewards)."""
    mask = torch.tensor([[1, 1, 0, 1, 1]]).bool()
    values = torch.tensor([[0.1, 0.2, 9.0, 0.3, 0.4]], dtype=torch.float64)
    rewards = torch.tensor([[0, 1.0, 0, 0, 0]], dtype=torch.float64)
    _, returns = get_adv_estimator_fn("bi_level_gae")(rewards, values, mask, gamma=0.9, lam=0.5, high_level_gamma=0.5)
    second = 0.0 - 0.4
    first = 1.0 + 0.5 * 0.4 - 0.2 + 0.5 * 0.5 * second
    assert returns[0, 4].item() == pytest.approx(second + 0.4)
    assert returns[0, 1].item() == pytest.approx(first + 0.2)
    # within the turn: delta = 0 + 0.9 V(end) - V, plus 0.9 * 0.5 of the end's advantage
    assert returns[0, 3].item() == pytest.approx((0.9 * 0.4 - 0.3) + 0.9 * 0.5 * second + 0.3)


@pytest.mark.parametrize("name", ["gae", "bi_level_gae", "reinforce_plus_plus", "remax"])
@pytest.mark.parametrize("at", [0, 2, 4, 5])
def test_a_reward_on_a_masked_position_is_not_dropped(name, at):
    """Without critic and discount the return of the first sampled token is all the row earned."""
    mask = torch.tensor([[0, 1, 0, 1, 0, 0]]).bool()
    rewards = torch.zeros(1, 6, dtype=torch.float64)
    rewards[0, at] = 1.0
    kwargs = {
        "values": torch.zeros(1, 6, dtype=torch.float64),
        "gamma": 1.0,
        "lam": 1.0,
        "reward_baselines": torch.zeros(1, dtype=torch.float64),
    }
    _, returns = get_adv_estimator_fn(name)(token_level_rewards=rewards, response_mask=mask, **kwargs)
    assert returns[0, 1].item() == 1.0
    assert returns[0, 3].item() == (1.0 if at >= 4 else 0.0)


@settings(max_examples=40, deadline=None)
@given(batches, st.floats(0.5, 1.0))
def test_reinforce_plus_plus_and_remax(params, gamma):
    b = draw(params)
    discounted, plain = np.zeros_like(b.values), np.zeros_like(b.values)
    for i, at, rewards, _ in compacted(b):
        for k in range(len(at)):
            discounted[i, at[k]] = sum(gamma ** (m - k) * rewards[m] for m in range(k, len(at)))
            plain[i, at[k]] = rewards[k:].sum()
    advantages, returns = call("reinforce_plus_plus", b, config=SimpleNamespace(gamma=gamma))
    np.testing.assert_allclose(returns, discounted, atol=1e-9)
    np.testing.assert_allclose(advantages, whiten(discounted, b.mask), atol=1e-9)

    greedy = b.rng.normal(size=b.rows)
    advantages, returns = call("remax", b, reward_baselines=tensor(greedy))
    np.testing.assert_allclose(returns, plain, atol=1e-9)
    np.testing.assert_allclose(advantages, np.where(b.mask, plain - greedy[:, None], 0.0), atol=1e-9)

    def centred(group, k, _):
        return group[k] - (np.mean(group) if len(group) > 1 else 0.0)

    want = whiten(spread(by_group(b, b.rewards.sum(1), centred), b.mask), b.mask)
    np.testing.assert_allclose(call("reinforce_plus_plus_baseline", b)[0], want, atol=1e-9)


def test_rae_is_a_moving_average_a_game_and_role():
    state = {}
    fn = get_adv_estimator_fn(AdvantageEstimator.RAE)
    rewards = torch.tensor([[0, 1.0], [0, 0.0], [1.0, 0], [0, 1.0]], dtype=torch.float64)
    mask = torch.tensor([[1, 0], [1, 1], [1, 1], [0, 0]]).bool()
    games, roles = ["ttt", "ttt", "spy", "ttt"], ["X", "O", "X", "X"]
    got, _ = fn(rewards, mask, game=games, role=roles, state=state, decay=0.5)
    # X of ttt: two rewards of 1 -> 1 - 0.5^2; O: one of 0; X of spy: one of 1 -> 0.5
    assert got.tolist() == [[0.25, 0], [0, 0], [0.5, 0.5], [0, 0]]
    assert state == {"role_baselines": {"ttt": {"X": 0.75, "O": 0.0}, "spy": {"X": 0.5}}}

    resumed = json.loads(json.dumps(state))
    again, _ = fn(torch.zeros(1, 2), mask[:1], game=["ttt"], role=["X"], state=resumed, decay=0.5)
    assert again[0, 0].item() == -0.375 and state["role_baselines"]["ttt"]["X"] == 0.75
    with pytest.raises(ValueError, match="decay"):
        update_role_baselines({}, [], [], [], decay=1.0)
    with pytest.raises(ValueError, match="differ in number: 1, 0, 1"):
        update_role_baselines({}, ["a"], [], [1.0])


def test_what_the_config_says_of_an_estimator_counts():
    rewards, mask = torch.tensor([[1.0], [0.0]], dtype=torch.float64), torch.ones(2, 1)
    rae = get_adv_estimator_fn("rae")
    got, _ = rae(rewards[:1], mask[:1], game=["g"], role=["r"], state={}, config={"rae_decay": 0.75})
    assert got.item() == 0.75  # 1 - (1 - 0.75) 1
    gpg = get_adv_estimator_fn("gpg")
    got, _ = gpg(rewards, mask, index=["a", "a"], config={"gpg_f_norm": 4.0, "gpg_alpha": 3.0})
    assert got[:, 0].tolist() == [0.375, -0.375]  # 3 (+-1/2) / 4
    got, _ = gpg(rewards, mask, index=["a", "a"], config={"gpg_f_norm": 1.0, "gpg_alpha": None})
    assert got[:, 0].tolist() == [1.0, -1.0]  # alpha: 2 rows, 1 reward that is not 0


@settings(max_examples=25, deadline=None)
@given(batches)
def test_rae_equals_single_steps_on_equal_rewards_and_ignores_order(params):
    b = draw(params)
    games, roles = [str(u) for u in b.uid], [f"r{i % 2}" for i in range(b.rows)]
    one, two, order = {}, {}, b.rng.permutation(b.rows)
    scores = b.rewards.sum(1)
    first = update_role_baselines(one, games, roles, scores, 0.9)
    second = update_role_baselines(two, [games[i] for i in order], [roles[i] for i in order], scores[order], 0.9)
    assert [first[i] for i in order] == second

    steps = 0.0
    for _ in range(5):
        steps = 0.9 * steps + 0.1 * 0.7
    assert update_role_baselines({}, ["a"] * 5, ["b"] * 5, [0.7] * 5, 0.9)[0] == pytest.approx(steps)


GROUP = ["grpo", "rloo", "opo", "gpg", "gdpo", "reinforce_plus_plus_baseline"]


@pytest.mark.parametrize("name", [*GROUP, "gae", "bi_level_gae", "reinforce_plus_plus", "remax"])
@settings(max_examples=10, deadline=None)
@given(params=batches)
def test_order_of_rows_does_not_matter(name, params):
    b = draw(params)
    greedy = b.rng.normal(size=b.rows)
    order = b.rng.permutation(b.rows)
    shuffled = SimpleNamespace(**{**vars(b), **{key: getattr(b, key)[order] for key in ("mask", "rewards", "values", "uid")}})
    got = call(name, b, values=tensor(b.values), reward_baselines=tensor(greedy))[0]
    other = call(name, shuffled, values=tensor(shuffled.values), reward_baselines=tensor(greedy[order]))[0]
    np.testing.assert_allclose(got[order], other, atol=1e-9)


def test_registry():
    assert {e.value for e in AdvantageEstimator} <= set(ADV_ESTIMATOR_REGISTRY)
    with pytest.raises(ValueError, match="did you mean 'grpo'"):
        get_adv_estimator_fn("grp")
    with pytest.raises(ValueError, match="already registered"):
        register_adv_est("grpo")(lambda: None)
    mine = register_adv_est("mine_for_test")(lambda **kw: kw)
    try:
        assert get_adv_estimator_fn("mine_for_test") is mine and register_adv_est("mine_for_test")(mine) is mine
    finally:
        del ADV_ESTIMATOR_REGISTRY["mine_for_test"]  # the registry is the process's: other tests read it


def test_wrong_shapes_are_named():
    rewards, mask = torch.zeros(2, 3), torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"index names 1 groups for 2 rows"):
        get_adv_estimator_fn("grpo")(rewards, mask, index=["a"])
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 2\)"):
        get_adv_estimator_fn("grpo")(rewards, mask[:, :2], index=["a", "b"])
    with pytest.raises(ValueError, match="values"):
        get_adv_estimator_fn("gae")(rewards, torch.zeros(2), mask)
    with pytest.raises(ValueError, match="reward_baselines"):
        get_adv_estimator_fn("remax")(rewards, torch.zeros(3), mask)
