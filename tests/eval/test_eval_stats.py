"""Intervals and tests against scipy, and against enumeration."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from ragen.eval import stats


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(max_examples=60, deadline=None)
def test_share_is_wilsons_interval(case):
    k, n = case
    found = stats.share(k, n)
    low, high = scipy_stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert found["value"] == k / n and found["n"] == n
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=1e-9)


def test_nothing_asked_has_no_score():
    assert stats.share(0, 0) == {"value": None, "low": None, "high": None, "n": 0}
    with pytest.raises(ValueError, match="3 successes out of 2"):
        stats.share(3, 2)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40))
@settings(max_examples=40, deadline=None)
def test_mean_is_students_interval(values):
    found = stats.mean(values)
    assert found["value"] == pytest.approx(np.mean(values))
    if np.std(values) > 1e-9:
        expected = scipy_stats.t.interval(0.95, len(values) - 1, np.mean(values), scipy_stats.sem(values))
        assert (found["low"], found["high"]) == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 400), st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_mcnemar_is_the_exact_sign_test(a, b):
    expected = scipy_stats.binomtest(a, a + b, 0.5).pvalue if a + b else 1.0
    assert stats.mcnemar(a, b) == pytest.approx(expected, rel=1e-6)


def test_mcnemar_of_many_pairs_does_not_overflow():
    assert stats.mcnemar(900, 1100) == pytest.approx(scipy_stats.binomtest(900, 2000, 0.5).pvalue, rel=1e-6)


def _rows(values):
    return [{"id": i, "success": v} for i, v in enumerate(values)]


def test_paired_difference_counts_and_drops_what_cannot_be_paired():
    a, b = _rows([1, 1, 0, 1, None]), _rows([0, 1, 1, 0, 1, 1])
    found = stats.paired_difference(a, b)
    assert (found["value"], found["n"], found["only_a"], found["only_b"]) == (0.25, 4, 2, 1)
    assert found["unmatched"] == 2  # id 4 has no score in a, id 5 is not there
    assert found["low"] < 0.25 < found["high"]
    assert found["p_value"] == 1.0
    with pytest.raises(ValueError, match="no row"):
        stats.paired_difference(_rows([1]), [{"id": "x", "success": 1}])


def test_paired_interval_covers_the_true_difference():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(400):
        outcome = rng.choice(4, size=150, p=[0.4, 0.2, 0.1, 0.3])  # both, only a, only b, neither: difference 0.1
        found = stats.paired_difference(_rows((outcome <= 1).astype(int)), _rows(np.isin(outcome, (0, 2)).astype(int)))
        inside += found["low"] <= 0.1 <= found["high"]
    assert 0.92 <= inside / 400 <= 0.98


def test_paired_difference_of_means_is_students_paired_test():
    rng = np.random.default_rng(1)
    a, b = rng.random(30), rng.random(30)
    found = stats.paired_difference(_rows(a), _rows(b))
    expected = scipy_stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert found["p_value"] == pytest.approx(expected.pvalue)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("n, c", [(1, 0), (1, 1), (5, 2), (6, 1), (6, 6)])
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(n, c):
    samples = [1] * c + [0] * (n - c)
    for k in range(1, n + 1):
        draws = list(itertools.combinations(samples, k))
        assert stats.pass_at_k(n, c, k) == pytest.approx(sum(map(max, draws)) / len(draws))
    with pytest.raises(ValueError):
        stats.pass_at_k(n, c, n + 1)


def test_majority_takes_the_earliest_of_equals_and_ignores_no_answer():
    assert stats.majority(["b", "a", "a", None, None, None]) == "a"
    assert stats.majority(["b", "a"]) == "b"
    assert stats.majority([None]) is None
    votes = [random.Random(3).choice("ab") for _ in range(9)]
    assert stats.majority(votes) == max("ab", key=votes.count)
