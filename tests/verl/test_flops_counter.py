"""Operations of a step against those that torch counts while a model runs it."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from verl.utils.flops_counter import DEVICE_TFLOPS, FlopsCounter, get_device_flops
from verl.utils.model_shape import PUBLISHED

SIZES = dict(
    vocab_size=101, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
    head_dim=20, max_position_embeddings=64,
)  # fmt: skip


def counted(model, lengths):
    """What torch counts for forward and backward over one sequence after another, attention where the mask lets a token look.

    Eager attention multiplies whole squares, and nothing else here is a batched product.
    """
    total = 0.0
    for n in lengths:
        with FlopCounterMode(display=False) as counter:
            ids = torch.arange(n)[None] % 101
            torch.nn.functional.cross_entropy(model(ids).logits[0], ids[0]).backward()
        squares = counter.get_flop_counts()["Global"][torch.ops.aten.bmm]
        seen = torch.ones(n, n).tril().mean().item()
        total += counter.get_total_flops() - squares * (1 - seen)
    return total


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_the_formula_is_what_torch_counts(kind, tied):
    make, build = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen3": (Qwen3Config, Qwen3ForCausalLM)}[kind]
    model = build._from_config(make(**SIZES, tie_word_embeddings=tied), attn_implementation="eager")
    lengths = [7, 31, 18]
    assert FlopsCounter(model.config).step_flops(lengths) == pytest.approx(counted(model, lengths), rel=1e-6)


def test_the_head_counts_where_it_is_applied():
    shape = PUBLISHED["Qwen2.5-1.5B"]
    counter = FlopsCounter(shape)
    whole, few = counter.step_flops([100, 50]), counter.step_flops([100, 50], head_tokens=20)
    assert whole - few == 6 * 130 * shape.vocab * shape.hidden
    # about 6 N a token: attention is little for short sequences
    assert whole / 150 == pytest.approx(6 * shape.parameters, rel=0.01)


def test_frozen_weights_cost_two_thirds():
    shape = PUBLISHED["Qwen3-4B"]
    assert FlopsCounter(shape, lora=True).step_flops([1]) == pytest.approx(FlopsCounter(shape).step_flops([1]) * 2 / 3, rel=1e-4)


def test_achieved_and_promised():
    counter = FlopsCounter(PUBLISHED["Qwen3-0.6B"], peak_tflops=100.0)
    achieved, promised = counter.estimate_flops([1000], 0.5)
    assert achieved == pytest.approx(counter.step_flops([1000]) / 0.5 / 1e12) and promised == 100.0
    assert counter.estimate_flops([1000], 0.0)[0] == 0.0


def test_devices():
    assert get_device_flops("T", "NVIDIA H100 80GB HBM3") == 989.0
    assert get_device_flops("P", "NVIDIA H100 PCIe") == pytest.approx(0.756)  # the longer name wins
    assert get_device_flops("T", "NVIDIA L40S") == DEVICE_TFLOPS["L40S"] != DEVICE_TFLOPS["L40"]
    assert get_device_flops("T", "NVIDIA H200") == 989.0 and get_device_flops("T", "NVIDIA H20") == 148.0
    assert get_device_flops("T", "NVIDIA A100-SXM4-80GB") == 312.0 and get_device_flops("T", "AMD Instinct MI300X") == 1307.0
    for other in ("NVIDIA RTX A4000", "NVIDIA RTX A3000 Laptop GPU", "NVIDIA A10G"):  # an A40, an A30, an A10 by their letters
        assert get_device_flops("T", other) == float("inf")
    assert get_device_flops("T", "a device of tomorrow") == get_device_flops("T", "") == float("inf")
