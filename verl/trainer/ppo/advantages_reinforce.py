"""Critic-free advantages of the REINFORCE family: baselines from the batch, the group or a greedy reply.

Rewards that stand on masked-out positions are credited to the sampled token before
(``rewards_on_sampled_tokens``) and returns pass over the holes between turns. Both results are (B, T).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from verl.trainer.ppo.advantages_group import group_totals
from verl.trainer.ppo.config_access import config_value
from verl.trainer.ppo.credit import rewards_on_sampled_tokens
from verl.trainer.ppo.registry import AdvantageEstimator, register_adv_est
from verl.utils.torch_functional import masked_fill_zero, masked_whiten

Advantages = tuple[torch.Tensor, torch.Tensor]


def discounted_returns(rewards: torch.Tensor, mask: torch.Tensor, gamma: float) -> torch.Tensor:
    """``G_t = r_t + gamma G_{t+1}`` over the sampled tokens; 0 elsewhere."""
    running, returns = torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards)
    for t in reversed(range(rewards.shape[1])):
        running = torch.where(mask[:, t], rewards[:, t] + gamma * running, running)
        returns[:, t] = torch.where(mask[:, t], running, 0.0)
    return returns


@register_adv_est(AdvantageEstimator.REINFORCE_PLUS_PLUS)
@torch.no_grad()
def compute_reinforce_plus_plus_outcome_advantage(
    token_level_rewards: torch.Tensor, response_mask: torch.Tensor, config: Any = None, **kwargs: Any
) -> Advantages:
    """REINFORCE++ (arXiv:2501.03262): discounted returns (``config.gamma``, default 1) whitened over the
    batch's sampled tokens. A KL penalty belongs in the rewards (``use_kl_in_reward``)."""
    mask = response_mask.bool()
    returns = discounted_returns(rewards_on_sampled_tokens(token_level_rewards, mask), mask, config_value(config, "gamma", 1.0))
    return masked_fill_zero(masked_whiten(returns, mask), mask), returns


@register_adv_est(AdvantageEstimator.REINFORCE_PLUS_PLUS_BASELINE)
@torch.no_grad()
def compute_reinforce_plus_plus_baseline_outcome_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: np.ndarray,
    epsilon: float = 1e-6,
    config: Any = None,
    **kwargs: Any,
) -> Advantages:
    """REINFORCE++-baseline (arXiv:2501.03262): total reward less the group's mean (0 for a group of one),
    given to all sampled tokens, then whitened over the batch's sampled tokens."""
    mask = response_mask.bool()
    scores, groups = group_totals(token_level_rewards, response_mask, index)
    centred = groups.centred(scores)
    spread = masked_fill_zero(centred.to(token_level_rewards.dtype).unsqueeze(-1).expand_as(token_level_rewards), mask)
    advantages = masked_fill_zero(masked_whiten(spread, mask), mask)
    return advantages, advantages


@register_adv_est(AdvantageEstimator.REMAX)
@torch.no_grad()
def compute_remax_outcome_advantage(
    token_level_rewards: torch.Tensor,
    reward_baselines: torch.Tensor,
    response_mask: torch.Tensor,
    config: Any = None,
    **kwargs: Any,
) -> Advantages:
    """ReMax (arXiv:2310.10505): undiscounted return from each token on, less ``reward_baselines`` (B,), the
    reward of a greedy reply to the same prompt."""
    mask = response_mask.bool()
    if reward_baselines.shape != mask.shape[:1]:
        raise ValueError(
            f"reward_baselines must have shape ({mask.shape[0]},), one greedy reward a row, got {tuple(reward_baselines.shape)}"
        )
    returns = discounted_returns(rewards_on_sampled_tokens(token_level_rewards, mask), mask, 1.0)
    return masked_fill_zero(returns - reward_baselines.unsqueeze(-1), mask), returns
