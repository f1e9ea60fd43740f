"""Floating point operations of a training step, and what share of the device's peak they use (MFU).

The operations are those that the model needs (Chowdhery et al., arXiv:2204.02311, appendix B): forward and
backward over every token once. A token attends to itself and to those before it; the masked half of the square,
which the appendix counts and kernels skip, does not count. Nor does what is computed again for activation
checkpointing; what a shared prompt saves counts as computed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from verl.utils.model_shape import ModelShape

#: dense bf16 peak in TFLOPS by whole words of the device's name, from the makers' data sheets
DEVICE_TFLOPS = {
    "GB200": 2500.0, "B200": 2250.0, "MI300X": 1307.0, "MI250X": 383.0, "H100 PCIe": 756.0, "H100": 989.0, "H200": 989.0,
    "H800": 989.0, "H20": 148.0, "A100": 312.0, "A800": 312.0, "L40S": 362.0, "L40": 181.0, "L20": 119.5, "L4": 121.0,
    "A40": 149.7, "A30": 165.0, "A10": 125.0, "RTX 4090": 165.2, "RTX 3090": 71.0,
}  # fmt: skip
_UNITS = {"B": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}


def this_device_name() -> str:
    """The name of this process's GPU, "" without one."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def get_device_flops(unit: str = "T", device_name: str | None = None) -> float:
    """Peak operations a second of ``device_name`` (default: this process's GPU) in ``unit`` (B, K, M, G, T,
    P; B is one operation). ``inf`` where the device is not in :data:`DEVICE_TFLOPS`, a CPU included."""
    name = this_device_name() if device_name is None else device_name
    # whole words: an RTX A4000 is no A40, an A10G no A10; the longer of two is the closer (H100 PCIe, H100)
    parts = sorted((part for part in DEVICE_TFLOPS if re.search(rf"\b{part}\b", name, re.IGNORECASE)), key=len)
    return DEVICE_TFLOPS[parts[-1]] * _UNITS["T"] / _UNITS[unit] if parts else float("inf")


class FlopsCounter:
    """Operations of a decoder-only model.

    Args:
        config: the model's sizes, or its Hugging Face config (Llama, Qwen2, Qwen3, Mistral).
        peak_tflops: of one device; ``None``: looked up for this process's GPU.
        lora: base weights are frozen, so no gradient is computed for them.
    """

    def __init__(self, config: ModelShape | Any, peak_tflops: float | None = None, lora: bool = False):
        self.shape = config if isinstance(config, ModelShape) else ModelShape.from_config(config.to_dict())
        self.peak_tflops, self.lora = peak_tflops, lora

    def step_flops(self, batch_seqlens: Sequence[int], head_tokens: int | None = None) -> float:
        """Operations of forward and backward over sequences of these lengths::

            6 N_body sum(s) + 6 V h t + 6 L q sum(s (s + 1))

        ``N_body``: weights of the blocks' linear layers; ``V h``: of the head, applied to ``t = head_tokens``
        positions (default: all); ``L`` layers whose heads are ``q`` wide together. The 6 of the weights becomes 4 where
        they are frozen (LoRA).
        """
        shape, tokens = self.shape, float(sum(batch_seqlens))
        head = tokens if head_tokens is None else float(head_tokens)
        weights = shape.layers * shape.layer_matmul_parameters * tokens + shape.vocab * shape.hidden * head
        attention = 6.0 * shape.layers * shape.q * sum(float(s) * (s + 1) for s in batch_seqlens)
        return (4.0 if self.lora else 6.0) * weights + attention

    def estimate_flops(
        self, batch_seqlens: Sequence[int], delta_time: float, head_tokens: int | None = None
    ) -> tuple[float, float]:
        """``(achieved, promised)`` in TFLOPS: :meth:`step_flops` in ``delta_time`` seconds, and one device's peak."""
        peak = get_device_flops("T") if self.peak_tflops is None else self.peak_tflops
        achieved = self.step_flops(batch_seqlens, head_tokens) / delta_time / 1e12 if delta_time > 0 else 0.0
        return achieved, peak
