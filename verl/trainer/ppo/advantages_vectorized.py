"""VeRL's second names for GRPO and RLOO. Here both are computed for all groups at once under either name."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from verl.trainer.ppo.advantages_group import Advantages, Groups, compute_grpo_outcome_advantage, compute_rloo_outcome_advantage
from verl.trainer.ppo.registry import AdvantageEstimator, register_adv_est


@register_adv_est(AdvantageEstimator.GRPO_VECTORIZED)
def compute_grpo_vectorized_outcome_advantage(
    token_level_rewards: torch.Tensor, response_mask: torch.Tensor, index: np.ndarray, *args: Any, **kwargs: Any
) -> Advantages:
    """``grpo``, with its arguments."""
    return compute_grpo_outcome_advantage(token_level_rewards, response_mask, index, *args, **kwargs)


@register_adv_est(AdvantageEstimator.RLOO_VECTORIZED)
def compute_rloo_vectorized_outcome_advantage(
    token_level_rewards: torch.Tensor, response_mask: torch.Tensor, index: np.ndarray, *args: Any, **kwargs: Any
) -> Advantages:
    """``rloo``, with its arguments, but 0 for a group of one, where ``rloo`` gives the reward itself."""
    advantages, _ = compute_rloo_outcome_advantage(token_level_rewards, response_mask, index, *args, **kwargs)
    alone = Groups(index, len(advantages), advantages.device).size == 1
    advantages = advantages.masked_fill(alone.unsqueeze(-1), 0.0)
    return advantages, advantages
