"""Attention over packed sequences, registered with transformers as `torch_varlen`.

A packed micro-batch is one row that holds segments end to end: whole sequences, or a prompt followed by what each of several
sequences adds to it. On a GPU in half precision the kernel is `torch.nn.attention.varlen`; elsewhere (CPU, float32) each
segment goes through PyTorch's scaled dot-product attention by itself, which is exact and needs no padding.
"""

import logging

import torch
from torch import nn
from torch.nn.attention import varlen
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.utils import is_flash_attn_2_available

logger = logging.getLogger(__name__)

#: torch 2.11 takes fewer key heads without being asked
_ASKS_FOR_GQA = "enable_gqa" in varlen.varlen_attn.__annotations__

PACKED = ("torch_varlen", "flash_attention_2", "flash_attention_3")


def resolve_attention(
    use_remove_padding: bool, device: str, requested: str | None = None, share_prompts: bool = False
) -> tuple[str, bool]:
    """Which attention a model is built with, and whether its micro-batches are packed.

    Args:
        use_remove_padding: `model.use_remove_padding`. On a CPU it is not followed (length-sorted padding is as fast there)
            unless `requested` names a packed attention.
        device: "cpu" or "cuda".
        requested: `model.override_config.attn_implementation`, where given.
        share_prompts: `actor.use_prefix_grouper`; always packed, and `torch_varlen` alone can do it.

    Returns:
        (name for `attn_implementation`, packed)

    Raises:
        ValueError: `share_prompts` with another attention.
    """
    if share_prompts:
        if requested not in (None, "torch_varlen"):
            raise ValueError(
                f"actor.use_prefix_grouper=true needs attention torch_varlen, but model.override_config.attn_implementation is "
                f"{requested!r}: remove that key"
            )
        return "torch_varlen", True
    if requested is not None:
        return requested, use_remove_padding and requested in PACKED
    if not use_remove_padding:
        return "sdpa", False
    if device == "cpu":
        logger.info("use_remove_padding: on a CPU micro-batches are sorted by length and padded instead of packed")
        return "sdpa", False
    if is_flash_attn_2_available():  # by the name of the package: the fourth version has the same module
        return "flash_attention_2", True
    return "torch_varlen", True


def torch_varlen_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    segment_lengths: tuple[int, ...] | None = None,
    segment_prefixes: tuple[int, ...] | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    cu_seq_lens_k: torch.Tensor | None = None,
    max_length_q: int | None = None,
    max_length_k: int | None = None,
    key_index: torch.Tensor | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each segment and to the prompt before it, as transformers' `AttentionInterface` calls it.

    Args:
        query: (1, heads, tokens, head_dim); `key`, `value`: (1, kv_heads, tokens, head_dim).
        segment_lengths: tokens of each segment; None for ordinary right-padded rows.
        segment_prefixes: for each segment the segment that it continues, -1 for none.
        cu_seq_lens_q, cu_seq_lens_k, max_length_q, max_length_k: boundaries and longest, of queries and of the keys they see.
        key_index: on a GPU, which tokens are the keys of each segment, end to end; None where a segment sees itself alone.
        sliding_window: how many tokens back a position sees, itself counted; None for all.

    Returns:
        (1, tokens, heads, head_dim) and no attention weights.
    """
    if softcap is not None or dropout:
        raise ValueError("attention torch_varlen has neither soft-capping nor dropout: set use_remove_padding=false")
    if segment_lengths is None:
        return _causal(query, key, value, scaling, sliding_window), None
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        output = _by_kernel(
            query, key, value, scaling, sliding_window, cu_seq_lens_q, cu_seq_lens_k, max_length_q, max_length_k, key_index
        )
        return output, None
    return _by_segment(query, key, value, scaling, sliding_window, segment_lengths, segment_prefixes), None


def _by_kernel(query, key, value, scaling, sliding_window, cu_q, cu_k, max_q, max_k, key_index) -> torch.Tensor:
    q, k, v = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
    if key_index is not None:
        k, v = k.index_select(0, key_index), v.index_select(0, key_index)
    # Where a segment has more keys than queries, flash attention's causal mask is aligned to the last of both.
    window = (-1 if sliding_window is None else sliding_window - 1, 0)
    asked = {"enable_gqa": q.shape[1] != k.shape[1]} if _ASKS_FOR_GQA else {}
    return varlen.varlen_attn(q, k, v, cu_q, cu_k, max_q, max_k, scale=scaling, window_size=window, **asked).unsqueeze(0)


def _by_segment(query, key, value, scaling, sliding_window, lengths, prefixes) -> torch.Tensor:
    # split, not slices: the backward of a slice fills a whole tensor with zeros, for every segment
    q, k, v = (tensor.split(lengths, dim=2) for tensor in (query, key, value))
    outputs = []
    for index, prefix in enumerate(prefixes):
        keys, values = k[index], v[index]
        if prefix >= 0:
            keys, values = torch.cat([k[prefix], keys], dim=2), torch.cat([v[prefix], values], dim=2)
        outputs.append(_causal(q[index], keys, values, scaling, sliding_window))
    return torch.cat(outputs, dim=1)


def _causal(query, key, value, scaling, sliding_window) -> torch.Tensor:
    """Causal attention of the last queries of a sequence of keys; right padding needs no mask, for nothing looks to its right."""
    queries, keys = query.shape[2], key.shape[2]
    mask = None
    if queries != keys or (sliding_window is not None and keys > sliding_window):
        back = torch.arange(keys - queries, keys, device=query.device)[:, None] - torch.arange(keys, device=query.device)
        mask = back >= 0
        if sliding_window is not None:
            mask &= back < sliding_window
    output = scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    return output.transpose(1, 2)


AttentionInterface.register("torch_varlen", torch_varlen_attention)
