"""Where rewards stand on a trajectory whose mask has holes: shared by the advantage estimators."""

from __future__ import annotations

import torch


def check_shapes(token_level_rewards: torch.Tensor, response_mask: torch.Tensor) -> None:
    if token_level_rewards.dim() != 2 or token_level_rewards.shape != response_mask.shape:
        raise ValueError(
            f"token_level_rewards and response_mask must both be (B, T), got "
            f"{tuple(token_level_rewards.shape)} and {tuple(response_mask.shape)}"
        )


def rewards_on_sampled_tokens(token_level_rewards: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """Rewards (B, T) moved onto the tokens that earned them: one that stands on a masked-out position
    (a closing token of the template, an observation, padding) goes to the last sampled token before
    it, or to the first sampled one if there is none before. Row sums are kept wherever the row has a
    sampled token; a row without one has nothing to credit and becomes 0."""
    check_shapes(token_level_rewards, response_mask)
    mask = response_mask.bool()
    positions = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    last = torch.where(mask, positions, -1).cummax(dim=1).values
    first = mask.to(torch.int8).argmax(dim=1, keepdim=True)
    target = torch.where(last < 0, first, last)
    folded = torch.zeros_like(token_level_rewards).scatter_add_(1, target, token_level_rewards)
    return torch.where(mask, folded, torch.zeros_like(folded))


def turn_ends(response_mask: torch.Tensor, turn_index: torch.Tensor | None = None) -> torch.Tensor:
    """Bool (B, T): true on the last sampled token of every turn. Read off the mask, so a turn that earned 0 is a
    turn all the same: where the next position is not sampled or does not exist, or, with ``turn_index`` (B, T; it grows
    along a row), where the next sampled token belongs to another turn (tokens may be given within a turn)."""
    mask = response_mask.bool()
    if turn_index is not None:
        index = turn_index.masked_fill(~mask, torch.iinfo(turn_index.dtype).max)
        later = torch.cat([index[:, 1:], torch.full_like(index[:, :1], torch.iinfo(index.dtype).max)], dim=1)
        return mask & (later.flip(1).cummin(dim=1).values.flip(1) > index)
    following = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
    return mask & ~following
