"""VeRL's metrics: lists and Metric reduced by name, and best, worst and majority of several replies."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verl.trainer.ppo import metric_utils
from verl.trainer.ppo.metric_utils import bootstrap_metric, calc_maj_val, process_validation_metrics
from verl.utils.metric import AggregationType, Metric, reduce_metrics
from verl.utils.py_functional import append_to_dict

numbers = st.lists(st.floats(-5, 5), min_size=1, max_size=6)


@given(numbers, numbers)
def test_reduced_by_what_the_name_contains(first, second):
    given = {"loss": first, "t/max": first, "minutes": second, "none": [], "sum": Metric("sum", second)}
    before = dict(given)
    got = reduce_metrics(given)
    assert got == pytest.approx(
        {"loss": np.mean(first), "t/max": max(first), "minutes": min(second), "none": float("nan"), "sum": sum(second)}, nan_ok=True
    )
    assert given == before  # VeRL reduces in place
    assert metric_utils.reduce_metrics is reduce_metrics


@given(st.sampled_from(list(AggregationType)), st.lists(st.tuples(*[st.floats(-9, 9)] * 3), min_size=1, max_size=4))
def test_metric_over_ranks(kind, ranks):
    """Each of the ranks holds three values: mean and sum are of the ranks' mean, min and max of all."""
    metrics = [Metric(kind.value, list(values)) for values in ranks]
    table = np.array(ranks)
    want = {"mean": table.mean(), "sum": table.sum() / len(ranks), "min": table.min(), "max": table.max()}[kind.value]
    assert Metric.aggregate_dp(metrics) == pytest.approx(want)
    assert metrics[0].aggregate() == pytest.approx(getattr(np, kind.value)(ranks[0]))
    assert metrics[0].init_list().values == [] and metrics[0].init_list().aggregation is kind


def test_what_a_metric_takes():
    metric = Metric.from_dict({"a": torch.tensor([2.5])}, "mean")["a"]
    metric.append(Metric("mean", 1))
    metric.append(metric)
    assert metric.values == [2.5, 1, 2.5, 1]
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        metric.append(torch.zeros(2))
    with pytest.raises(ValueError, match="'text'"):
        metric.append("text")
    with pytest.raises(ValueError, match="cannot add"):
        metric.extend(Metric("sum"))
    with pytest.raises(ValueError):
        Metric("median")
    with pytest.raises(ValueError, match=r"numbers of values: \[4, 0\]"):
        Metric.aggregate_dp([metric, Metric("mean")])
    with pytest.raises(ValueError, match="at least one"):
        Metric.aggregate_dp([])


def test_lists_that_grow():
    held = {}
    for step in (1, 2):
        append_to_dict(held, {"loss": step, "actor/kl": [step, step], "m": Metric("max", step)}, prefix="actor/")
    assert held["actor/loss"] == [1, 2] and held["actor/kl"] == [1, 1, 2, 2] and held["actor/m"].values == [1, 2]


def mean_of_extreme(values, k, best):
    """Exact mean of the largest (smallest) of ``k`` draws with replacement."""
    ordered, n = sorted(values, reverse=not best), len(values)
    return sum(v * (((i + 1) / n) ** k - (i / n) ** k) for i, v in enumerate(ordered))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=9), st.integers(0, 3))
def test_bootstrap_is_near_the_exact_mean(values, seed):
    before = np.random.get_state()[1].copy()
    (best, spread), (worst, _) = bootstrap_metric(values, 3, [np.max, np.min], seed=seed)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert best == pytest.approx(mean_of_extreme(values, 3, True), abs=0.06)
    assert worst == pytest.approx(mean_of_extreme(values, 3, False), abs=0.06)
    assert 0 <= spread <= 0.5 + 1e-9
    assert bootstrap_metric(values, 3, [np.max], seed=seed)[0][0] == best


def test_majority():
    replies = [{"pred": p, "val": v} for p, v in zip("abbac", (0.1, 0.7, 0.2, 0.3, 0.9), strict=True)]
    assert calc_maj_val(replies, "pred", "val") == 0.1  # a and b are equally common, a comes first
    assert calc_maj_val(replies[1:], "pred", "val") == 0.7


def test_validation_by_source_and_prompt():
    sources = ["maths"] * 5 + ["games"]
    prompts = ["p", "p", "p", "q", "q", "r"]
    found = process_validation_metrics(
        sources, prompts, {"score": [0.0, 1.0, 1.0, 1.0, 1.0, 0.25], "note": ["x"] * 6, "gap": [None] * 5 + [2.0], "pred": list("abbaac")}
    )
    assert set(found) == {"maths", "games"} and set(found["maths"]) == {"score"}
    assert found["games"] == {"score": {"mean@1": 0.25}, "gap": {"mean@1": 2.0}}
    maths = found["maths"]["score"]
    assert maths["mean@3"] == pytest.approx(2 / 3) and maths["std@3"] == pytest.approx(np.std([0, 1, 1])) and maths["mean@2"] == 1.0
    assert set(maths) == {"mean@2", "std@2", "mean@3", "std@3"} | {
        f"{kind}@{k}/{what}" for kind in ("best", "worst", "maj") for k in (2, 3) for what in ("mean", "std")
    }
    # of p: P(some right of 2) = 8/9; q is always right
    assert maths["best@2/mean"] == pytest.approx((8 / 9 + 1) / 2, abs=0.03)
    assert maths["best@3/mean"] == pytest.approx(26 / 27, abs=0.03)
    # p's votes are right for b: a majority of 3 draws is b with 20/27
    assert maths["maj@3/mean"] == pytest.approx(20 / 27, abs=0.05)


def test_sessions_that_failed_count_as_wrong():
    found = process_validation_metrics(
        ["s", "s", "t"], ["p", "p", "p"], {"acc": [1.0, 1.0, None], "score": [1.0, 1.0, 5.0]},
        expected_acc_counts={("s", "p"): 4, ("s", "never"): 2, ("t", "p"): 3},
    )  # fmt: skip
    assert found["s"]["acc"]["mean@4"] == 0.5 and found["s"]["acc"]["mean@2"] == 0.0
    assert found["s"]["acc_success_only"]["mean@2"] == 1.0
    assert "acc" not in found["t"]
