"""The arithmetic of memory against models without storage and against what autograd keeps."""

import json

import pytest
import torch
from memory_ranks import allocated, resident_peak
from training_cases import run_ranks, save_tiny_tokenizer
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)  # fmt: skip

import verl.utils.attention  # noqa: F401  registers torch_varlen with transformers
from verl.utils.memory_plan import GiB, MemorySetup, faults, plan_memory
from verl.utils.memory_update import block_bytes_per_token, end_bytes_per_token, update_peak
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


def _kept_bytes(model_class, config_class, layers, dtype, more, segments=None):
    """Bytes autograd keeps of 1536 tokens, parameters not counted, storages once: two rows, or ``segments`` end to end (the
    first is the prompt of all others)."""
    torch.manual_seed(0)
    model = model_class(config_class(**{**SIZES, "num_hidden_layers": layers}, **more)).to(dtype)
    model.config._attn_implementation = "torch_varlen" if segments else "sdpa"
    own, seen, alive = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}, []

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)
        return tensor

    ids = torch.randint(0, 500, (1, 1536) if segments else (2, 768))
    arguments = {"position_ids": torch.arange(1536)[None], **segments} if segments else {}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model(input_ids=ids, use_cache=False, **arguments)
    return sum(seen.values()) / ids.numel()


