"""Attention over packed sequences, registered with transformers as `torch_varlen`.

A packed micro-batch is one row that holds sequences end to end; `cu_seq_lens_q` marks where each begins. On a GPU in
half precision the kernel is `torch.nn.attention.varlen`; elsewhere (CPU, float32) each sequence goes through PyTorch's
scaled dot-product attention by itself, which is exact and needs no padding, but is one call a sequence.
"""

import importlib.util
import logging

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

logger = logging.getLogger(__name__)

PACKED = ("torch_varlen", "flash_attention_2", "flash_attention_3")


def resolve_attention(use_remove_padding: bool, device: str, requested: str | None = None) -> tuple[str, bool]:
    """Which attention a model is built with, and whether its micro-batches are packed.

    Args:
        use_remove_padding: `model.use_remove_padding`. On a CPU it is not followed (length-sorted padding measured
            faster there) unless `requested` names a packed attention.
        device: "cpu" or "cuda".
        requested: `model.override_config.attn_implementation`, where given.

    Returns:
        (name for `attn_implementation`, packed)
    """
    if requested is not None:
        return requested, use_remove_padding and requested in PACKED
    if not use_remove_padding:
        return "sdpa", False
    if device == "cpu":
        logger.info("use_remove_padding: on a CPU micro-batches are sorted by length and padded instead of packed")
        return "sdpa", False
    if importlib.util.find_spec("flash_attn") is not None:
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
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each packed sequence, in the form that transformers' `AttentionInterface` calls.

    Args:
        query: (1, heads, tokens, head_dim); `key`, `value`: (1, kv_heads, tokens, head_dim).
        cu_seq_lens_q: (sequences + 1,) int32, where each sequence begins; None for ordinary right-padded rows.
        max_length_q: tokens of the longest sequence.
        sliding_window: how many tokens back a position sees, itself counted; None for all.

    Returns:
        (1, tokens, heads, head_dim) and no attention weights.
    """
    if softcap is not None or dropout:
        raise ValueError("attention torch_varlen has neither soft-capping nor dropout: set use_remove_padding=false")
    if cu_seq_lens_q is None:
        return _padded(query, key, value, scaling, sliding_window), None
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        from torch.nn.attention.varlen import varlen_attn

        window = (-1, 0) if sliding_window is None else (sliding_window - 1, 0)
        output = varlen_attn(
            *(tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value)),
            cu_seq_lens_q,
            cu_seq_lens_q,
            max_length_q,
            max_length_q,
            scale=scaling,
            window_size=window,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return output.unsqueeze(0), None
    lengths = cu_seq_lens_q.diff().tolist()
    pieces = zip(*(tensor.split(lengths, dim=2) for tensor in (query, key, value)), strict=True)
    return torch.cat([_padded(q, k, v, scaling, sliding_window) for q, k, v in pieces], dim=1), None


def _padded(query, key, value, scaling, sliding_window) -> torch.Tensor:
    """Causal attention of ordinary rows; right padding needs no mask, for no real token looks to its right."""
    length = query.shape[2]
    mask = None
    if sliding_window is not None and length > sliding_window:
        position = torch.arange(length, device=query.device)
        back = position[:, None] - position[None, :]
        mask = (back >= 0) & (back < sliding_window)
    output = scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    return output.transpose(1, 2)


AttentionInterface.register("torch_varlen", torch_varlen_attention)
