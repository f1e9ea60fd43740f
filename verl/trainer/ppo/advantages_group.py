"""Critic-free advantages from the total reward of each trajectory, relative to its group.

``r_i`` is the sum of ``token_level_rewards[i]`` over all positions (masked-out ones included: the
reward of a game may stand on a closing token). ``index`` (B,) names each row's group (VeRL's
``uid``). Every estimator gives all sampled tokens of a row one advantage and 0 elsewhere, and
returns ``(advantages, returns)``, both (B, T) and here equal. A group of one member has nothing to
compare with: as VeRL documents it, its mean is taken as 0 and its deviation as 1, so the advantage
is the reward itself; filter such groups out, or see that groups stay whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from verl.trainer.ppo.config_access import config_value
from verl.trainer.ppo.credit import check_shapes
from verl.trainer.ppo.registry import AdvantageEstimator, register_adv_est
from verl.utils.torch_functional import ROUNDING, masked_whiten

Advantages = tuple[torch.Tensor, torch.Tensor]


class Groups:
    """Rows by group, with the sums over members that the estimators need; ``of(i)`` style results
    are broadcast back to rows (B,)."""

    def __init__(self, index: Sequence[Any] | np.ndarray, rows: int, device: torch.device):
        if len(index) != rows:
            raise ValueError(f"index names {len(index)} groups for {rows} rows; it needs one id a row")
        ids, inverse = np.unique(np.asarray([str(i) for i in index]), return_inverse=True)
        self.ids, self.row_group = ids, torch.as_tensor(inverse.reshape(-1), device=device)
        self.sizes = torch.bincount(self.row_group, minlength=len(ids))
        self.size = self.sizes[self.row_group]  # of each row's group

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over each row's group, broadcast to rows. In float64, so that the order of rows does not show."""
        total = torch.zeros(len(self.ids), dtype=torch.float64, device=values.device)
        return total.index_add_(0, self.row_group, values.double())[self.row_group]

    def lowest(self, scores: torch.Tensor) -> torch.Tensor:
        """The smallest score of each row's group."""
        low = torch.full((len(self.ids),), torch.inf, dtype=scores.dtype, device=scores.device)
        return low.scatter_reduce_(0, self.row_group, scores, "amin")[self.row_group]

    def levelled(self, scores: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """``scores`` with those of a group made equal where none differs from another by more than the group's largest ``noise`` (B,)."""
        low, high = self.lowest(scores), -self.lowest(-scores)
        return torch.where(high - low <= -self.lowest(-noise), low, scores)

    def centred(self, scores: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """``scores`` less the (weighted) group mean, the score itself for a group of one. Members that score alike get
        exactly 0: rounding left over from a mean would pass for signal once it is divided by their deviation."""
        above = scores - self.lowest(scores)
        weights = torch.ones_like(scores) if weights is None else weights
        mean = self.sum(weights * above) / self.sum(weights).clamp(min=torch.finfo(torch.float64).tiny)
        return torch.where(self.size > 1, above - mean, scores)

    def std(self, scores: torch.Tensor) -> torch.Tensor:
        """Unbiased group deviation, 1 for a group of one."""
        squares = self.sum(self.centred(scores).square())
        return torch.where(self.size > 1, (squares / (self.size - 1).clamp(min=1)).sqrt(), 1.0)


def group_totals(token_level_rewards: torch.Tensor, response_mask: torch.Tensor, index) -> tuple[torch.Tensor, Groups]:
    """Total rewards (B,) in float64 and the groups. Members that earned the same in different portions (0.9, or -0.1 and
    1.0) differ by the rounding of float32; that is no signal, and no deviation to divide by."""
    check_shapes(token_level_rewards, response_mask)
    rewards = token_level_rewards.double()
    scores = rewards.sum(dim=-1)
    groups = Groups(index, len(scores), scores.device)
    return groups.levelled(scores, ROUNDING * rewards.abs().sum(dim=-1)), groups


def _spread(per_row: torch.Tensor, like: torch.Tensor, response_mask: torch.Tensor) -> Advantages:
    advantages = per_row.to(like.dtype).unsqueeze(-1) * response_mask.to(like.dtype)
    return advantages, advantages


@register_adv_est(AdvantageEstimator.GRPO)
@torch.no_grad()
def compute_grpo_outcome_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: np.ndarray,
    epsilon: float = 1e-6,
    norm_adv_by_std_in_grpo: bool = True,
    config: Any = None,
    **kwargs: Any,
) -> Advantages:
    """GRPO (arXiv:2402.03300): ``(r - mean) / (std + epsilon)`` over the group, std unbiased; without
    ``norm_adv_by_std_in_grpo`` ``r - mean``, as in Dr. GRPO (arXiv:2503.20783)."""
    scores, groups = group_totals(token_level_rewards, response_mask, index)
    centred = groups.centred(scores)
    if norm_adv_by_std_in_grpo:
        centred = centred / (groups.std(scores) + epsilon)
    return _spread(centred, token_level_rewards, response_mask)


@register_adv_est(AdvantageEstimator.RLOO)
@torch.no_grad()
def compute_rloo_outcome_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: np.ndarray,
    epsilon: float = 1e-6,
    config: Any = None,
    **kwargs: Any,
) -> Advantages:
    """RLOO (arXiv:2402.14740): ``r_i`` less the mean of the other members, ``n / (n - 1) (r_i - mean)``."""
    scores, groups = group_totals(token_level_rewards, response_mask, index)
    factor = torch.where(groups.size > 1, groups.size.double() / (groups.size - 1).clamp(min=1), 1.0)
    return _spread(factor * groups.centred(scores), token_level_rewards, response_mask)


