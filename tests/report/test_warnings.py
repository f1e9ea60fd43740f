"""Sick runs are named, healthy ones are left in peace."""

import math
import random

import pytest
from fake_runs import metrics_row

from ragen.report.warnings import current_warnings, warning_spans

TAGS = ("TicTacToe", "NashNew")


def history(fault="", steps=60):
    rng = random.Random(1)
    return [metrics_row(step, steps, rng, fault, TAGS) for step in range(steps + 1)]


def codes(found):
    return {warning.code for warning in found}


def test_a_healthy_run_has_no_warning():
    rows = history()
    assert warning_spans(rows) == []
    assert all(current_warnings(rows[:n]) == [] for n in range(len(rows) + 1))


@pytest.mark.parametrize(
    ("fault", "expected", "first"),
    [
        ("broken_mask", {"broken_mask"}, (1, 1)),
        ("collapsed", {"entropy_collapse", "success_collapse", "invalid_rising", "no_signal"}, (31, 45)),
        ("dead_opponent", {"dead_opponent"}, (19, 19)),
    ],
)
def test_a_sick_run_is_named_with_its_steps(fault, expected, first):
    found = warning_spans(history(fault))
    assert codes(found) == expected
    for warning in found:
        assert first[0] <= warning.steps[0] <= first[1] and warning.steps[1] == 60, warning
        assert warning.text and warning.remedy
    assert [w.severity for w in found] == sorted((w.severity for w in found), key=lambda s: s != "bad")


def test_dead_opponent_names_the_tag():
    (warning,) = current_warnings(history("dead_opponent"))
    assert "TicTacToe above all" in warning.text


@pytest.mark.parametrize("value", [math.nan, math.inf, "NaN", "nan"])
def test_a_gradient_that_is_not_finite(value):
    rows = history()
    rows[-1]["actor/grad_norm"] = value
    assert codes(current_warnings(rows)) == {"nonfinite"}


def test_counts_are_shares_of_the_episodes():
    rows = history()
    rows[-1]["rollout/aborted"] = 2.0  # of 256
    assert current_warnings(rows) == []
    rows[-1]["rollout/aborted"] = 100.0
    assert "39%" in current_warnings(rows)[0].text


@pytest.mark.parametrize(("row", "code"), [
    ({"rollout/trained_share": 1.0}, "broken_mask"),
    ({"rollout/trained_share": 0.0}, "broken_mask"),
    ({"rollout/trained_tokens": 30000, "rollout/gen_tokens": 21000}, "broken_mask"),
    ({"rollout/logprob_diff_mean": 0.2}, "engine_disagreement"),
    ({"rollout/logprob_diff_mean": 0.004}, "engine_disagreement"),  # 2e-6 when it began
])  # fmt: skip
def test_signs_of_one_step(row, code):
    rows = history()
    rows[-1] |= row
    assert codes(current_warnings(rows)) == {code}


@pytest.mark.parametrize(("row", "code"), [
    ({"rollout/truncated": 0.3}, "truncated"),
    ({"rollout/cut_at_limit": 0.3}, "truncated"),
    ({"actor/pg_clipfrac": 0.6}, "large_update"),
    ({"actor/ppo_kl": 0.5}, "large_update"),
])  # fmt: skip
def test_signs_that_must_last(row, code):
    rows = history()
    rows[-1] |= row
    assert code not in codes(current_warnings(rows))
    for late in rows[-3:]:
        late |= row
    assert code in codes(current_warnings(rows))


def test_a_row_without_metrics_fires_nothing():
    assert current_warnings([]) == [] and warning_spans([{"step": 0}, {"step": 1, "train/A/success": 0.5}]) == []
