"""Role-conditioned advantage estimation of SPIRAL: one moving baseline a game and role."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from verl.trainer.ppo.credit import check_shapes
from verl.trainer.ppo.registry import AdvantageEstimator, register_adv_est


class RoleBaselines:
    """Moving average of the reward of every (game, role). The driver owns it, hands it to the estimator
    once a step and saves it with the checkpoint. ``decay`` in [0, 1); baselines start at 0."""

    def __init__(self, decay: float = 0.95):
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"the decay of role baselines must lie in [0, 1), got {decay}")
        self.decay = decay
        self.values: dict[tuple[str, str], float] = {}

    def update(self, games: Sequence[Any], roles: Sequence[Any], rewards: Sequence[float]) -> list[float]:
        """Take in one reward a trajectory; return the updated baseline of each.

        ``n`` rewards of a (game, role) with mean ``m`` move it as ``n`` single steps towards ``m`` do,
        ``b <- decay^n b + (1 - decay^n) m``, whatever the order of the batch.
        """
        if not len(games) == len(roles) == len(rewards):
            raise ValueError(f"games, roles and rewards differ in number: {len(games)}, {len(roles)}, {len(rewards)}")
        keys = [(str(game), str(role)) for game, role in zip(games, roles)]
        by_key: dict[tuple[str, str], list[float]] = {}
        for key, reward in zip(keys, rewards):
            by_key.setdefault(key, []).append(float(reward))
        for key, seen in by_key.items():
            kept = self.decay ** len(seen)
            self.values[key] = kept * self.values.get(key, 0.0) + (1 - kept) * sum(sorted(seen)) / len(seen)
        return [self.values[key] for key in keys]

    def state_dict(self) -> dict[str, Any]:
        return {"baselines": [[game, role, value] for (game, role), value in sorted(self.values.items())]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.values = {(game, role): float(value) for game, role, value in state["baselines"]}


@register_adv_est(AdvantageEstimator.RAE)
@torch.no_grad()
def compute_rae_outcome_advantage(token_level_rewards: torch.Tensor, response_mask: torch.Tensor, tag: Sequence[Any],
                                  role: Sequence[Any], baselines: RoleBaselines, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """RAE (SPIRAL, arXiv:2506.24119, algorithm 1): ``A = R - b(game, role)``, where ``b`` has taken in this
    batch's rewards first; given to all sampled tokens.

    ``tag`` and ``role`` (B,) name the game and the role of each row; ``baselines`` is updated in place,
    so call it once a batch. Roles of one game win unequally often: a group's or the batch's mean would
    teach the disadvantaged role that all it does is bad. Returns (advantages, advantages), (B, T).
    """
    check_shapes(token_level_rewards, response_mask)
    scores = token_level_rewards.double().sum(dim=-1)
    baseline = torch.tensor(baselines.update(tag, role, scores.tolist()), dtype=torch.float64, device=scores.device)
    advantages = (scores - baseline).to(token_level_rewards.dtype).unsqueeze(-1) * response_mask.to(token_level_rewards.dtype)
    return advantages, advantages
