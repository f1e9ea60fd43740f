"""Step metrics against NumPy over multi-turn masks."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ragged_batches import batches, draw, tensor

from verl.trainer.ppo.metric_utils import (
    compute_data_metrics,
    compute_throughout_metrics,
    compute_throughput_metrics,
    compute_timing_metrics,
    token_weighted_mean,
)


def as_batch(b, **meta):
    attention = np.maximum.accumulate(np.concatenate([np.ones((b.rows, 1), bool), b.mask], 1)[:, ::-1], 1)[:, ::-1]
    tensors = {
        "response_mask": b.mask,
        "attention_mask": attention.astype(int),
        "token_level_scores": b.rewards,
        "token_level_rewards": b.rewards - 0.1,
        "advantages": b.adv,
        "returns": b.values + b.adv,
        "values": b.values,
    }
    return SimpleNamespace(
        batch={k: tensor(np.ascontiguousarray(v)) for k, v in tensors.items()},
        meta_info=meta,
        non_tensor_batch={"__num_turns__": np.arange(b.rows)},
    ), attention


@settings(max_examples=25, deadline=None)
@given(batches)
def test_data_metrics(params):
    b = draw(params)
    batch, attention = as_batch(b)
    got = compute_data_metrics(batch, use_critic=True, max_response_length=3)
    sampled = b.mask.sum(1)
    want = {
        "critic/score": b.rewards.sum(1),
        "critic/rewards": (b.rewards - 0.1).sum(1),
        "response_length": sampled,
        "prompt_length": attention.sum(1) - sampled,
        "num_turns": np.arange(b.rows),
    }
    if b.mask.any():
        want |= {
            "critic/advantages": b.adv[b.mask],
            "critic/returns": (b.values + b.adv)[b.mask],
            "critic/values": b.values[b.mask],
        }
    for key, values in want.items():
        assert [got[f"{key}/{f}"] for f in ("mean", "max", "min")] == pytest.approx([values.mean(), values.max(), values.min()])
    assert got["response/aborted_ratio"] == pytest.approx((sampled == 0).mean())
    assert got["response_length/clip_ratio"] == pytest.approx((sampled >= 3).mean())
    if b.mask.sum() > 1:
        returns = (b.values + b.adv)[b.mask]
        assert got["critic/vf_explained_var"] == pytest.approx(1 - b.adv[b.mask].var(ddof=1) / (returns.var(ddof=1) + 1e-5))
    if sampled.any():
        there = sampled[sampled > 0]
        assert got["response_length_non_aborted/mean"] == pytest.approx(there.mean())
        assert got["response_length_non_aborted/min"] == there.min() and got["response_length_non_aborted/max"] == there.max()
        assert got["response_length_non_aborted/clip_ratio"] == pytest.approx((there >= 3).mean())
    else:
        assert not any(key.startswith("response_length_non_aborted") for key in got)
    plain = compute_data_metrics(batch, use_critic=False)
    assert not any("values" in key or "vf_" in key or "clip_ratio" in key for key in plain)


@settings(max_examples=25, deadline=None)
@given(batches, st.integers(1, 4))
def test_limits_are_the_widths_of_a_batch_in_verls_form(params, prompts):
    b = draw(params)
    batch, attention = as_batch(b)
    batch.batch |= {"prompts": torch.zeros(b.rows, prompts), "responses": torch.zeros(b.rows, b.width)}
    batch.non_tensor_batch = {"tool_call_counts": np.arange(b.rows) + 2}
    got = compute_data_metrics(batch, use_critic=False)
    sampled = b.mask.sum(1)
    assert got["response_length/clip_ratio"] == pytest.approx((sampled == b.width).mean())
    assert got["prompt_length/clip_ratio"] == pytest.approx((attention.sum(1) - sampled >= prompts).mean())
    assert got["tool_call_counts/mean"] == pytest.approx(2 + (b.rows - 1) / 2) and "num_turns/mean" not in got
    assert compute_data_metrics(batch, use_critic=False, max_prompt_length=10**6)["prompt_length/clip_ratio"] == 0.0
    del batch.batch["prompts"]  # the trainer's own form: responses are the whole row, whose width limits nothing
    assert not any("clip_ratio" in key for key in compute_data_metrics(batch, use_critic=False))
    del batch.batch["response_mask"]  # the last columns of VeRL's attention mask are the response
    timing = compute_timing_metrics(batch, {"gen": 1.0, "ref": 2.0})
    read = attention[:, -b.width :].sum()
    assert timing["timing_per_token_ms/gen"] == pytest.approx(1000 / read if read else 0.0)
    assert timing["timing_per_token_ms/ref"] == pytest.approx(2000 / attention.sum())


def test_timing_and_throughput():
    b = draw((3, 4, 6))
    batch, attention = as_batch(b)
    timing = {"gen": 2.0, "update_actor": 3.0, "step": 6.0, "testing": 1.0}
    got = compute_timing_metrics(batch, timing)
    assert {k: v for k, v in got.items() if k.startswith("timing_s/")} == {f"timing_s/{k}": v for k, v in timing.items()}
    per_token = {k: v for k, v in got.items() if "per_token" in k}
    assert per_token == pytest.approx(
        {"timing_per_token_ms/gen": 2000 / b.mask.sum(), "timing_per_token_ms/update_actor": 3000 / attention.sum()}
    )
    assert compute_throughput_metrics(batch, timing, 2) == pytest.approx(
        {"perf/total_num_tokens": attention.sum(), "perf/time_per_step": 6.0, "perf/throughput": attention.sum() / 12}
    )
    counted, _ = as_batch(b, global_token_num=[10, 20])
    assert compute_throughout_metrics(counted, timing, 1)["perf/throughput"] == 5.0


@settings(max_examples=20, deadline=None)
@given(batches, st.integers(1, 5))
def test_token_weighted_mean_does_not_show_the_cut(params, pieces):
    b = draw(params)
    parts = np.array_split(np.arange(b.rows), pieces)
    means = [{"m": b.values[p][b.mask[p]].mean() if b.mask[p].any() else 0.0} for p in parts]
    got = token_weighted_mean(means, [int(b.mask[p].sum()) for p in parts])
    assert got == (pytest.approx({"m": b.values[b.mask].mean()}) if b.mask.any() else {})
