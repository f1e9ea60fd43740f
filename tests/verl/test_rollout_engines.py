"""vLLM against plain transformers: log-probabilities, seeds, weight sync with tied embeddings, prefixes."""

import importlib.util

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from verl.workers.rollout.base import SamplingParams
from verl.workers.rollout.hf_rollout import HFEngine

VOCAB = 320
SIZES = dict(
    vocab_size=VOCAB, hidden_size=128, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=512, bos_token_id=None, eos_token_id=1, pad_token_id=0,
)  # fmt: skip


def make_model(kind: str, tied: bool):
    torch.manual_seed(1)
    config_class, model_class = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}[kind]
    model = model_class(config_class(**SIZES, tie_word_embeddings=tied)).eval()
    with torch.no_grad():
        for p in model.parameters():  # away from the tiny initial weights, where every model is uniform
            p.add_(0.08 * torch.randn_like(p))
    return model


@pytest.fixture(scope="module", params=[("llama", True), ("qwen2", False)], ids=["llama-tied", "qwen2-untied"])
def folder(request, tmp_path_factory):
    from tokenizers import Tokenizer, models

    path = tmp_path_factory.mktemp("model")
    make_model(*request.param).save_pretrained(path)
    words = {f"w{i}": i for i in range(VOCAB)}
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")), eos_token="w1", pad_token="w0").save_pretrained(path)
    return path, request.param


@pytest.fixture(scope="module")
def vllm_engine(folder):
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    from verl.workers.rollout.vllm_rollout import VLLMEngine

    engine = VLLMEngine(str(folder[0]), max_model_len=256, kv_cache_memory_bytes=64 << 20, max_num_seqs=16, block_size=32)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def hf_engine(folder):
    return HFEngine(str(folder[0]), max_model_len=256)


def run(engine, prompts, **params):
    for i, prompt in enumerate(prompts):
        engine.add(str(i), prompt, SamplingParams(**{"max_tokens": 12, "seed": 100 + i, "stop_token_ids": (1,), **params}))
    replies = {}
    while engine.unfinished:
        for reply in engine.step():
            replies[int(reply.request_id)] = reply
    return [replies[i] for i in range(len(prompts))]


def reference(model, prompt, reply, temperature=1.0):
    """transformers' own log-probabilities of a reply."""
    ids = torch.tensor([prompt + reply.token_ids])
    with torch.no_grad():
        logprobs = (model(ids).logits[0] / temperature).log_softmax(-1)
    at = torch.arange(len(prompt) - 1, len(prompt) - 1 + len(reply.token_ids))
    return logprobs[at, torch.tensor(reply.token_ids)]


PROMPTS = [[5 + (i * 7 + j) % 300 for j in range(3 + 11 * (i % 5))] for i in range(10)]


@pytest.fixture(params=["vllm_engine", "hf_engine"])
def engine(request, folder):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_logprobs_are_those_of_the_distribution_sampled_from(engine, folder, temperature):
    model = make_model(*folder[1])
    for prompt, reply in zip(PROMPTS, run(engine, PROMPTS, temperature=temperature), strict=True):
        assert reply.cut == (reply.token_ids[-1] != 1) and len(reply.token_ids) <= 12
        gap = (reference(model, prompt, reply, temperature) - torch.tensor(reply.logprobs)).abs().max()
        assert gap < 1e-5


def test_greedy_replies_agree_between_engines(vllm_engine, hf_engine):
    ours, theirs = (run(e, PROMPTS, temperature=0.0) for e in (vllm_engine, hf_engine))
    assert [r.token_ids for r in ours] == [r.token_ids for r in theirs]


def test_a_reply_follows_from_its_seed_not_from_its_company(engine):
    together = run(engine, PROMPTS)
    engine.add("alone", PROMPTS[3], SamplingParams(max_tokens=12, seed=103, stop_token_ids=(1,)))
    alone = []
    while engine.unfinished:
        alone += engine.step()
    assert alone[0].token_ids == together[3].token_ids
    other = run(engine, PROMPTS, seed=7)
    assert [r.token_ids for r in other] != [r.token_ids for r in together]


def test_an_engine_leaves_random_state_and_threads_alone(engine):
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    run(engine, PROMPTS[:2])
    assert torch.equal(before, torch.get_rng_state()) and torch.get_num_threads() == threads


