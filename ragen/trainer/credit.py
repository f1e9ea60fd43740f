"""From rewards of trajectories to advantages of tokens, on the driver.

Everything here works on one row a trajectory (``ragen.trainer.trajectory_rows``): the same advantages come out whether
its turns are one sample or a sample each.
"""

from __future__ import annotations

import numpy as np
import torch

from ragen.trainer.trajectory_rows import TrajectoryRows
from verl.protocol import DataProto
from verl.trainer.ppo.core_algos import apply_kl_penalty, get_adv_estimator_fn
from verl.utils.torch_functional import ROUNDING
from verl.utils.verl_keys import GROUP_ESTIMATORS

TOKEN_LEVEL = ("gae", "bi_level_gae")  # estimators that read rewards token by token, with a critic

#: per-token tensors (B, T-1) of a batch that credit reads, where they are there
_PER_TOKEN = (
    "response_mask", "token_level_scores", "values", "old_log_probs", "ref_log_prob", "rollout_log_probs",
    "rollout_is_weights", "entropys", "sum_pi_squared",
)  # fmt: skip


def compute_advantages(batch: DataProto, config, kl_controller, state: dict) -> tuple[DataProto, dict[str, float]]:
    """Adds ``token_level_rewards``, ``advantages`` and ``returns`` (B, T-1) to ``batch``; returns it with
    metrics. ``state``: what estimators remember between steps (saved with the checkpoint)."""
    algorithm, metrics = config.algorithm, {}
    rows = TrajectoryRows(batch)
    joined = rows.join_batch(batch, _PER_TOKEN)
    tensors = joined.batch
    if not config.agent_proxy.use_turn_scores:
        tensors["token_level_scores"] = scores_at_the_end(tensors["token_level_scores"], tensors["response_mask"])
    normalise_scores(joined, config.agent_proxy.reward_normalization)
    if algorithm.use_kl_in_reward:
        joined, metrics = apply_kl_penalty(joined, kl_ctrl=kl_controller, kl_penalty=algorithm.kl_penalty)
    else:
        tensors["token_level_rewards"] = tensors["token_level_scores"]
    advantages, returns = _estimate(joined, config, state)
    batch.batch["token_level_rewards"] = rows.split(tensors["token_level_rewards"])
    batch.batch["advantages"], batch.batch["returns"] = rows.split(advantages), rows.split(returns)
    return batch, metrics


def scores_at_the_end(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """``scores`` (N, W) of trajectories with each sum on the last sampled token (RAGEN's
    ``agent_proxy.use_turn_scores: false``)."""
    moved = torch.zeros_like(scores)
    moved[torch.arange(len(scores)), last_sampled(mask)] = scores.double().sum(-1).to(scores.dtype)
    return moved


def normalise_scores(joined: DataProto, section) -> None:
    """RAGEN's ``agent_proxy.reward_normalization``: shift and scale whole-trajectory scores by ``grouping`` (state: a
    group; inductive: a tag; batch) and ``method`` (identity, mean, mean_std, asym_clip: mean_std cut to [-1, 3]), with
    the unbiased deviation; 0 where members do not differ. The difference goes to the last sampled token. It comes before
    any KL penalty: a penalty is not a part of what the game paid."""
    if section.method == "identity":
        return
    scores = joined.batch["token_level_scores"].clone()
    totals = scores.double().sum(-1).numpy()
    key = {"state": "uid", "inductive": "tag", "batch": None}[section.grouping]
    labels = joined.non_tensor_batch[key] if key else np.zeros(len(totals))
    wanted = np.zeros_like(totals)
    for label in dict.fromkeys(labels.tolist()):
        members = labels == label
        wanted[members] = _normalised(totals[members], section.method)
    places = torch.arange(len(scores)), last_sampled(joined.batch["response_mask"])
    scores[places] += torch.from_numpy(wanted - totals).to(scores.dtype)
    joined.batch["token_level_scores"] = scores


def _normalised(values: np.ndarray, method: str) -> np.ndarray:
    shifted = values - values.mean()
    if method == "mean":
        return shifted
    deviation = values.std(ddof=1) if len(values) > 1 else 0.0
    shifted = shifted / (deviation + 1e-6) if deviation > 1e-6 else np.zeros_like(values)
    return shifted.clip(-1, 3) if method == "asym_clip" else shifted


def _estimate(joined: DataProto, config, state: dict) -> tuple[torch.Tensor, torch.Tensor]:
    algorithm, tensors, columns = config.algorithm, joined.batch, joined.non_tensor_batch
    wants = {
        "token_level_rewards": tensors["token_level_rewards"].float(),
        "response_mask": tensors["response_mask"].float(),
        "index": columns["uid"],
        "gamma": algorithm.gamma,
        "lam": algorithm.lam,
        "high_level_gamma": algorithm.high_level_gamma,
        "norm_adv_by_std_in_grpo": algorithm.norm_adv_by_std_in_grpo,
        "config": algorithm,
        "role": columns["role"],
        "game": columns["tag"],
        "state": state,
        "non_tensor_batch": columns,  # gdpo's rewards of their own
    }
    for optional in ("values", "turn_index", "reward_baselines", "old_log_probs", "rollout_is_weights", "sum_pi_squared"):
        if optional in tensors.keys():
            wants[optional] = tensors[optional]
    return get_adv_estimator_fn(algorithm.adv_estimator)(**wants)


def last_sampled(mask: torch.Tensor) -> torch.Tensor:
    """(N,) position of the last sampled token of each row (N, W); the last position of a row that rejection left
    without any (its reward still counts in the group, its tokens are not trained)."""
    places = torch.arange(mask.shape[1]).expand_as(mask)
    last = torch.where(mask.bool(), places, -1).amax(dim=1)
    return torch.where(last < 0, mask.shape[1] - 1, last)


def rows_with_signal(batch: DataProto, adv_estimator: str) -> np.ndarray:
    """Bool (B,): the rows that tell the policy something. Estimators that compare a group give signal by the group (a
    member at its mean stays in the count of a group that has some), every other one by the trajectory. What rounding
    leaves of equal rewards (a greedy baseline earned in other portions) is no signal."""
    noise = ROUNDING * min(1.0, float(batch.batch["token_level_scores"].abs().max()))
    rows = ((batch.batch["advantages"] * batch.batch["response_mask"]).abs() > noise).any(dim=-1).numpy()
    labels = batch.non_tensor_batch["uid" if adv_estimator in GROUP_ESTIMATORS else "traj_id"]
    return np.isin(labels.astype(str), np.unique(labels[rows].astype(str)))
