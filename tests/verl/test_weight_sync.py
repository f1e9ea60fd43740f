"""Weights over a group of their own: any bucket size, tied embeddings, mixed dtypes, failures on either side."""

import threading

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from verl.single_controller.base.worker import get_free_port
from verl.utils.lora import exported_weights
from verl.workers.rollout.base import SamplingParams
from verl.workers.rollout.hf_rollout import HFEngine
from verl.workers.weight_sync import WeightSyncGroup


def meet(receivers: int, bucket_bytes: int) -> list[WeightSyncGroup]:
    """A group of threads: each member has a gloo end of its own, as processes have."""
    port, members = get_free_port(), [None] * (receivers + 1)

    def join(rank: int) -> None:
        members[rank] = WeightSyncGroup("127.0.0.1", port, rank, receivers + 1, bucket_bytes, timeout_s=20)

    together([lambda rank=rank: join(rank) for rank in range(receivers + 1)])
    return members


def together(calls: list) -> list:
    """Run the calls at the same time; what each returned or raised."""
    results = [None] * len(calls)

    def run(i: int) -> None:
        try:
            results[i] = calls[i]()
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a member waits for ever"
    return results


def mixed_weights() -> list[tuple[str, torch.Tensor]]:
    torch.manual_seed(0)
    return [
        ("odd", torch.randn(7, 3).bfloat16()),  # 42 bytes: what follows is not aligned
        ("large", torch.randn(40, 9)),
        ("scalar", torch.tensor(2.5, dtype=torch.float64)),
        ("empty", torch.empty(0, 4)),
        ("transposed", torch.randn(5, 8).t()),
        ("whole", torch.arange(5)),
        ("half", torch.randn(11, dtype=torch.float32).half()),
    ]


@pytest.mark.parametrize("bucket_bytes", [13, 42, 500, 1 << 20])
def test_every_receiver_gets_the_same_bytes_whatever_the_bucket(bucket_bytes):
    sender, *receivers = meet(2, bucket_bytes)
    weights, taken = mixed_weights(), [{}, {}]
    for _ in range(2):  # a second sync over the same group
        takers = [lambda i=i, r=r: r.receive(taken[i].update) for i, r in enumerate(receivers)]
        assert together([lambda: sender.send(iter(weights)), *takers]) == [None, None, None]
        for got in taken:
            assert list(got) == [name for name, _ in weights]
            for name, tensor in weights:
                assert got[name].dtype == tensor.dtype and torch.equal(got[name], tensor)
            got.clear()


def test_a_model_with_tied_embeddings_answers_as_the_trainers(tmp_path):
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, tie_word_embeddings=True,
        max_position_embeddings=64, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    trained = LlamaForCausalLM(config).eval()
    engine = HFEngine(str(tmp_path), max_model_len=64)
    sender, receiver = meet(1, 1000)  # the embedding alone is 8192 bytes
    weights = [(weight.name, weight.combine(weight.parts())) for weight in exported_weights(trained)]
    assert "lm_head.weight" not in dict(weights)
    assert together([lambda: sender.send(weights), lambda: receiver.receive(engine.load_weights)]) == [None, None]
    prompt = [5, 9, 33]
    engine.add("0", prompt, SamplingParams(max_tokens=6, seed=3))
    reply = engine.step()[0]
    with torch.no_grad():
        logprobs = trained(torch.tensor([prompt + reply.token_ids])).logits[0, 2:-1].log_softmax(-1)
    wanted = logprobs.gather(1, torch.tensor(reply.token_ids)[:, None])[:, 0]
    assert torch.allclose(torch.tensor(reply.logprobs), wanted, atol=1e-5)


def test_a_sender_that_fails_says_so_to_the_receivers():
    def broken():
        yield from mixed_weights()[:2]
        raise OSError("the disk is gone")

    sender, *receivers = meet(2, 100)
    sent, *taken = together([lambda: sender.send(broken()), *[lambda r=r: r.receive(dict) for r in receivers]])
    assert isinstance(sent, OSError)
    assert all(isinstance(error, RuntimeError) and "the disk is gone" in str(error) for error in taken)


def refuse(weights):
    next(weights)
    raise KeyError("odd")


def close_and_refuse(weights):  # as a generator over it does when it is closed
    next(weights)
    weights.close()
    raise KeyError("odd")


@pytest.mark.parametrize("refuse", [refuse, close_and_refuse])
def test_a_receiver_that_fails_keeps_nobody_waiting(refuse):
    sender, first, second = meet(2, 64)
    good = {}
    results = together([lambda: sender.send(mixed_weights()), lambda: first.receive(refuse), lambda: second.receive(good.update)])
    assert results[0] is None and isinstance(results[1], KeyError) and results[2] is None
    assert list(good) == [name for name, _ in mixed_weights()]


def test_a_bucket_without_room_is_refused():
    with pytest.raises(ValueError, match="update_weights_bucket_megabytes"):
        WeightSyncGroup("127.0.0.1", 1, 0, 1, 0)