def _shape(config_class, more):
    return ModelShape.from_config(json.loads(config_class(**SIZES, **more).to_json_string(use_diff=False)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("model_class,config_class,more", [FAMILIES[0], FAMILIES[2], FAMILIES[3]])
def test_a_block_and_the_end_keep_what_the_formula_says(model_class, config_class, more, dtype):
    one, two = (_kept_bytes(model_class, config_class, layers, dtype, more) for layers in (1, 2))
    shape, setup = _shape(config_class, more), MemorySetup(1, 1536, 768, compute_bytes=dtype.itemsize)
    # what is not in the formula: the lengths of the norms and attention's sums, a few numbers a token
    assert block_bytes_per_token(shape, setup) == pytest.approx(two - one, rel=0.01)
    # the head's input is chosen behind the last norm, so one tensor less; the angles of the positions are there besides
    assert end_bytes_per_token(shape, setup) - dtype.itemsize * shape.hidden == pytest.approx(2 * one - two, rel=0.25)


@pytest.mark.parametrize("model_class,config_class,more", [FAMILIES[0], FAMILIES[2]])
def test_packed_sequences_and_shared_prompts_keep_more(model_class, config_class, more):
    shape = _shape(config_class, more)
    packed = {"segment_lengths": (768, 768), "segment_prefixes": (-1, -1)}
    # a prompt of 192 tokens and seven sequences that add 192 to it: almost the limit of prompts of half a sequence
    shared = {"segment_lengths": (192,) * 8, "segment_prefixes": (-1,) + (0,) * 7}
    for arguments, about in ((packed, 0.01), (shared, 0.1)):
        one, two = (_kept_bytes(model_class, config_class, layers, torch.float32, more, arguments) for layers in (1, 2))
        setup = MemorySetup(1, 1536, 384, compute_bytes=4, packed=True, share_prompts=arguments is shared)
        assert block_bytes_per_token(shape, setup) == pytest.approx(two - one, rel=about)


def test_a_7b_model_on_two_gpus_of_80_gib_by_hand():
    """Qwen2.5-7B with gradient checkpointing, 16384 tokens a micro-batch, bfloat16, half of each GPU to the engine."""
    shape, p = PUBLISHED["Qwen2.5-7B"], 7_615_616_512
    gpu = {"device_bytes": 80 * GiB, "gpu_memory_utilization": 0.5}
    setup = MemorySetup(ranks=2, micro_tokens=16384, row_tokens=6000, packed=True, **gpu)
    plan = plan_memory(shape, setup)
    parts = {part.name: part for part in plan.parts}
    assert parts["parameters"].update == parts["parameters"].rollout == parts["gradients"].update == 4 * p / 2  # 14.2 GiB
    assert parts["optimizer"].update == 8 * p / 2 and parts["gradients"].rollout == 0
    vocab = 152064 * 3584
    block = (p - 2 * vocab - 3584) // 28  # 233M
    # backward: embedding and head in bfloat16, the head's gradient; a block's weights, gradients, the next block, float32 sent
    assert parts["whole"].update == 2 * (2 * vocab + 3584) + 2 * vocab + (2 + 2 + 2 + 4) * block
    a_block = 2 * (8 * 3584 + 4 * 18944 + 2 * 28 * 128 + 2 * 4 * 128)  # bytes of one token, recomputed
    gradients = 2 * (2 * 18944 + 2 * 3584)
    assert parts["activations"].update == 16384 * (28 * 2 * 3584 + 4 * 2 * 3584 + a_block + gradients)
    assert plan.update / GiB == pytest.approx(74.3, abs=0.1)
    # rollout: 14.2 of shards, 28.4 of moments, 40 of the engine and 4 kept for what nobody asks for are more than 80
    assert plan.rollout / GiB == pytest.approx(86.6, abs=0.1)
    assert "gpu_memory_utilization of at most 0.42" in faults(plan, setup, 80 * GiB)[0]
    # the engine's 40 GiB: 14.2 of weights, and 56 KiB for each token of context
    assert shape.kv_bytes_per_token(2) == 2 * 28 * 4 * 128 * 2 == 56 * 1024
    assert plan.kv_tokens == pytest.approx((40 * GiB - 2 * p) / 56 / 1024, rel=0.05)
    # weight sync: the head in float32 is more than a bucket of 512 MiB; as it came, and twice in the engine's hands
    assert parts["weight sync"].sync == 4 * vocab + 4 * vocab + 2 * vocab and parts["engine"].sync == 2 * p


def test_moments_of_an_update_that_are_not_at_their_peak_do_not_count():
    shape = PUBLISHED["Qwen2.5-0.5B"]
    short, long = (MemorySetup(4, tokens, 512, compute_bytes=4, checkpointing=False) for tokens in (64, 65536))
    assert update_peak(shape, short).name == "loss"  # a vocabulary of 151,936
    assert update_peak(shape, long).name == "backward" and update_peak(shape, long).logits == 0
    assert update_peak(shape, MemorySetup(4, 64, 512, compute_bytes=2, min_num_params=10**9)).name == "reduction"


def test_what_is_not_resharded_is_whole_on_every_rank():
    shape = PUBLISHED["Qwen2.5-0.5B"]
    setups = [{}, {"reshard_after_forward": False}, {"min_num_params": 10**9}]
    sizes, gradients = [], []
    for more in setups:
        plan = plan_memory(shape, MemorySetup(ranks=8, micro_tokens=10, row_tokens=8, device_bytes=80 * GiB, **more))
        sizes.append(next(part.update for part in plan.parts if part.name == "whole"))
        gradients.append(next(part.update for part in plan.parts if part.name == "gradients"))
    assert sizes[1] == 6 * shape.parameters and gradients[1] == 0  # bfloat16 weights, float32 gradients
    assert sizes[2] == (8 + 4 / 8) * shape.parameters  # all gradients and what is sent of them, then their shards
    assert sizes[0] < sizes[1] / 2 and gradients[0] == 4 * shape.parameters / 8


def test_ranks_share_what_is_sharded_and_nothing_else():
    shape = PUBLISHED["Qwen2.5-1.5B"]
    one, four = (plan_memory(shape, MemorySetup(n, micro_tokens=4096, row_tokens=4096, device_bytes=80 * GiB)) for n in (1, 4))
    for a, b in zip(one.parts, four.parts, strict=True):
        sharded = a.name in ("parameters", "gradients", "optimizer")
        assert a.update == (4 * b.update if sharded else b.update), a.name


def test_the_hf_engine_keeps_its_sequences_at_full_length():
    shape = PUBLISHED["Qwen2.5-0.5B"]
    setup = MemorySetup(ranks=2, micro_tokens=1000, row_tokens=500, engine="hf", engine_bytes=4, sequences=16)
    plan = plan_memory(shape, setup)
    engine = next(part for part in plan.parts if part.name == "engine")
    assert plan.kv_tokens == 16 * 500 and engine.update == 4 * shape.parameters  # the cache is gone after a rollout
    cache = 16 * 500 * 2 * 24 * 2 * 64 * 4  # one layer of it twice, as it grows
    prompts = 16 * 500 * 4 * (2 * 896 + 2 * 4864)
    assert engine.rollout - engine.update == cache * 25 / 24 + prompts


def test_rollout_workers_of_their_own_hold_the_engine_alone():
    shape = PUBLISHED["Qwen2.5-1.5B"]
    whole, split = (plan_memory(shape, MemorySetup(2, 4096, 4096, device_bytes=80 * GiB, split=split)) for split in (False, True))
    assert split.update == whole.update and split.rollout < whole.rollout
    assert [part.name for part in split.parts if part.rollout] == ["engine", "weight sync", "reserve"]
    assert [part.name for part in split.parts if part.sync] == ["parameters", "optimizer", "weight sync", "reserve"]


# -- against what is allocated ----------------------------------------------------------------

COUNTED = {"vocab_size": 3000, "hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 6, "num_attention_heads": 4,
           "num_key_value_heads": 2, "tie_word_embeddings": True}  # fmt: skip
VARIANTS = {
    "plain": ({}, {}),
    "recomputed": ({"model.enable_gradient_checkpointing": True}, {"checkpointing": True}),
    "bfloat16": ({"actor.fsdp_config.mixed_precision": {"param_dtype": "bf16"}}, {"compute_bytes": 2}),
    "whole": ({"actor.fsdp_config.reshard_after_forward": False}, {"reshard_after_forward": False}),
    "one unit": ({"actor.fsdp_config.wrap_policy": {"min_num_params": 10**9}}, {"min_num_params": 10**9}),
    "laptop": (
        {"actor.fsdp_config.wrap_policy": {"min_num_params": 10**9}, "actor.fsdp_config.reshard_after_forward": False},
        {"min_num_params": 10**9, "reshard_after_forward": False},
    ),
    "shared prompts": ({"actor.use_prefix_grouper": True}, {"share_prompts": True}),
}


def _save(folder, sizes):
    Qwen2ForCausalLM(Qwen2Config(**sizes)).save_pretrained(folder)
    save_tiny_tokenizer(folder)
    return str(folder)


@pytest.mark.parametrize("vocab,names", [(3000, list(VARIANTS)), (600, ["plain", "recomputed", "one unit", "laptop"])])
def test_an_update_allocates_what_the_plan_says(tmp_path, vocab, names):
    """Two ranks, every form of an update: the peak of all tensors together, gradients included. A large vocabulary has it
    at the loss, a small one in the backward pass."""
    path = _save(tmp_path, {**COUNTED, "vocab_size": vocab})
    ranks = run_ranks(allocated, 2, path, 256, 64, vocab, {name: VARIANTS[name][0] for name in names})
    shape, ratios = read_shape(tmp_path), {}
    for name in names:
        setup = MemorySetup(2, 256, 64, **{"compute_bytes": 4, "checkpointing": False, **VARIANTS[name][1]})
        sharded = 4 * shape.parameters / 2 if setup.reshard_after_forward else 0
        # where the profiler misses the end of a tensor it counts too much
        ratios[name] = (update_peak(shape, setup).total + sharded) / min(rank[name] for rank in ranks)
    assert all(0.9 < ratio < 1.2 for ratio in ratios.values()), ratios


def test_55m_parameters_take_the_resident_memory_that_was_planned(tmp_path):
    wide = {"vocab_size": 64000, "hidden_size": 512, "num_hidden_layers": 8, "intermediate_size": 1376}
    path = _save(tmp_path, {**COUNTED, **wide})
    measured = max(rank["bytes"] for rank in run_ranks(resident_peak, 2, path, 64, 32, 64000))
    shape = read_shape(tmp_path)
    assert shape.parameters > 50e6
    plan = plan_memory(shape, MemorySetup(2, 64, 32, compute_bytes=4, checkpointing=False, kv_cache_bytes=0))
    planned = sum(part.update for part in plan.parts if part.name != "engine")
    assert planned == pytest.approx(measured, rel=0.2)
