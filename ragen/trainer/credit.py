"""From rewards of trajectories to advantages of tokens, on the driver.

Estimators see one row a trajectory. Where a trajectory is several samples (a context that cannot only
grow), its rows are joined for the estimator and what it found is spread over them again.
"""

from __future__ import annotations

import numpy as np
import torch

from verl.protocol import DataProto
from verl.trainer.ppo.core_algos import add_cov_selected, apply_kl_penalty, get_adv_estimator_fn

TOKEN_LEVEL = ("gae", "bi_level_gae")  # estimators that read rewards token by token, with a critic


def compute_advantages(batch: DataProto, config, kl_controller, state: dict) -> tuple[DataProto, dict[str, float]]:
    """Adds ``token_level_rewards``, ``advantages`` and ``returns`` (B, T-1) to ``batch``; returns it with
    metrics. ``state``: what estimators remember between steps (saved with the checkpoint)."""
    algorithm, metrics = config.algorithm, {}
    if not config.agent_proxy.use_turn_scores:
        batch.batch["token_level_scores"] = scores_at_the_end(batch)
    if algorithm.use_kl_in_reward:
        batch, metrics = apply_kl_penalty(batch, kl_ctrl=kl_controller, kl_penalty=algorithm.kl_penalty)
    else:
        batch.batch["token_level_rewards"] = batch.batch["token_level_scores"]
    normalise_rewards(batch, config.agent_proxy.reward_normalization)
    columns = _columns(batch)
    if algorithm.adv_estimator in TOKEN_LEVEL:
        advantages, returns = _estimate(batch, columns, config, state)
    else:
        advantages, returns = _estimate_trajectories(batch, columns, config, state)
    batch.batch["advantages"], batch.batch["returns"] = advantages, returns
    # clip_cov and kl_cov rank the tokens of the whole step; other losses leave the batch as it is
    batch = add_cov_selected(batch, config.actor_rollout_ref.actor, seed=int(batch.meta_info.get("global_steps", 0)))
    return batch, metrics


def scores_at_the_end(batch: DataProto) -> torch.Tensor:
    """``token_level_scores`` (B, T-1) with each trajectory's sum on its last sampled token (RAGEN's
    ``agent_proxy.use_turn_scores: false``)."""
    scores, mask = batch.batch["token_level_scores"], batch.batch["response_mask"]
    moved = torch.zeros_like(scores)
    rows_of: dict[int, list[int]] = {}
    for row, i in enumerate(batch.non_tensor_batch["traj_id"].tolist()):
        rows_of.setdefault(i, []).append(row)
    for rows in rows_of.values():
        moved[rows[-1], last_sampled(mask[rows[-1]])] = scores[rows].double().sum().to(scores.dtype)
    return moved


def normalise_rewards(batch: DataProto, section) -> None:
    """RAGEN's ``agent_proxy.reward_normalization``: shift and scale whole-trajectory rewards by
    ``grouping`` (state: a group; inductive: a tag; batch) and ``method`` (identity, mean, mean_std,
    asym_clip: mean_std cut to [-1, 3]). The difference goes to the last sampled token."""
    if section.method == "identity":
        return
    rewards = batch.batch["token_level_rewards"].clone()
    mask = batch.batch["response_mask"]
    ids, first = np.unique(batch.non_tensor_batch["traj_id"], return_index=True)
    totals = {i: 0.0 for i in ids}
    for i, value in zip(batch.non_tensor_batch["traj_id"], rewards.double().sum(-1).tolist(), strict=True):
        totals[i] += value
    key = {"state": "uid", "inductive": "tag", "batch": None}[section.grouping]
    label = {i: batch.non_tensor_batch[key][row] if key else "" for i, row in zip(ids, first, strict=True)}
    wanted = {}
    for group in set(label.values()):
        members = [i for i in ids if label[i] == group]
        values = np.array([totals[i] for i in members])
        shifted = values - values.mean()
        if section.method != "mean":
            shifted = shifted / (values.std() + 1e-6)
        if section.method == "asym_clip":
            shifted = shifted.clip(-1, 3)
        wanted.update(zip(members, shifted, strict=True))
    last_row = {i: row for row, i in enumerate(batch.non_tensor_batch["traj_id"])}
    for i, row in last_row.items():
        last = last_sampled(mask[row])
        rewards[row, last] += wanted[i] - totals[i]
    batch.batch["token_level_rewards"] = rewards


def _columns(batch: DataProto) -> dict[str, np.ndarray]:
    names = ("uid", "tag", "role", "traj_id")
    return {name: batch.non_tensor_batch[name] for name in names}


def _estimate(batch: DataProto, columns: dict, config, state: dict) -> tuple[torch.Tensor, torch.Tensor]:
    algorithm, tensors = config.algorithm, batch.batch
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
        "non_tensor_batch": batch.non_tensor_batch,  # gdpo's rewards of their own
    }
    for optional in ("values", "turn_index", "reward_baselines"):
        if optional in tensors.keys():
            wants[optional] = tensors[optional]
    return get_adv_estimator_fn(algorithm.adv_estimator)(**wants)


def _estimate_trajectories(batch: DataProto, columns: dict, config, state: dict) -> tuple[torch.Tensor, torch.Tensor]:
    order = columns["traj_id"]
    if len(set(order)) == len(order):
        return _estimate(batch, columns, config, state)
    rows_of: dict[int, list[int]] = {}
    for row, i in enumerate(order):
        rows_of.setdefault(i, []).append(row)
    last = [rows[-1] for rows in rows_of.values()]
    joined = batch.select_idxs(last)
    rewards = torch.zeros_like(joined.batch["token_level_rewards"])
    mask = joined.batch["response_mask"]
    for k, rows in enumerate(rows_of.values()):
        rewards[k, last_sampled(mask[k])] = batch.batch["token_level_rewards"][rows].sum()
    joined.batch["token_level_rewards"] = rewards
    found, _ = _estimate(joined, {name: values[last] for name, values in columns.items()}, config, state)
    spread = torch.zeros_like(batch.batch["token_level_rewards"])
    for k, rows in enumerate(rows_of.values()):
        scalar = found[k, last_sampled(mask[k])]
        spread[rows] = scalar * batch.batch["response_mask"][rows].float()
    return spread, spread


def last_sampled(mask: torch.Tensor) -> int:
    """Position of the last sampled token of a row (T-1,); the last position of a row that rejection
    left without any (its reward still counts in the group, its tokens are not trained)."""
    found = mask.nonzero()
    return int(found[-1]) if len(found) else len(mask) - 1
