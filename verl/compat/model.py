"""Masks and positions of padded batches (``verl.utils.model``)."""

from __future__ import annotations

import numpy as np
import torch


def compute_position_id_with_mask(mask: torch.Tensor) -> torch.Tensor:
    """Position of each real token in its row, (..., T) from a mask (..., T): 0, 1, 2, ... from the first one on, 0 before it."""
    return (mask.cumsum(dim=-1) - 1).clamp(min=0)


def create_random_mask(
    input_ids: torch.Tensor,
    max_ratio_of_valid_token: float,
    max_ratio_of_left_padding: float,
    min_ratio_of_valid_token: float = 0,
) -> torch.Tensor:
    """An attention mask (B, T) int64 with a random run of ones in each row, drawn from NumPy's global state as in VeRL.

    Args:
        input_ids: (B, T), read for its shape and device alone.
        max_ratio_of_valid_token, min_ratio_of_valid_token: bounds of the run's length as a share of T (at least one token).
        max_ratio_of_left_padding: largest share of T before it.

    Raises:
        AssertionError: ratios outside (0, 1] and [0, 1), or which together ask for more than T positions.
    """
    rows, width = input_ids.shape
    if not 0 < max_ratio_of_valid_token <= 1 or not 0 <= max_ratio_of_left_padding < 1 or min_ratio_of_valid_token > max_ratio_of_valid_token:
        raise AssertionError(
            f"need 0 < max_ratio_of_valid_token <= 1, 0 <= max_ratio_of_left_padding < 1 and min_ratio_of_valid_token <= max, got "
            f"{max_ratio_of_valid_token}, {max_ratio_of_left_padding}, {min_ratio_of_valid_token}"
        )
    most, least = int(width * max_ratio_of_valid_token), max(1, int(width * min_ratio_of_valid_token))
    padding = int(width * max_ratio_of_left_padding)
    if not 0 < most <= width - padding:
        raise AssertionError(f"{most} tokens and {padding} of padding before them do not fit {width} positions")
    mask = torch.zeros_like(input_ids, dtype=torch.int64)
    for row in range(rows):
        start = np.random.randint(padding + 1, dtype=np.int64)
        length = np.random.randint(least, most + 1, dtype=np.int64)
        mask[row, start : start + length] = 1
    return mask
