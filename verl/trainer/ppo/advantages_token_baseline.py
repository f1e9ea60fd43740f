"""Advantages less a baseline of their own at every token: the optimal token baseline (OTB).

The return of a group's members at their k-th sampled token is compared with a mean of these returns, in which a member weighs by
how much gradient its tokens up to there carry::

    B_k = sum_i G_ik W_ik / sum_i W_ik        W_ik = sum of |s_ij|^2 over the sampled tokens j <= k of member i
    A_ik = G_ik - B_k                         |s_ij|^2 = 1 - 2 pi_ij + sum_v pi_ij(v)^2

``|s|^2`` is the squared norm of the gradient of log pi at the token by its logits; ``pi`` the probability of the sampled
token. With importance weights the terms are multiplied by their squares.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from verl.trainer.ppo.advantages_group import Advantages, Groups
from verl.trainer.ppo.credit import rewards_on_sampled_tokens
from verl.trainer.ppo.registry import AdvantageEstimator, register_adv_est
from verl.utils.torch_functional import masked_fill_zero


@register_adv_est(AdvantageEstimator.TIR_OPTIMAL_TOKEN_BASELINE)
@register_adv_est(AdvantageEstimator.OPTIMAL_TOKEN_BASELINE)
@torch.no_grad()
def compute_optimal_token_baseline_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: np.ndarray,
    old_log_probs: torch.Tensor | None = None,
    sum_pi_squared: torch.Tensor | None = None,
    rollout_is_weights: torch.Tensor | None = None,
    handle_zero_tail: bool = True,
    epsilon: float = 1e-8,
    config: Any = None,
    **kwargs: Any,
) -> Advantages:
    """The optimal token baseline (VeRL's ``optimal_token_baseline`` and ``tir_optimal_token_baseline``), all tensors (B, T).

    Tokens are counted from the first sampled one, whatever stands between turns, so both of VeRL's names mean the same: its first
    aligns columns, which is this for one reply in a row. Returns are undiscounted. A group of one has no baseline.

    Args:
        index: (B,) each row's group.
        old_log_probs: of the sampled tokens; ``sum_pi_squared``: ``sum_v pi(v)^2`` there. Under the trainer's own policy.
        rollout_is_weights: importance weights, if the loss has any.
        handle_zero_tail: where one member is longer than all others, its tokens past them have no baseline; false compares them
            with themselves, which leaves nothing.

    Raises:
        ValueError: ``old_log_probs`` or ``sum_pi_squared`` is missing, or of another shape.
    """
    for name, given in (("old_log_probs", old_log_probs), ("sum_pi_squared", sum_pi_squared)):
        if given is None or given.shape != response_mask.shape:
            shape = "nothing" if given is None else tuple(given.shape)
            raise ValueError(f"the optimal token baseline needs {name} {tuple(response_mask.shape)}, got {shape}: compute it first (compute_log_prob)")
    mask = response_mask.bool()
    rewards = rewards_on_sampled_tokens(token_level_rewards, mask).double()
    returns = masked_fill_zero(rewards.flip(-1).cumsum(-1).flip(-1), mask)
    energy = 1.0 - 2.0 * old_log_probs.double().exp() + sum_pi_squared.double()
    if rollout_is_weights is not None:
        energy = energy * rollout_is_weights.double().square()
    weights = masked_fill_zero(energy, mask).cumsum(-1)

    groups = Groups(index, len(mask), mask.device)
    kth = (mask.cumsum(-1) - 1).clamp(min=0)  # which sampled token of its row a position is
    group = groups.row_group.unsqueeze(-1).expand_as(kth)

    def over_members(values: torch.Tensor) -> torch.Tensor:
        """Sum over each group's members at the same k, (groups, T)."""
        total = values.new_zeros(len(groups.ids), mask.shape[1])
        return total.index_put_((group[mask], kth[mask]), values[mask], accumulate=True)

    baseline = over_members(returns * weights) / (over_members(weights) + epsilon)
    compared = (groups.size > 1).unsqueeze(-1).expand_as(mask)
    if handle_zero_tail:
        members = over_members(torch.ones_like(returns))
        compared = compared & (members[group, kth] > 1)
    advantages = masked_fill_zero(returns - torch.where(compared, baseline[group, kth], 0.0), mask)
    return advantages.to(token_level_rewards.dtype), returns.to(token_level_rewards.dtype)


#: VeRL's name for the form that knows several turns
compute_multi_turn_optimal_token_baseline_advantage = compute_optimal_token_baseline_advantage
