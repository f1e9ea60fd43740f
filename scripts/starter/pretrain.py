"""Next-token pretraining of a small Llama on transcripts. CPU, bfloat16 autocast."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass
class Row:
    """One transcript: ``ids``; ``weights`` of *predicting* each token; ``soft``: positions whose target is
    not the token that stands there but several, equally likely (all answers the player picked from:
    the same expectation without the noise of the draw)."""

    ids: list[int]
    weights: list[float]
    soft: list[tuple[int, list[int]]]


#: how much more the one token that is the move counts than the tags around it
MOVE_WEIGHT = 3.0


def encode(chat: ChatTokens, transcript, prompt_weight: float) -> Row:
    """A transcript put together as an episode would: prompts by the template's difference, replies with
    their end token."""
    ids: list[int] = []
    weights: list[float] = []
    soft: list[tuple[int, list[int]]] = []
    messages = transcript.messages
    token = chat.tokenizer.convert_tokens_to_ids
    move_tag = token("<answer>")
    for i, learn in enumerate(transcript.learn):
        user, reply = messages[2 * i]["content"], messages[2 * i + 1]["content"]
        new = chat.prompt([messages[0]]) if i == 0 else chat.continuation(user, ids[-1])
        answer = chat.tokenizer(reply, add_special_tokens=False)["input_ids"] + [chat.stop_ids[0]]
        ids += new + answer
        weights += [prompt_weight] * len(new) + [1.0 if learn else 0.0] * len(answer)
        choices = [token(c) for c in transcript.choices[i]]
        if choices and None not in choices:  # answers of one token
            position = len(ids) - len(answer) + answer.index(move_tag) + 1
            soft.append((position, choices))
            weights[position] = MOVE_WEIGHT
    return Row(ids, weights, soft)


def weighted_loss(model: LlamaForCausalLM, rows: list[Row], pad_id: int, prompt_share: float) -> tuple[torch.Tensor, float]:
    """Sum of the weighted losses of ``rows`` (right padded; causal attention needs no mask), and of the weights."""
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad_id)
    weights = torch.zeros(len(rows), width)
    soft: list[tuple[int, int, float]] = []  # (flat position of the prediction, token, probability)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)], weights[i, : len(row.ids)] = torch.tensor(row.ids), torch.tensor(row.weights)
        soft += [(i * (width - 1) + at - 1, t, 1 / len(choices)) for at, choices in row.soft for t in choices]
    w, targets = weights[:, 1:].flatten(), ids[:, 1:].flatten()
    if prompt_share < 1.0:
        minor = w < 1.0
        w = torch.where(minor, w / prompt_share * (torch.rand_like(w) < prompt_share), w)
    used = w.nonzero()[:, 0]
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=ids).last_hidden_state[:, :-1].flatten(0, 1)
        logits = model.lm_head(hidden[used])
    logprobs = logits.float().log_softmax(-1)
    loss = -logprobs.gather(1, targets[used][:, None])[:, 0]
    place = torch.full((len(w),), -1).index_put((used,), torch.arange(len(used)))
    soft = [(int(place[at]), t, share) for at, t, share in soft if place[at] >= 0]
    if soft:
        at, tokens, shares = (torch.tensor(column) for column in zip(*soft, strict=True))
        expected = torch.zeros_like(loss).index_add(0, at, -shares * logprobs[at, tokens])
        loss = torch.where(torch.zeros_like(loss, dtype=torch.bool).index_fill(0, at, True), expected, loss)
    return (loss * w[used]).sum(), float(w.sum())


def train(
    model: LlamaForCausalLM, batches: Callable[[int], list[list[Row]]], *, steps: int, lr: float,
    pad_id: int, warmup: int = 100, prompt_share: float = 1.0, on_step: Callable[[int, float], None] | None = None,
) -> LlamaForCausalLM:  # fmt: skip
    """``batches(step)`` gives the rows of a step, in parts that fit into memory. AdamW, cosine to a tenth, gradient clip 1.
    ``prompt_share``: share of the positions of weight below 1 (prompts) whose loss is computed, each counting
    that much more: the same expectation, and a large vocabulary's logits for far fewer positions."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min((s + 1) / warmup, 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, s / steps)))),
    )
    started, mean = time.time(), None
    for step in range(steps):
        optimizer.zero_grad()
        total = weight = 0.0
        for rows in batches(step):
            loss, weighs = weighted_loss(model, rows, pad_id, prompt_share)
            loss.backward()
            total, weight = total + loss.item(), weight + weighs
        for parameter in model.parameters():
            parameter.grad /= weight
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        mean = total / weight if mean is None else 0.98 * mean + 0.02 * total / weight
        if step % 100 == 99 or step == steps - 1:
            left = (time.time() - started) / (step + 1) * (steps - step - 1)
            log.info("pretraining step %d of %d, loss %.4f, %.0f s left", step + 1, steps, mean, left)
            if on_step:
                on_step(step + 1, mean)
    return model
