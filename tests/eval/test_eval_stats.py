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


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=40))
@settings(max_examples=40, deadline=None)
def test_mean_without_bounds_is_students_interval(values):
    found = stats.mean(values)
    assert found["value"] == pytest.approx(np.mean(values))
    if len(set(values)) == 1:
        assert found["low"] is None and found["high"] is None, "no spread seen is no interval of width 0"
    elif np.std(values) > 1e-6:
        expected = scipy_stats.t.interval(0.95, len(values) - 1, np.mean(values), scipy_stats.sem(values))
        assert (found["low"], found["high"]) == pytest.approx(expected, abs=1e-6)


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(max_examples=40, deadline=None)
def test_bounded_mean_of_yes_and_no_is_agresti_and_coulls_interval(case):
    """By the published closed form (which statsmodels' ``proportion_confint(method="agresti_coull")`` gives as well)."""
    k, n = case
    found = stats.mean([1.0] * k + [0.0] * (n - k), (0.0, 1.0))
    z = scipy_stats.norm.ppf(0.975)
    trials = n + z * z
    middle = (k + z * z / 2) / trials
    low, high = middle + np.array([-1, 1]) * z * np.sqrt(middle * (1 - middle) / trials)
    assert (found["low"], found["high"]) == pytest.approx((max(0, low), min(1, high)), abs=1e-9)


@given(st.floats(0, 1), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_equal_values_have_an_interval_that_narrows_with_their_number(value, n):
    found, more = stats.mean([value] * n, (0.0, 1.0)), stats.mean([value] * (4 * n), (0.0, 1.0))
    for one in (found, more):
        assert 0 <= one["low"] <= one["value"] <= one["high"] <= 1
    # 4n equal values leave a share of 1 - 0.025 ** (1 / (4n)) unseen at 2.5%: never less width than half of that
    assert found["high"] - found["low"] > more["high"] - more["low"] > (1 - 0.025 ** (1 / (4 * n))) / 2
    with pytest.raises(ValueError, match="outside their bounds"):
        stats.mean([1.5], (0.0, 1.0))


#: what four samples a question give, and values that are nearly always the same
BOUNDED = {
    "easy": (lambda rng, n: rng.binomial(4, 0.97, n) / 4, 0.97),
    "either": (lambda rng, n: rng.binomial(4, rng.beta(0.3, 0.3, n)) / 4, 0.5),
    "uniform": (lambda rng, n: rng.random(n), 0.5),
    "all but one in thirty": (lambda rng, n: np.where(rng.random(n) < 29 / 30, 0.5, 0.0), 0.5 * 29 / 30),
}


@pytest.mark.parametrize("n", [2, 6, 15, 40])
@pytest.mark.parametrize("shape", BOUNDED)
def test_bounded_intervals_cover(shape, n):
    """Of means, and (as differences to a constant of 0.5) of paired differences."""
    draw, truth = BOUNDED[shape]
    rng, inside, paired = np.random.default_rng(n), 0, 0
    for _ in range(300):
        values = draw(rng, n)
        found = stats.mean(list(values), (0.0, 1.0))
        inside += found["low"] <= truth <= found["high"]
        values = np.round(4 * values) / 4 if shape == "uniform" else values  # steps, else every test below counts 2^n sums
        found = stats.paired_difference(_rows(values), _rows([0.5] * n))
        paired += found["low"] <= truth - 0.5 <= found["high"]
    assert inside / 300 >= 0.92 and paired / 300 >= 0.92


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


def test_p_value_of_many_uneven_differences_is_students():
    rng = np.random.default_rng(1)
    a, b = rng.random(40), rng.random(40)
    assert stats.paired_difference(_rows(a), _rows(b))["p_value"] == pytest.approx(scipy_stats.ttest_rel(a, b).pvalue)


@given(st.lists(st.sampled_from([-1, -0.75, -0.5, -0.25, 0, 0, 0.25, 0.5, 0.75, 1]), min_size=1, max_size=9))
@settings(max_examples=80, deadline=None)
def test_p_value_counts_all_ways_to_swap_the_sides(differences):
    ways = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in itertools.product((1, -1), repeat=len(differences))]
    expected = sum(way >= abs(sum(differences)) for way in ways) / len(ways)  # quarters: exact in binary
    assert stats.sign_flip(differences) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=9))
@settings(max_examples=30, deadline=None)
def test_p_value_is_scipys_permutation_test(differences):
    differences = [round(d, 3) for d in differences]
    found = scipy_stats.permutation_test((differences,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert stats.sign_flip(differences) == pytest.approx(min(1.0, found.pvalue), abs=1e-9)


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=60))
@settings(max_examples=40, deadline=None)
def test_p_value_of_yes_and_no_is_mcnemars(differences):
    up, down = differences.count(1.0), differences.count(-1.0)
    assert stats.sign_flip(differences) == pytest.approx(stats.mcnemar(up, down))
    assert stats.sign_flip([0.3 * d for d in differences]) == pytest.approx(stats.mcnemar(up, down))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("size", [0.0, 0.2, -0.6, 1.0])
def test_identical_differences_are_no_certainty(n, size):
    found = stats.paired_difference(_rows([0.5 + size / 2] * n), _rows([0.5 - size / 2] * n))
    assert found["p_value"] == (1.0 if size == 0 else pytest.approx(2.0 ** (1 - n)))
    assert found["low"] <= found["value"] <= found["high"] and found["high"] - found["low"] > 1 / (n + 2)
    if n <= 5:
        assert found["low"] < 0 < found["high"] and found["p_value"] > 0.05, "five pairs cannot show a difference"


def test_scores_without_bounds_are_compared_too_and_print_without_an_interval():
    found = stats.paired_difference(_rows([12.0, 9.0]), _rows([5.0, 2.0]))  # rewards
    assert (found["value"], found["low"], found["high"], found["p_value"]) == (7.0, None, None, 0.5)
    assert stats.interval(found) == "[no interval]" and stats.interval(stats.mean([0.5], (0, 1)), form=".1f") == "[0.1, 0.9]"


def test_the_randomisation_test_rejects_no_more_often_than_it_says():
    rng = np.random.default_rng(5)
    p = [stats.sign_flip(list(rng.binomial(4, 0.6, 12) / 4 - rng.binomial(4, 0.6, 12) / 4)) for _ in range(800)]
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 2 * (0.05 * 0.95 / 800) ** 0.5


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
