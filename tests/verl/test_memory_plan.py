"""The arithmetic of memory against models without storage and against what autograd keeps."""

import json

import pytest
import torch
from transformers import (
    GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM,
    Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM,
)  # fmt: skip

from verl.utils.memory_plan import GiB, MemorySetup, activation_bytes_per_token, faults, plan_memory
from verl.utils.model_shape import PUBLISHED, ModelShape, published_shape, read_shape

SIZES = {"vocab_size": 500, "hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 3, "num_attention_heads": 4}
FAMILIES = [
    (Qwen2ForCausalLM, Qwen2Config, {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    (Qwen2ForCausalLM, Qwen2Config, {"num_key_value_heads": 4, "tie_word_embeddings": False}),
    (Qwen3ForCausalLM, Qwen3Config, {"num_key_value_heads": 2, "head_dim": 128}),
    (LlamaForCausalLM, LlamaConfig, {"num_key_value_heads": 1}),
    (LlamaForCausalLM, LlamaConfig, {"num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True}),
    (Qwen3ForCausalLM, Qwen3Config, {"num_key_value_heads": 2, "head_dim": 64, "attention_bias": True}),
    (MistralForCausalLM, MistralConfig, {"num_key_value_heads": 2}),
]


@pytest.mark.parametrize("model_class,config_class,more", FAMILIES)
def test_parameters_are_those_of_the_model(model_class, config_class, more):
    config = config_class(**SIZES, **more)
    with torch.device("meta"):
        model = model_class(config)
    shape = ModelShape.from_config(json.loads(config.to_json_string(use_diff=False)))
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.layer_parameters == sum(p.numel() for p in model.model.layers[0].parameters())


def test_published_sizes_give_the_published_numbers_of_parameters():
    counts = {
        "Qwen2.5-0.5B": 494_032_768, "Qwen2.5-1.5B": 1_543_714_304, "Qwen2.5-3B": 3_085_938_688,
        "Qwen2.5-7B": 7_615_616_512, "Qwen3-8B": 8_190_735_360, "Qwen3-14B": 14_768_307_200,
    }
    assert {name: PUBLISHED[name].parameters for name in counts} == counts
    assert published_shape("Qwen/Qwen2.5-1.5B-Instruct") == PUBLISHED["Qwen2.5-1.5B"]
    assert published_shape("somebody/else") is None


def test_other_types_are_counted_on_the_meta_device(tmp_path):
    config = GPT2Config(vocab_size=300, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
    config.save_pretrained(tmp_path)
    shape = read_shape(tmp_path)
    assert shape.parameters == sum(p.numel() for p in GPT2LMHeadModel(config).parameters())
    assert (shape.layers, shape.heads, shape.hidden) == (2, 4, 64)


def test_a_config_that_describes_no_model_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2", "hidden_size": 8, "num_attention_heads": 2}))
    with pytest.raises(ValueError, match="config.json has no vocab_size"):
        read_shape(tmp_path)


def _kept_bytes(model_class, config_class, layers, dtype, more):
    """Bytes autograd keeps of 2 x 192 tokens, parameters not counted, storages once."""
    torch.manual_seed(0)
    model = model_class(config_class(**{**SIZES, "num_hidden_layers": layers}, **more)).to(dtype)
    own, seen, alive = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}, []

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)
        return tensor

    ids = torch.randint(0, 500, (2, 192))
    mask = torch.ones_like(ids)
    mask[0, -9:] = 0
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model(input_ids=ids, attention_mask=mask, use_cache=False)
    return sum(seen.values()) / ids.numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("model_class,config_class,more", FAMILIES[:3])
def test_a_block_keeps_what_the_formula_says(model_class, config_class, more, dtype):
    measured = (_kept_bytes(model_class, config_class, 3, dtype, more) - _kept_bytes(model_class, config_class, 1, dtype, more)) / 2
    shape = ModelShape.from_config(json.loads(config_class(**SIZES, **more).to_json_string(use_diff=False)))
    assert activation_bytes_per_token(shape, dtype.itemsize) == pytest.approx(measured, rel=0.1)


def test_the_parts_add_up_by_hand():
    shape = PUBLISHED["Qwen2.5-0.5B"]
    p = 494_032_768
    setup = MemorySetup(ranks=4, micro_tokens=1000, row_tokens=512, device_bytes=24 * GiB, gpu_memory_utilization=0.25)
    plan = plan_memory(shape, setup)
    parts = {part.name: part for part in plan.parts}
    assert parts["parameters"].update == p  # 4 bytes over 4 ranks
    assert parts["gradients"].update == p and parts["gradients"].rollout == 0
    assert parts["optimizer"].update == 2 * p
    assert parts["engine"].update == 0 and parts["engine"].rollout == 6 * GiB
    assert plan.update == sum(part.update for part in plan.parts)
    assert shape.kv_bytes_per_token(2) == 2 * 24 * 2 * 64 * 2
    assert faults(plan, setup, 24 * GiB) == [] and faults(plan, setup, 4 * GiB) != []


def test_what_is_not_resharded_is_whole_on_every_rank():
    shape = PUBLISHED["Qwen2.5-0.5B"]
    setups = [{}, {"reshard_after_forward": False}, {"min_num_params": 10**9}]
    sizes = []
    for more in setups:
        plan = plan_memory(shape, MemorySetup(ranks=8, micro_tokens=10, row_tokens=8, device_bytes=80 * GiB, **more))
        sizes.append(next(part.update for part in plan.parts if part.name == "whole"))
    assert sizes[1] == sizes[2] == 10 * shape.parameters  # bfloat16 weights, float32 gradient, what is sent of it
    assert sizes[0] < sizes[1] / 2


def test_ranks_share_what_is_sharded_and_nothing_else():
    shape = PUBLISHED["Qwen2.5-1.5B"]
    one, four = (plan_memory(shape, MemorySetup(ranks=n, micro_tokens=4096, row_tokens=4096, device_bytes=80 * GiB)) for n in (1, 4))
    for a, b in zip(one.parts, four.parts):
        sharded = a.name in ("parameters", "gradients", "optimizer")
        assert a.update == (4 * b.update if sharded else b.update), a.name
