"""Rows by group: labels to numbers, and mean and deviation of each (``verl.utils.groupwise``)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from verl.utils.device import get_device_name

_WHOLE = 1e-6  # floats so near to whole numbers are taken for these


def _device(given: torch.device | str | None) -> torch.device:
    """The one that is given, else that of the variable VERL_FORCE_DEVICE, else this process's."""
    return torch.device(given or os.environ.get("VERL_FORCE_DEVICE") or get_device_name())


def as_torch_index(index: Any, device: torch.device | str | None = None) -> torch.Tensor:
    """Labels of any kind -> (N,) int64 with values 0..G-1, equal where labels are equal.

    Numbers are ordered as numbers (floats within 1e-6 of whole ones rounded, strings that are whole numbers read as such),
    other labels as text. VeRL returns whole numbers as they are, so that gaps between them count as empty groups.
    """
    labels = index.detach().reshape(-1).cpu().double().numpy() if _is_float(index) else _array(index)
    if np.issubdtype(labels.dtype, np.floating) and np.allclose(labels, np.rint(labels), rtol=0.0, atol=_WHOLE):
        labels = np.rint(labels).astype(np.int64)
    elif not np.issubdtype(labels.dtype, np.number):
        labels = _whole_numbers(labels)
    _, numbers = np.unique(labels, return_inverse=True)
    return torch.as_tensor(numbers.reshape(-1), dtype=torch.long, device=_device(device))


def _is_float(index: Any) -> bool:
    return torch.is_tensor(index) and index.is_floating_point()


def _array(index: Any) -> np.ndarray:
    if torch.is_tensor(index):
        return index.detach().reshape(-1).cpu().numpy()
    if isinstance(index, np.ndarray):
        return index.reshape(-1)
    items = list(index) if isinstance(index, Iterable) and not isinstance(index, str) else [index]
    if any(all(isinstance(item, kind) for item in items) for kind in (str, (int, float, np.number, np.bool_))):
        return np.asarray(items).reshape(-1)
    labels = np.empty(len(items), dtype=object)
    labels[:] = items
    return labels


def _whole_numbers(labels: np.ndarray) -> np.ndarray:
    """Labels that are no numbers, as whole numbers where all can be read so, else as text."""
    try:
        return labels.astype(np.int64)
    except (TypeError, ValueError, OverflowError):
        return np.array([str(label) for label in labels])


@torch.no_grad()
def group_mean_std(
    scores: torch.Tensor, gidx: torch.Tensor, eps: float = 1e-6, device: torch.device | str | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``(mean, std, count)`` of each group, (G,) float32, with ``G = max(gidx) + 1``.

    The variance is unbiased and at least ``eps``. A group of fewer than two scores has mean 0 and deviation 1.

    Args:
        scores: (N,); ``gidx``: (N,) numbers of their groups, from 0 (:func:`as_torch_index`).

    Raises:
        ValueError: the two differ in length.
    """
    where = _device(device)
    scores, gidx = scores.reshape(-1).to(where, torch.float32), gidx.reshape(-1).to(where, torch.long)
    if len(scores) != len(gidx):
        raise ValueError(f"scores and gidx must have one length, got {len(scores)} and {len(gidx)}")
    groups = int(gidx.max()) + 1 if len(gidx) else 0

    def total(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(groups, device=where).index_add_(0, gidx, values)

    count = total(torch.ones_like(scores))
    mean = total(scores) / count.clamp(min=1)
    variance = total((scores - mean[gidx]).square()) / (count - 1).clamp(min=1)
    alone = count < 2
    return mean.masked_fill(alone, 0.0), variance.clamp(min=eps).sqrt().masked_fill(alone, 1.0), count
