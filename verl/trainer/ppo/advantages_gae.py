"""Advantages from a critic: GAE, and its two-level form for many turns.

Masks have holes (observations between turns); time runs over the sampled tokens alone. A reward
that stands in a hole or after the end belongs to the sampled token before it
(:func:`~verl.trainer.ppo.credit.rewards_on_sampled_tokens`), so that none is lost.
"""

from __future__ import annotations

from typing import Any

import torch

from verl.trainer.ppo.credit import rewards_on_sampled_tokens, turn_ends
from verl.trainer.ppo.registry import AdvantageEstimator, register_adv_est
from verl.utils.torch_functional import masked_fill_zero, masked_whiten

Advantages = tuple[torch.Tensor, torch.Tensor]


def _check_values(values: torch.Tensor, response_mask: torch.Tensor) -> None:
    if values.shape != response_mask.shape:
        raise ValueError(f"values {tuple(values.shape)} must have the response_mask's shape {tuple(response_mask.shape)}")


def _gae(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float, ends: torch.Tensor | None = None
) -> torch.Tensor:
    """Unnormalised GAE over the sampled tokens; nothing flows back across ``ends``."""
    next_value, next_advantage = torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])
    advantages = torch.zeros_like(values)
    for t in reversed(range(values.shape[1])):
        here = mask[:, t]
        if ends is not None:
            next_value = torch.where(ends[:, t], 0.0, next_value)
            next_advantage = torch.where(ends[:, t], 0.0, next_advantage)
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * lam * next_advantage
        advantages[:, t] = torch.where(here, advantage, 0.0)
        next_value = torch.where(here, values[:, t], next_value)
        next_advantage = torch.where(here, advantage, next_advantage)
    return advantages


@register_adv_est(AdvantageEstimator.GAE)
@torch.no_grad()
def compute_gae_advantage_return(
    token_level_rewards: torch.Tensor,
    values: torch.Tensor,
    response_mask: torch.Tensor,
    gamma: float = 1.0,
    lam: float = 1.0,
    **kwargs: Any,
) -> Advantages:
    """GAE (arXiv:1506.02438) over the sampled tokens 1..n of a row, with ``V_{n+1} = 0``::

        delta_t = r_t + gamma V_{t+1} - V_t        A_t = delta_t + gamma lam A_{t+1}

    All (B, T). Returns the advantages, whitened over the batch's sampled tokens, and the returns
    ``A + V`` (from the unwhitened ones) that the critic learns; both 0 where nothing was sampled.
    """
    _check_values(values, response_mask)
    mask = response_mask.bool()
    values = masked_fill_zero(values, mask)
    raw = _gae(rewards_on_sampled_tokens(token_level_rewards, mask), values, mask, gamma, lam)
    return masked_fill_zero(masked_whiten(raw, mask), mask), raw + values


@register_adv_est(AdvantageEstimator.BI_LEVEL_GAE)
@torch.no_grad()
def compute_bi_level_gae_advantage_return(
    token_level_rewards: torch.Tensor,
    values: torch.Tensor,
    response_mask: torch.Tensor,
    gamma: float = 1.0,
    lam: float = 1.0,
    high_level_gamma: float = 1.0,
    turn_index: torch.Tensor | None = None,
    **kwargs: Any,
) -> Advantages:
    """Bi-level GAE (VAGEN, arXiv:2510.16907): first over turns, then within each turn.

    Turn k ends at its last sampled token ``e_k``, found from the mask (and ``turn_index`` where it is given), so turns
    that earn 0 count too. With ``r_k`` the reward on it and ``s_k`` what the turn's earlier tokens earned (a KL penalty)::

        delta_k = r_k + high_level_gamma (s_{k+1} + V(e_{k+1})) - V(e_k)
        A_k     = delta_k + high_level_gamma lam A_{k+1}

    Then GAE with ``gamma`` and ``lam`` runs within each turn, its last token earning the turn's return
    ``A_k + V(e_k)`` and nothing flowing in from the next turn. With one turn, or with all discounts
    and ``lam`` at 1, this is GAE. Shapes and returns as in :func:`compute_gae_advantage_return`.
    """
    _check_values(values, response_mask)
    mask = response_mask.bool()
    values, ends = masked_fill_zero(values, mask), turn_ends(mask, turn_index)
    rewards = rewards_on_sampled_tokens(token_level_rewards, mask)
    returns_at_end = rewards.clone()
    zero = torch.zeros_like(values[:, 0])
    next_value, next_advantage, within_next = zero, zero, zero
    for t in reversed(range(values.shape[1])):
        end, inside = ends[:, t], mask[:, t] & ~ends[:, t]
        delta = rewards[:, t] + high_level_gamma * (within_next + next_value) - values[:, t]
        advantage = delta + high_level_gamma * lam * next_advantage
        returns_at_end[:, t] = torch.where(end, advantage + values[:, t], rewards[:, t])
        next_value = torch.where(end, values[:, t], next_value)
        next_advantage = torch.where(end, advantage, next_advantage)
        within_next = torch.where(end, 0.0, within_next + torch.where(inside, rewards[:, t], 0.0))
    raw = _gae(returns_at_end, values, mask, gamma, lam, ends)
    return masked_fill_zero(masked_whiten(raw, mask), mask), raw + values