def test_a_prompt_without_room_is_refused_by_name(engine):
    with pytest.raises(ValueError, match="max_model_len=256"):
        engine.add("x", [5] * 256, SamplingParams(max_tokens=4))
    assert engine.unfinished == 0


def test_after_a_sync_engine_and_trainer_agree_and_no_prefix_is_stale(engine, folder):
    """The tied output head included; a long shared prompt would show a stale prefix cache."""
    model = make_model(*folder[1])
    long = [[9 + i % 200 for i in range(120)] + [5 + k] for k in range(4)]
    run(engine, long)
    for scale in (0.05, 0.0):  # away, and back to the first weights for the tests after this one
        changed = make_model(*folder[1])
        with torch.no_grad():
            for p in changed.parameters():
                p.add_(scale * torch.randn_like(p))
        tied = folder[1][1]
        engine.load_weights((n, p) for n, p in changed.state_dict().items() if not (tied and n == "lm_head.weight"))
        for prompt, reply in zip(long, run(engine, long), strict=True):
            assert (reference(changed, prompt, reply) - torch.tensor(reply.logprobs)).abs().max() < 1e-5
            if scale:
                assert (reference(model, prompt, reply) - torch.tensor(reply.logprobs)).abs().max() > 1e-2


# -- what a sleep of level 2 would lose ---------------------------------------------------------


def model_of(engine):
    return engine._engine.collective_rpc("get_model")[0]


def send(engine, folder, leave_out=()):
    model, tied = make_model(*folder[1]), folder[1][1]
    state = {n: p for n, p in model.state_dict().items() if not (tied and n == "lm_head.weight") and n not in leave_out}
    engine.not_synced = None  # look again
    engine.load_weights(state.items())


def test_a_sync_writes_every_parameter_and_every_tensor_that_no_sleep_restores(vllm_engine, folder):
    """Level 2 drops weights; vLLM saves the buffers (rotary tables, scales of attention). The rest must come with a sync:
    after it an engine whose every parameter was spoiled replies as before, bit for bit."""
    send(vllm_engine, folder)
    assert vllm_engine.not_synced == []
    before = run(vllm_engine, PROMPTS)
    with torch.no_grad():
        for parameter in model_of(vllm_engine).parameters():
            parameter.fill_(float("nan"))
    send(vllm_engine, folder)
    assert not any(parameter.isnan().any() for parameter in model_of(vllm_engine).parameters())
    again = run(vllm_engine, PROMPTS)
    assert [(r.token_ids, r.logprobs) for r in again] == [(r.token_ids, r.logprobs) for r in before]


def test_what_a_sync_leaves_out_is_named(vllm_engine, folder):
    send(vllm_engine, folder, leave_out=("model.layers.1.mlp.down_proj.weight",))
    assert vllm_engine.not_synced == ["model.layers.1.mlp.down_proj.weight"]
    module = model_of(vllm_engine).model.layers[0]
    module.table, module.helper = torch.ones(3), type("Helper", (), {})()
    module.helper.slopes = [torch.ones(2)]
    send(vllm_engine, folder)
    assert vllm_engine.not_synced == ["model.layers.0.helper.slopes.0", "model.layers.0.table"]
    del module.table, module.helper
    send(vllm_engine, folder)
    assert vllm_engine.not_synced == []


class _Levels:
    """In the place of vLLM's engine, whose CPU build cannot sleep."""

    def __init__(self):
        self.slept = []

    def sleep(self, level):
        self.slept.append(level)

    def reset_prefix_cache(self):
        return True


@pytest.mark.parametrize("not_synced,level", [(None, 1), (["model.table"], 1), ([], 2)], ids=["never synced", "not all", "all"])
def test_weights_are_dropped_only_where_a_sync_was_seen_to_write_all(not_synced, level):
    from verl.workers.rollout.vllm_rollout import VLLMEngine

    engine = VLLMEngine.__new__(VLLMEngine)
    engine._engine, engine._can_sleep, engine.not_synced = _Levels(), True, not_synced
    assert engine.sleep() and engine._engine.slept == [level]
    assert engine.sleep(level=1) and engine._engine.slept[-1] == 1
    engine._can_sleep = False
    assert not engine.sleep() and len(engine._engine.slept) == 2
