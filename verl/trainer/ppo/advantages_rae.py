"""Role-conditioned advantage estimation of SPIRAL: one moving baseline a game and role."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from verl.trainer.ppo.config_access import config_value
from verl.trainer.ppo.credit import check_shapes
from verl.trainer.ppo.registry import AdvantageEstimator, register_adv_est

#: game -> role -> moving average of its reward
Baselines = dict[str, dict[str, float]]


def update_role_baselines(
    baselines: Baselines, games: Sequence[Any], roles: Sequence[Any], rewards: Sequence[float], decay: float = 0.95
) -> list[float]:
    """Take one reward a trajectory into ``baselines`` (in place); return the updated baseline of each.

    ``n`` rewards of a (game, role) with mean ``m`` move its baseline, at first 0, as ``n`` single steps
    towards ``m`` do, ``b <- decay^n b + (1 - decay^n) m``, whatever the order of the batch. Raises
    ``ValueError`` for a decay outside [0, 1) and for lists of different lengths.
    """
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"the decay of role baselines must lie in [0, 1), got {decay}")
    if not len(games) == len(roles) == len(rewards):
        raise ValueError(f"games, roles and rewards differ in number: {len(games)}, {len(roles)}, {len(rewards)}")
    keys = [(str(game), str(role)) for game, role in zip(games, roles, strict=True)]
    seen: dict[tuple[str, str], list[float]] = {}
    for key, reward in zip(keys, rewards, strict=True):
        seen.setdefault(key, []).append(float(reward))
    for (game, role), of_role in seen.items():
        kept = decay ** len(of_role)
        mean = sum(sorted(of_role)) / len(of_role)  # sorted: the sum does not show the order
        by_role = baselines.setdefault(game, {})
        by_role[role] = kept * by_role.get(role, 0.0) + (1 - kept) * mean
    return [baselines[game][role] for game, role in keys]


@register_adv_est(AdvantageEstimator.RAE)
@torch.no_grad()
def compute_rae_outcome_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    game: Sequence[Any],
    role: Sequence[Any],
    state: dict[str, Any],
    decay: float = 0.95,
    config: Any = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """RAE (SPIRAL, arXiv:2506.24119, algorithm 1): ``A = R - b(game, role)``, where ``b`` has taken in this
    batch's rewards first; given to all sampled tokens. ``config.rae_decay`` (``algorithm.rae_decay``) overrides ``decay``.

    ``game`` and ``role`` (B,) name those of each row. ``state`` is the driver's and goes into its
    checkpoint: the baselines are kept, as plain numbers, under ``state["role_baselines"]`` and updated in
    place, so call this once a batch. Roles of one game win unequally often: a group's or the batch's mean
    would teach the disadvantaged role that all it does is bad. Returns (advantages, advantages), (B, T).
    """
    check_shapes(token_level_rewards, response_mask)
    scores = token_level_rewards.double().sum(dim=-1)
    baselines = state.setdefault("role_baselines", {})
    decay = config_value(config, "rae_decay", decay)
    baseline = torch.tensor(
        update_role_baselines(baselines, game, role, scores.tolist(), decay), dtype=torch.float64, device=scores.device
    )
    advantages = (scores - baseline).to(token_level_rewards.dtype).unsqueeze(-1) * response_mask.to(token_level_rewards.dtype)
    return advantages, advantages
