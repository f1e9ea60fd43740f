"""Next-token pretraining of a small Llama on transcripts. CPU, bfloat16 autocast."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ragen.llm_agent.ctx_manager import ChatTokens

log = logging.getLogger(__name__)


def build_model(tokenizer: PreTrainedTokenizerFast, *, hidden: int, layers: int, heads: int, intermediate: int, max_len: int, seed: int) -> LlamaForCausalLM:
    # Llama, not Qwen2: transformers 5 replaces the tokenizer of every Qwen2 folder by Qwen2's own split
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=heads, intermediate_size=intermediate, max_position_embeddings=max_len,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    )  # fmt: skip
    return LlamaForCausalLM(config)


def encode(chat: ChatTokens, transcript, prompt_weight: float) -> tuple[list[int], list[float]]:
    """Ids and loss weights (weight of *predicting* each token) of one transcript, put together as an
    episode would: prompts by the template's difference, replies with their end token."""
    ids: list[int] = []
    weights: list[float] = []
    messages = transcript.messages
    for i, learn in enumerate(transcript.learn):
        user, reply = messages[2 * i]["content"], messages[2 * i + 1]["content"]
        new = chat.prompt([messages[0]]) if i == 0 else chat.continuation(user, ids[-1])
        answer = chat.tokenizer(reply, add_special_tokens=False)["input_ids"] + [chat.stop_ids[0]]
        ids += new + answer
        weights += [prompt_weight] * len(new) + [1.0 if learn else 0.0] * len(answer)
    return ids, weights


def train(
    model: LlamaForCausalLM, batches: Callable[[int], list[tuple[list[int], list[float]]]], *, steps: int, lr: float,
    pad_id: int, warmup: int = 100, on_step: Callable[[int, float], None] | None = None,
) -> LlamaForCausalLM:  # fmt: skip
    """``batches(step)`` gives a list of (ids, weights). AdamW, cosine to a tenth, gradient clip 1."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min((s + 1) / warmup, 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, s / steps)))),
    )
    started, mean = time.time(), None
    for step in range(steps):
        rows = batches(step)
        width = max(len(ids) for ids, _ in rows)
        ids = torch.full((len(rows), width), pad_id)
        weights = torch.zeros(len(rows), width)
        for i, (row, w) in enumerate(rows):
            ids[i, : len(row)], weights[i, : len(row)] = torch.tensor(row), torch.tensor(w)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=ids).logits  # right padding and causal attention: no mask needed
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
        w = weights[:, 1:].flatten()
        loss = (loss * w).sum() / w.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        if step % 100 == 99 or step == steps - 1:
            left = (time.time() - started) / (step + 1) * (steps - step - 1)
            log.info("pretraining step %d of %d, loss %.4f, %.0f s left", step + 1, steps, mean, left)
            if on_step:
                on_step(step + 1, mean)
    return model
