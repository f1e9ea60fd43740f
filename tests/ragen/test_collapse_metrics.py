"""Collapse diagnostics on policies whose entropies are known in closed form."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragen.trainer.collapse_metrics import collapse_metrics, compute_collapse_metrics, cross_scores, first_turn_pairs

VOCAB = 7


def bigram(seed):
    """A policy that looks at the last token alone: log p(next | last), (V, V)."""
    return torch.log_softmax(
        torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2, -1
    )


def scorer(table, calls=None):
    def log_probs(ids, attention, positions):
        assert ids.shape == attention.shape == positions.shape
        if calls is not None:
            calls.append(ids.shape[0])
        return table[ids[:, :-1], ids[:, 1:]]

    return log_probs


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 4), st.integers(1, 9))
def test_cross_scores(seed, reasonings, prompts, rows_per_call):
    rng = np.random.default_rng(seed)
    table = bigram(seed)
    xs = [rng.integers(VOCAB, size=rng.integers(1, 5)).tolist() for _ in range(prompts)]
    rs = [rng.integers(VOCAB, size=rng.integers(1, 6)).tolist() for _ in range(reasonings)]
    calls = []
    got = cross_scores(xs, rs, scorer(table, calls), rows_per_call=rows_per_call)
    want = [[sum(float(table[a, b]) for a, b in zip([x[-1], *r], r, strict=False)) for x in xs] for r in rs]
    np.testing.assert_allclose(got, want)
    assert max(calls) <= rows_per_call and sum(calls) == reasonings * prompts


def exact(conditional):
    """H(R|X), H(R), I(X;R) of p(r|x), (N, R), under uniform x, by summation."""
    marginal = conditional.mean(0)
    h_rx = -(conditional * np.log(conditional)).sum(1).mean()
    h_r = -(marginal * np.log(marginal)).sum()
    return h_rx, h_r, h_r - h_rx


def test_estimates_match_the_exact_information():
    """Replies drawn in exact proportion: the estimates are the entropies themselves."""
    counts = np.array([[6, 3, 1], [1, 4, 5]])  # of 10 replies to each of two prompts
    conditional = counts / 10
    own = np.repeat([0, 1], 10)
    replies = np.concatenate([np.repeat([0, 1, 2], row) for row in counts])
    scores = np.log(conditional[:, replies].T)
    got = collapse_metrics(scores, own, [1] * 20)
    h_rx, h_r, mi = exact(conditional)
    assert got["collapse/conditional_entropy_seq_est"] == pytest.approx(h_rx)
    assert got["collapse/reasoning_entropy_seq_est"] == pytest.approx(h_r)
    assert got["collapse/mi_seq_estimate"] == got["collapse/mi_estimate"] == pytest.approx(mi)
    # the likelier prompt is right for 6 of 10 replies of the first and 4 + 5 of the second
    assert got["collapse/retrieval_accuracy"] == pytest.approx(15 / 20)
    assert got["collapse/retrieval_chance_level"] == 0.5 and got["collapse/retrieval_above_chance"] == pytest.approx(0.25)


def test_the_two_collapses_are_told_apart():
    n = 8
    template = np.full((n, n), math.log(1 / 50))  # every prompt, the same broad distribution
    got = collapse_metrics(template, range(n), [1] * n)
    assert got["collapse/mi_seq_estimate"] == pytest.approx(0.0) and got["collapse/conditional_entropy_seq_est"] > 3
    determined = np.where(np.eye(n, dtype=bool), 0.0, -1e9)  # each prompt, one reply of its own
    got = collapse_metrics(determined, range(n), [1] * n)
    assert got["collapse/conditional_entropy_seq_est"] == 0.0
    assert got["collapse/mi_seq_estimate"] == pytest.approx(math.log(n)) == got["collapse/mi_upper_bound"]
    assert got["collapse/retrieval_accuracy"] == 1.0


def test_per_token_scores_divide_by_the_length():
    scores = np.array([[-2.0, -4.0], [-9.0, -3.0]])
    got = collapse_metrics(scores, [0, 1], [2, 3])
    assert got["collapse/conditional_entropy_est"] == pytest.approx((1.0 + 1.0) / 2)
    mixture = [math.log((math.exp(-1) + math.exp(-2)) / 2), math.log((math.exp(-3) + math.exp(-1)) / 2)]
    assert got["collapse/reasoning_entropy_est"] == pytest.approx(-np.mean(mixture))


def test_identical_prompts_are_one():
    scores = np.array([[-1.0, -1.0, -5.0], [-1.0, -1.0, -5.0], [-5.0, -5.0, -1.0]])
    got = collapse_metrics(scores, [0, 1, 2], [1, 1, 1], identical=[0, 0, 1])
    assert got["collapse/retrieval_accuracy"] == 1.0
    assert got["collapse/retrieval_chance_level"] == pytest.approx((2 / 3 + 2 / 3 + 1 / 3) / 3)


def test_first_turn_pairs():
    ids = torch.tensor([[1, 2, 3, 4, 5, 6, 0], [1, 2, 3, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6, 7]])
    sampled = torch.tensor([[0, 0, 1, 1, 0, 0, 0], [0] * 7, [0, 1, 1, 1, 1, 1, 1]]).bool()  # of input_ids
    mask = sampled[:, 1:]
    prompts, replies = first_turn_pairs(ids, mask)
    assert prompts[0] == [1, 2] and replies == [[3, 4], [], [2, 3, 4, 5, 6, 7]]
    assert first_turn_pairs(ids, mask, end_of_thought=[4, 5])[1] == [[3, 4], [], [2, 3]]


def test_from_a_batch():
    """A policy whose first reply token depends on the prompt's last token, then copies: all is retrievable."""
    table = torch.full((VOCAB, VOCAB), -20.0, dtype=torch.float64)
    table[range(VOCAB), range(VOCAB)] = 0.0
    rows = [[5, g, g, g] for g in (1, 2, 3) for _ in range(2)] + [[5, 4, 0, 0]]
    mask = torch.tensor([[0, 1, 1]] * 6 + [[0, 0, 0]]).bool()
    groups = ["a", "a", "b", "b", "c", "c", "d"]
    got = compute_collapse_metrics(torch.tensor(rows), mask, groups, scorer(table))
    assert got["collapse/retrieval_accuracy"] == 1.0 and got["collapse/mi_seq_estimate"] == pytest.approx(math.log(3))
    assert got["collapse/valid_thinking_rate"] == pytest.approx(6 / 7)
    fewer = compute_collapse_metrics(torch.tensor(rows), mask, groups, scorer(table), max_samples=3)
    assert fewer["collapse/mi_upper_bound"] == pytest.approx(math.log(3))
    assert compute_collapse_metrics(torch.tensor(rows[:2]), mask[:2], groups[:2], scorer(table)) == {}


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="need 2 or more"):
        collapse_metrics(np.zeros((2, 1)), [0, 0], [1, 1])
    with pytest.raises(ValueError, match="at least one token"):
        collapse_metrics(np.zeros((2, 2)), [0, 1], [1, 0])
