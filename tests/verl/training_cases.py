"""A tiny model, batches for it and real gloo processes, for the tests of the training workers."""

import multiprocessing
import os
import socket
import traceback

import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from verl.protocol import DataProto

VOCAB = 61


def save_tiny_model(folder, tied: bool = True, seed: int = 0) -> str:
    """A random Qwen2 of a few thousand parameters, written as a Hugging Face folder."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCAB, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=tied, attention_dropout=0.1,
        initializer_range=0.3,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    save_tiny_tokenizer(folder)
    return str(folder)


def save_tiny_tokenizer(folder) -> None:
    """A tokenizer with a word for each id, for what saves one beside the weights."""
    words = Tokenizer(WordLevel({f"w{index}": index for index in range(VOCAB)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1", pad_token="w0").save_pretrained(folder)


def worker_config(path: str, **changes) -> OmegaConf:
    """A complete `actor_rollout_ref` section for the tiny model; `changes` are dotted keys."""
    config = OmegaConf.create(
        {
            "model": {"path": path, "use_remove_padding": False, "enable_gradient_checkpointing": False, "lora_rank": 0},
            "actor": {
                "ppo_micro_batch_size_per_gpu": 4, "use_dynamic_bsz": False, "ppo_max_token_len_per_gpu": 128, "ppo_epochs": 1,
                "grad_clip": 0.5, "clip_ratio": 0.2, "clip_ratio_low": 0.2, "clip_ratio_high": 0.28, "clip_ratio_c": 3.0,
                "policy_loss": {"loss_mode": "vanilla"}, "loss_agg_mode": "token-mean", "loss_scale_factor": None,
                "entropy_coeff": 0.01, "use_kl_loss": False, "kl_loss_coef": 0.1, "kl_loss_type": "low_var_kl",
                "optim": {"lr": 1e-2, "weight_decay": 0.01, "total_training_steps": 10},
                "fsdp_config": {"mixed_precision": None, "reshard_after_forward": True},
            },
            "ref": {"log_prob_use_dynamic_bsz": False, "log_prob_micro_batch_size_per_gpu": 3},
            "rollout": {
                "temperature": 0.7, "log_prob_use_dynamic_bsz": False, "log_prob_micro_batch_size_per_gpu": 3,
                "update_weights_bucket_megabytes": 1,
            },
        }
    )  # fmt: skip
    for key, value in changes.items():
        OmegaConf.update(config, key, value, force_add=True)
    return config


def game_batch(rows: int = 9, seed: int = 1, longest: int = 30) -> dict[str, torch.Tensor]:
    """Right-padded rows with two sampled stretches each (multi-turn), old log-probabilities near a tiny model's."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(12, longest + 1, (rows,), generator=generator)
    width = int(lengths.max())
    real = torch.arange(width) < lengths[:, None]
    input_ids = torch.randint(1, VOCAB, (rows, width), generator=generator)
    input_ids[1:4, :5] = input_ids[0, :5]  # four members of one group, and two of another
    input_ids[5, :5] = input_ids[4, :5]
    input_ids = input_ids * real
    response_mask = torch.zeros(rows, width - 1, dtype=torch.bool)
    for row, length in enumerate(lengths.tolist()):
        response_mask[row, 4 : 4 + length // 4] = True
        response_mask[row, length - 1 - length // 4 : length - 2] = True  # the last token was not sampled
    return {
        "input_ids": input_ids,
        "attention_mask": real.long(),
        "position_ids": (torch.arange(width).expand(rows, -1) * real).long(),
        "response_mask": response_mask,
        "advantages": torch.randn(rows, width - 1, generator=generator) * response_mask,
        "returns": torch.randn(rows, width - 1, generator=generator) * response_mask,
    }


def to_share(batch: dict, rows, mini_batch, count: int, **meta) -> DataProto:
    """The rows of one rank, with the mini-batch each belongs to."""
    rows = torch.as_tensor(rows, dtype=torch.long)
    tensors = {name: tensor[rows] for name, tensor in batch.items()}
    tensors["mini_batch"] = torch.as_tensor(mini_batch, dtype=torch.long)[rows]
    return DataProto.from_dict(tensors=tensors, meta_info={"num_mini_batches": count, "temperature": 0.7, **meta})


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def run_ranks(function, world: int, *args) -> list:
    """`function(rank, *args)` in `world` processes with the environment of a worker group; their results by rank.

    The processes are forked from a server that has imported everything, so that one costs milliseconds and not seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["verl.workers.fsdp_workers"])
    port, pipes, processes = free_port(), [], []
    for rank in range(world):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_entry, args=(rank, function, world, port, theirs, args))
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        results = [pipe.recv() if pipe.poll(120) else "no answer within 120 s" for pipe in pipes]
    finally:
        for process in processes:
            process.join(10)
            process.kill()
    failures = [result for result in results if isinstance(result, str)]
    assert not failures, "\n".join(failures)
    return results


def _entry(rank, function, world, port, pipe, args):
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    try:
        pipe.send(function(rank, *args))
    except Exception:
        pipe.send(traceback.format_exc())
    if dist.is_initialized():
        dist.destroy_process_group()


def numpy_weights(worker) -> dict:
    """The worker's whole weights by name; all ranks call it together."""
    return {name: tensor.clone().numpy() for name, tensor in worker.iter_weights()}