@register_adv_est(AdvantageEstimator.OPO)
@torch.no_grad()
def compute_opo_outcome_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: np.ndarray,
    epsilon: float = 1e-6,
    config: Any = None,
    **kwargs: Any,
) -> Advantages:
    """OPO (arXiv:2505.23585): the variance-minimising baseline under equal gradient norms a token, the
    length-weighted mean ``sum_j l_j r_j / sum_j l_j`` with ``l`` the sampled tokens."""
    scores, groups = group_totals(token_level_rewards, response_mask, index)
    lengths = response_mask.bool().sum(dim=-1).double()
    return _spread(groups.centred(scores, lengths), token_level_rewards, response_mask)


@register_adv_est(AdvantageEstimator.GRPO_PASSK)
@torch.no_grad()
def compute_grpo_passk_outcome_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: np.ndarray,
    epsilon: float = 1e-6,
    norm_adv_by_std_in_grpo: bool = True,
    config: Any = None,
    **kwargs: Any,
) -> Advantages:
    """Pass@k training (arXiv:2503.19595): only the best member of a group learns, by ``r_max - r_second``
    (divided by ``std + epsilon`` with ``norm_adv_by_std_in_grpo``, which a config overrides). If the best
    is tied the difference is 0. Raises ``ValueError`` for a group of one member."""
    norm_adv_by_std_in_grpo = config_value(config, "norm_adv_by_std_in_grpo", norm_adv_by_std_in_grpo)
    scores, groups = group_totals(token_level_rewards, response_mask, index)
    if len(groups.ids) and int(groups.sizes.min()) < 2:
        alone = groups.ids[int(groups.sizes.argmin())]
        raise ValueError(f"grpo_passk compares the best with the second best: group {alone!r} has one member, needs 2 or more")
    std, result = groups.std(scores), torch.zeros_like(scores)
    for g in range(len(groups.ids)):
        rows = (groups.row_group == g).nonzero().reshape(-1)
        top, where = scores[rows].topk(2)
        best = rows[where[0]]
        result[best] = (top[0] - top[1]) / (std[best] + epsilon if norm_adv_by_std_in_grpo else 1.0)
    return _spread(result, token_level_rewards, response_mask)


@register_adv_est(AdvantageEstimator.GPG)
@torch.no_grad()
def compute_gpg_outcome_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: np.ndarray,
    epsilon: float = 1e-6,
    f_norm: float = 1.0,
    alpha: float | None = None,
    config: Any = None,
    **kwargs: Any,
) -> Advantages:
    """GPG (arXiv:2504.02546): ``alpha (r - mean) / f_norm``. ``alpha`` makes up for rows that give no
    gradient; left out it is VeRL's ``B / #(r != 0)`` (1 if all rewards are 0). ``config.gpg_f_norm`` and
    ``config.gpg_alpha`` override the arguments."""
    f_norm, alpha = config_value(config, "gpg_f_norm", f_norm), config_value(config, "gpg_alpha", alpha)
    scores, groups = group_totals(token_level_rewards, response_mask, index)
    if alpha is None:
        nonzero = int(torch.count_nonzero(scores))
        alpha = len(scores) / nonzero if nonzero else 1.0
    return _spread(alpha * groups.centred(scores) / f_norm, token_level_rewards, response_mask)


@register_adv_est(AdvantageEstimator.GDPO)
@torch.no_grad()
def compute_gdpo_outcome_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: np.ndarray,
    epsilon: float = 1e-6,
    norm_adv_by_std_in_grpo: bool = True,
    config: Any = None,
    non_tensor_batch: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Advantages:
    """GDPO (arXiv:2601.05242): GRPO for each reward of its own, added up with weights, then whitened
    over the batch's sampled tokens, so that a large reward does not drown a small one.

    ``config.gdpo_reward_keys`` names columns (B,) of ``non_tensor_batch``, ``config.gdpo_reward_weights``
    their weights (default 1 each). Without keys the total reward is the only one. Raises ``ValueError``
    for a key that is not there and for weights that do not match the keys.
    """
    keys = list(config_value(config, "gdpo_reward_keys", []))
    weights = list(config_value(config, "gdpo_reward_weights", [1.0] * max(1, len(keys))))
    rewards = [token_level_rewards]
    if keys:
        missing = [key for key in keys if key not in (non_tensor_batch or {})]
        if missing:
            raise ValueError(
                f"algorithm.gdpo_reward_keys names {missing}, not in the batch (it has {sorted(non_tensor_batch or {})})"
            )
        columns = [np.asarray(non_tensor_batch[key], dtype=np.float64) for key in keys]
        rewards = [
            torch.nn.functional.pad(
                torch.as_tensor(c, device=token_level_rewards.device).unsqueeze(-1), (0, response_mask.shape[1] - 1)
            )
            for c in columns
        ]
    if len(weights) != len(rewards):
        raise ValueError(f"algorithm.gdpo_reward_weights has {len(weights)} entries for {len(rewards)} rewards")
    total = torch.zeros_like(token_level_rewards)
    for weight, reward in zip(weights, rewards, strict=True):
        total = total + weight * compute_grpo_outcome_advantage(reward, response_mask, index, epsilon, norm_adv_by_std_in_grpo)[0]
    total = total.to(token_level_rewards.dtype)
    advantages = masked_whiten(total, response_mask) * response_mask.to(total.dtype)
    return advantages, advantages
