"""Pieces of the training workers that need no second process: buckets, clipping, schedules, model folders, LoRA targets."""

import json
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from training_cases import save_tiny_model
from transformers import AutoModelForCausalLM

from verl.utils.fsdp_utils import buckets, clip_grad_norm, to_dtype
from verl.utils.lora import add_lora, exported_weights
from verl.utils.model import ModelPathError, load_model_config
from verl.utils.optim import build_lr_scheduler, build_optimizer


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 9), max_size=12), st.integers(1, 12))
def test_buckets_hold_every_item_in_order_and_stay_within_the_limit(sizes, limit):
    found = list(buckets(sizes, limit))
    assert [index for bucket in found for index in bucket] == list(range(len(sizes)))
    for bucket in found:
        assert len(bucket) == 1 or sum(sizes[index] for index in bucket) <= limit


@pytest.mark.parametrize("max_norm", [0.1, 100.0])
def test_clipping_agrees_with_torch(max_norm):
    generator = torch.Generator().manual_seed(0)
    ours = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (5,), (2, 2))]
    theirs = [torch.nn.Parameter(torch.zeros_like(p)) for p in ours]
    for p, q in zip(ours[:2], theirs[:2], strict=True):  # the third has no gradient
        p.grad = torch.randn(p.shape, generator=generator)
        q.grad = p.grad.clone()
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    assert clip_grad_norm(ours, max_norm) == pytest.approx(float(expected), rel=1e-6)
    for p, q in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def rates(steps: int, **config) -> list[float]:
    optimizer = build_optimizer([torch.nn.Parameter(torch.zeros(1))], {"lr": 2.0, **config})
    scheduler = build_lr_scheduler(optimizer, config)
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


def test_learning_rate_warms_up_and_falls_along_a_cosine():
    assert rates(3) == [2.0, 2.0, 2.0]
    warm = rates(4, lr_warmup_steps_ratio=0.2, total_training_steps=10)
    assert 0 < warm[0] < 2.0 and warm[2:] == [2.0, 2.0]
    cosine = rates(11, lr_scheduler_type="cosine", total_training_steps=10, min_lr_ratio=0.1)
    for step in range(11):
        assert cosine[step] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 10))))
    with pytest.raises(ValueError, match="total_training_steps"):
        rates(1, lr_scheduler_type="cosine")


def test_unknown_dtype_is_named():
    assert to_dtype("bf16") is torch.bfloat16
    with pytest.raises(ValueError, match="float8"):
        to_dtype("float8")


def test_model_folders_are_checked_and_dropout_is_off(tmp_path):
    path = save_tiny_model(tmp_path / "model")
    config = load_model_config(path, {"rms_norm_eps": 1e-5})
    assert json.loads((tmp_path / "model" / "config.json").read_text())["attention_dropout"] == 0.1
    assert config.attention_dropout == 0.0 and config.rms_norm_eps == 1e-5
    with pytest.raises(ModelPathError, match="no such folder"):
        load_model_config(str(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelPathError, match="critic.model.path=.*without config.json"):
        load_model_config(str(tmp_path / "empty"), key="critic.model.path")
    (tmp_path / "empty" / "config.json").write_text("{ half")
    with pytest.raises(ModelPathError, match="cannot be read as a model"):
        load_model_config(str(tmp_path / "empty"))


def test_lora_targets_are_checked_and_the_head_is_exported_once(tmp_path):
    path = save_tiny_model(tmp_path / "model")
    with pytest.raises(ValueError, match="target_modules='no_such_layer'"):
        add_lora(AutoModelForCausalLM.from_pretrained(path), 4, 8, "no_such_layer")
    with pytest.raises(ValueError, match="embed_tokens, a Embedding"):
        add_lora(AutoModelForCausalLM.from_pretrained(path), 4, 8, ["embed_tokens"])
    plain = AutoModelForCausalLM.from_pretrained(path)
    names = [name for name, _ in plain.named_parameters()]
    assert "lm_head.weight" not in names
    adapted = add_lora(AutoModelForCausalLM.from_pretrained(path), 4, 8, "all-linear")
    weights = exported_weights(adapted)
    assert [weight.name for weight in weights] == names
    assert sum(weight.lora_a is not None for weight in weights) == 2 * 7  # every projection of two layers
