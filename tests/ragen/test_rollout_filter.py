"""Which groups are kept: each rule against its definition by brute force, and what must hold for all."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from ragen.trainer.rollout_filter import (
    METRICS,
    EmptyAfterFilter,
    EmptyStop,
    RolloutFilterConfig,
    filter_batch,
    filter_rollouts,
    group_scores,
    member_values,
    select_groups,
)

scores_lists = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5, 1.0]), min_size=1, max_size=16)
sides = st.sampled_from(["largest", "smallest"])


def kept(scores, **kwargs):
    return select_groups(scores, RolloutFilterConfig(**kwargs)).tolist()


def ranking(scores, side, include_zero):
    """Candidates, best first, ties in batch order."""
    candidates = [i for i, s in enumerate(scores) if include_zero or s != 0]
    return sorted(candidates, key=lambda i: (-scores[i] if side == "largest" else scores[i], i))


def test_a_quarter_of_sixteen_groups_is_four():
    rng = np.random.default_rng(0)
    scores = rng.random(16)
    assert kept(scores) == sorted(np.argsort(-scores)[:4].tolist())


def test_ties_go_to_the_first_groups():
    assert kept([0.5] * 16) == [0, 1, 2, 3]
    assert kept([0.0, 0.5, 0.5, 0.5], strategy="top_k_abs", value=2) == [1, 2]


@settings(max_examples=60, deadline=None)
@given(scores_lists, sides, st.booleans(), st.sampled_from([0.1, 0.25, 0.5, 1.0]), st.integers(1, 20))
def test_top_k(scores, side, include_zero, ratio, count):
    order = ranking(scores, side, include_zero)
    want = sorted(order[: max(1, int(ratio * len(scores)))])
    assert kept(scores, value=ratio, filter_type=side, include_zero=include_zero) == want
    want = sorted(order[:count])
    assert kept(scores, strategy="top_k_abs", value=count, filter_type=side, include_zero=include_zero) == want


@settings(max_examples=60, deadline=None)
@given(scores_lists, sides, st.booleans(), st.sampled_from([0.3, 0.6, 0.9]))
def test_top_p_softmax(scores, side, include_zero, value):
    """The shortest prefix of the ranking whose softmax mass reaches the share."""
    order = ranking(scores, side, include_zero)
    got = kept(scores, strategy="top_p", top_p_prob_mode="softmax", value=value, filter_type=side, include_zero=include_zero)
    if not order:
        assert got == []
        return
    mass = np.exp([scores[i] if side == "largest" else -scores[i] for i in order])
    reached = [n for n in range(1, len(order) + 1) if mass[:n].sum() / mass.sum() >= value - 1e-12]
    assert got in (sorted(order[: reached[0]]), sorted(order[: reached[0] + 1]))  # either at exact equality, in floats
    assert abs(mass[: reached[0]].sum() / mass.sum() - value) < 1e-9 or got == sorted(order[: reached[0]])


@settings(max_examples=60, deadline=None)
@given(scores_lists, st.booleans(), st.sampled_from([0.3, 0.6, 0.9]), st.sampled_from([0.0, 0.013]))
def test_top_p_linear(scores, include_zero, value, eps):
    """The shortest prefix of positive scores whose sum reaches value * total - eps."""
    order = [i for i in ranking(scores, "largest", include_zero) if scores[i] > 0]
    goal = value * sum(scores) - eps
    reached = next((n for n in range(len(order) + 1) if sum(scores[i] for i in order[:n]) >= goal), None)
    want = [] if reached is None else sorted(order[:reached])
    assert kept(scores, strategy="top_p", value=value, include_zero=include_zero, selection_eps=eps) == want


def test_top_p_linear_drops_a_batch_without_signal():
    assert kept([0.0] * 4, strategy="top_p", value=0.9) == []
    assert kept([0.004, 0.003], strategy="top_p", value=0.9) == []  # the whole mass is within eps of nothing
    assert kept([0.9, 0.05, 0.05], strategy="top_p", value=0.9) == [0]


@settings(max_examples=60, deadline=None)
@given(scores_lists, sides, st.booleans(), st.sampled_from([0.2, 0.5, 1.0]))
def test_min_p(scores, side, include_zero, value):
    candidates = [i for i, s in enumerate(scores) if include_zero or s != 0]
    if side == "largest":
        want = [i for i in candidates if scores[i] >= value * max(scores[j] for j in candidates) - 1e-9]
    else:
        want = [i for i in candidates if scores[i] <= min(scores[j] for j in candidates) / value + 1e-9]
    assert kept(scores, strategy="min_p", value=value, filter_type=side, include_zero=include_zero) == want


def test_no_filter_keeps_all():
    assert kept([0.0, 0.3, 0.0], strategy="top_p", value=1.0) == [0, 1, 2]
    assert kept([0.0, 0.3, 0.0], strategy="top_p", value=1.0, include_zero=False) == [1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(METRICS))
def test_group_scores(seed, metric):
    rng = np.random.default_rng(seed)
    groups = [f"g{g}" for g in rng.integers(5, size=20)]
    values = rng.normal(size=20)
    ids, scores = group_scores(values, groups, metric)
    assert ids == list(dict.fromkeys(groups))
    for group, score in zip(ids, scores, strict=True):
        members = values[[g == group for g in groups]]
        want = {"reward_sum": members.sum(), "reward": members.mean(), "entropy": members.mean(), "length": members.mean()}.get(
            metric, members.std(ddof=1) if len(members) > 1 else 0.0
        )
        assert score == pytest.approx(want)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_whole_groups_are_kept_or_dropped(seed, by_tag):
    """Members need not stand together; by tag, each tag keeps its own share."""
    rng = np.random.default_rng(seed)
    groups = np.repeat([f"g{i}" for i in range(8)], 4)
    tags = np.repeat(["easy"] * 4 + ["hard"] * 4, 4)
    values = rng.normal(size=32) * np.where(tags == "easy", 1.0, 10.0)
    order = rng.permutation(32)
    result = filter_rollouts(values[order], groups[order], RolloutFilterConfig(value=0.5, by_tag=by_tag), tags[order])
    stds = {g: values[groups == g].std(ddof=1) for g in dict.fromkeys(groups)}
    if by_tag:
        best = sorted(list(stds)[:4], key=stds.get)[2:] + sorted(list(stds)[4:], key=stds.get)[2:]
    else:
        best = sorted(stds, key=stds.get)[4:]
    assert set(result.groups) == set(best)
    np.testing.assert_array_equal(result.rows, np.isin(groups[order], best))
    assert result.metrics["rollout/filter_kept_count"] == 4 and result.metrics["rollout/filter_kept_ratio"] == 0.5
    assert result.metrics["rollout/in_group_std"] == pytest.approx(np.mean(list(stds.values())))
    assert result.metrics["rollout/chosen_in_group_std"] == pytest.approx(np.mean([stds[g] for g in best]))


def test_by_tag_needs_tags():
    with pytest.raises(ValueError, match="names no tag"):
        filter_rollouts([1.0, 0.0], ["a", "a"], RolloutFilterConfig(by_tag=True))


def data_proto(rows=6, width=5):
    """The part of a DataProto that the filter touches."""
    torch.manual_seed(0)
    tensors = {
        "token_level_scores": torch.randn(rows, width),
        "response_mask": torch.rand(rows, width) < 0.7,
        "entropys": torch.rand(rows, width),
    }
    arrays = {"uid": np.array(["a", "b"] * (rows // 2), dtype=object)}
    return SimpleNamespace(
        batch=tensors, non_tensor_batch=arrays, select_idxs=lambda mask: {k: v[mask] for k, v in tensors.items()}
    )


@pytest.mark.parametrize("metric", METRICS)
def test_on_a_batch(metric):
    data = data_proto()
    values = member_values(data.batch, metric)
    mask = data.batch["response_mask"].numpy()
    if metric.startswith("reward"):
        want = data.batch["token_level_scores"].numpy().sum(1)
    elif metric == "length":
        want = mask.sum(1)
    else:
        want = [e[m].mean() for e, m in zip(data.batch["entropys"].numpy(), mask, strict=True)]
    np.testing.assert_allclose(values, want, rtol=1e-6)
    selected, result = filter_batch(data, RolloutFilterConfig(value=0.5, metric=metric))
    assert len(result.groups) == 1 and selected["response_mask"].shape[0] == 3
    ids, scores = group_scores(want, ["a", "b"] * 3, metric)
    assert result.groups == [ids[int(scores.argmax())]]


def test_a_missing_tensor_is_named():
    with pytest.raises(KeyError, match="'entropys'"):
        member_values({"response_mask": torch.ones(1, 1)}, "entropy")


def test_empty_batches_stop_the_run():
    config = RolloutFilterConfig(include_zero=False, empty_stop_steps=2)
    result = filter_rollouts([1.0] * 8, list("aabbccdd"), config)
    assert result.empty and not result.rows.any()
    assert result.metrics["rollout/filter_zero_count"] == 4
    stop = EmptyStop(config.empty_stop_steps)
    assert stop.update(result.empty) == {"rollout/empty_after_filter": 1.0, "rollout/consecutive_empty_after_filter": 1.0}
    stop.update(False)
    stop.update(True)
    resumed = EmptyStop(2)
    resumed.load_state_dict(stop.state_dict())
    resumed.end()
    resumed.update(True)
    assert resumed.reached
    with pytest.raises(EmptyAfterFilter, match="2 steps in a row"):
        resumed.end()
    never = EmptyStop(0)
    for _ in range(9):
        never.update(True)
    never.end()


def test_a_game_that_is_learned_does_not_stop_the_run():
    stop = EmptyStop(2)
    for _ in range(5):
        assert stop.update(True, solved=True)["rollout/consecutive_empty_after_filter"] == 0.0
        stop.end()
    stop.update(True)
    stop.update(True)
    assert stop.reached


def test_config_from_the_rollout_section():
    rollout = OmegaConf.create(
        {
            "rollout_filter_ratio": 0.5,
            "rollout_filter_type": "std",
            "rollout_filter_metric": "entropy",
            "rollout_filter_include_zero": False,
            "temperature": 1.0,
        }
    )
    config = RolloutFilterConfig.from_rollout(rollout)
    assert config == RolloutFilterConfig(value=0.5, metric="entropy", include_zero=False)
    assert (
        RolloutFilterConfig.from_rollout(
            {"rollout_filter_ratio": 0.5, "rollout_filter_value": 0.9, "rollout_filter_strategy": "top_p"}
        ).value
        == 0.9
    )
    assert RolloutFilterConfig.from_rollout({}) == RolloutFilterConfig()


@pytest.mark.parametrize(
    "kwargs, key",
    [
        ({"strategy": "top_q"}, "rollout_filter_strategy"),
        ({"filter_type": "std"}, "rollout_filter_type"),
        ({"metric": "luck"}, "rollout_filter_metric"),
        ({"value": 0}, "rollout_filter_value"),
        ({"value": 4}, "rollout_filter_value"),
        ({"top_p_prob_mode": "cubic"}, "top_p_prob_mode"),
    ],
)
def test_wrong_settings_are_named(kwargs, key):
    with pytest.raises(ValueError, match=key):
        RolloutFilterConfig(**kwargs)
