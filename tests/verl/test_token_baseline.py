"""The optimal token baseline against loops over groups and members, and VeRL's second names for GRPO and RLOO."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ragged_batches import batches, draw, tensor

from verl.trainer.ppo.core_algos import (
    compute_grpo_outcome_advantage,
    compute_multi_turn_optimal_token_baseline_advantage,
    compute_optimal_token_baseline_advantage,
    get_adv_estimator_fn,
)


def token_baseline(b, squares, weights=None, tail=True):
    """Advantages (B, T): member by member, token by token."""
    result = np.zeros(b.mask.shape)
    returns, energy = {}, {}
    for i in range(b.rows):
        at = np.flatnonzero(b.mask[i])
        rewards = np.zeros(len(at))
        for t in range(b.width):  # a reward between turns belongs to the token before it
            if len(at):
                rewards[max(0, np.searchsorted(at, t, side="right") - 1)] += b.rewards[i, t]
        returns[i] = np.array([rewards[k:].sum() for k in range(len(at))])
        norm = 1 - 2 * np.exp(b.old[i, at]) + squares[i, at]
        energy[i] = np.cumsum(norm if weights is None else norm * weights[i, at] ** 2)
    for i in range(b.rows):
        group = [j for j in range(b.rows) if b.uid[j] == b.uid[i]]
        for k, t in enumerate(np.flatnonzero(b.mask[i])):
            there = [j for j in group if len(returns[j]) > k]
            baseline = sum(returns[j][k] * energy[j][k] for j in there) / (sum(energy[j][k] for j in there) + 1e-8)
            alone = len(group) == 1 or (tail and len(there) == 1)
            result[i, t] = returns[i][k] - (0.0 if alone else baseline)
    return result


def estimate(b, squares, name="optimal_token_baseline", **kwargs):
    return get_adv_estimator_fn(name)(
        token_level_rewards=tensor(b.rewards), response_mask=tensor(b.mask), index=b.uid, old_log_probs=tensor(b.old),
        sum_pi_squared=tensor(squares), config=None, **kwargs,
    )  # fmt: skip


def squares_of(b):
    """What sum_v pi(v)^2 may be where a token has probability pi: at least pi^2, at most pi^2 + (1 - pi)^2."""
    p = np.exp(b.old)
    return p**2 + b.rng.random(p.shape) * (1 - p) ** 2


@settings(max_examples=60, deadline=None)
@given(batches, st.booleans(), st.booleans(), st.sampled_from(["optimal_token_baseline", "tir_optimal_token_baseline"]))
def test_against_loops(params, weighted, tail, name):
    b = draw(params)
    squares, weights = squares_of(b), b.rng.uniform(0, 2, b.mask.shape) if weighted else None
    extra = {"rollout_is_weights": tensor(weights)} if weighted else {}
    advantages, returns = estimate(b, squares, name, handle_zero_tail=tail, **extra)
    np.testing.assert_allclose(advantages.numpy(), token_baseline(b, squares, weights, tail), atol=1e-8)
    assert not advantages[~tensor(b.mask)].any() and not returns[~tensor(b.mask)].any()
    np.testing.assert_allclose(returns[:, 0].numpy() * b.mask[:, 0], b.rewards.sum(1) * b.mask[:, 0], atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(batches)
def test_equal_outcomes_leave_nothing_but_the_tail(params):
    """Members that end with one and the same reward have advantage 0 wherever another member is as long."""
    b = draw(params, empty_rows=False)
    b.rewards = np.zeros_like(b.rewards)
    b.rewards[:, -1] = 0.7
    got = estimate(b, squares_of(b))[0].numpy()
    lengths = b.mask.sum(1)
    for i in range(b.rows):
        others = [lengths[j] for j in range(b.rows) if j != i and b.uid[j] == b.uid[i]]
        shared = np.flatnonzero(b.mask[i])[: max(others, default=0)]
        np.testing.assert_allclose(got[i, shared], 0.0, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(batches)
def test_holes_between_turns_do_not_count(params):
    """The same tokens with observations between them and without have the same advantages."""
    b = draw(params)
    b.rewards = b.rewards * b.mask
    squares = squares_of(b)
    want = estimate(b, squares)[0].numpy()
    at = [np.flatnonzero(m) for m in b.mask]

    def without_holes(values):
        return np.stack([np.pad(row[columns], (0, b.width - len(columns))) for row, columns in zip(values, at, strict=True)])

    b.old, b.rewards, b.mask = without_holes(b.old), without_holes(b.rewards), without_holes(b.mask)
    got = estimate(b, without_holes(squares))[0].numpy()
    np.testing.assert_allclose(got, without_holes(want), atol=1e-9)


def test_what_it_needs_is_named():
    b = draw((2, 3, 4))
    rewards, mask = tensor(b.rewards), tensor(b.mask)
    with pytest.raises(ValueError, match="needs old_log_probs"):
        compute_optimal_token_baseline_advantage(rewards, mask, b.uid)
    with pytest.raises(ValueError, match="needs sum_pi_squared"):
        compute_multi_turn_optimal_token_baseline_advantage(rewards, mask, b.uid, tensor(b.old))
    with pytest.raises(ValueError, match=r"needs sum_pi_squared \(3, 4\), got \(3, 3\)"):
        compute_optimal_token_baseline_advantage(rewards, mask, b.uid, tensor(b.old), tensor(b.old)[:, 1:])


@settings(max_examples=30, deadline=None)
@given(batches, st.booleans())
def test_vectorized_names(params, by_std):
    b = draw(params)
    args = tensor(b.rewards), tensor(b.mask), b.uid
    grpo = get_adv_estimator_fn("grpo_vectorized")(*args, norm_adv_by_std_in_grpo=by_std, config=None)[0]
    assert torch.equal(grpo, compute_grpo_outcome_advantage(*args, norm_adv_by_std_in_grpo=by_std)[0])
    rloo = get_adv_estimator_fn("rloo_vectorized")(*args, config=None)[0].numpy()
    scores = b.rewards.sum(1)
    for i in range(b.rows):
        others = [scores[j] for j in range(b.rows) if j != i and b.uid[j] == b.uid[i]]
        want = scores[i] - np.mean(others) if others else 0.0
        np.testing.assert_allclose(rloo[i], want * b.mask[i], atol=1e-9)
