"""Trajectories to tensors: one row a sample, right padded, everything a token aligned with
``responses = input_ids[:, 1:]``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ragen.llm_agent.trajectory import Trajectory
from verl.protocol import DataProto


def build_batch(trajectories: Sequence[Trajectory], pad_token_id: int) -> DataProto:
    """A batch of ``B`` samples, the longest of ``T`` tokens, in the order of ``trajectories``.

    batch: ``input_ids, attention_mask, position_ids`` (B, T) int64; ``responses`` (B, T-1) int64;
    ``response_mask`` (B, T-1) bool, True exactly where the next token was sampled by the policy and its turn is trained;
    ``rollout_log_probs`` (B, T-1) float32, the engine's; ``token_level_scores`` (B, T-1) float32, a
    turn's reward on its last token; ``turn_index`` (B, T-1) int64, the turn a sampled token belongs
    to, -1 elsewhere. non_tensor_batch: ``uid`` (the group and agent whose rewards are compared), ``traj_id``, ``tag``, ``role``, ``group``,
    ``member``, ``agent``, ``reward`` and ``success`` of the whole trajectory.
    Aborted trajectories and those without a turn have no row.
    """
    rows = [(i, t, s) for i, t in enumerate(trajectories) if t.status != "aborted" for s in t.samples if s.turns]
    if not rows:
        raise ValueError("no trajectory of this batch has a turn to train on: every episode was aborted or truncated at once")
    width = max(2, max(len(s.ids) for _, _, s in rows))
    shape = (len(rows), width)
    ids = np.full(shape, pad_token_id, dtype=np.int64)
    attention = np.zeros(shape, dtype=np.int64)
    mask = np.zeros(shape, dtype=bool)
    logprobs = np.zeros(shape, dtype=np.float32)
    scores = np.zeros(shape, dtype=np.float32)
    turn_index = np.full(shape, -1, dtype=np.int64)
    for row, (_, _, sample) in enumerate(rows):
        n = len(sample.ids)
        ids[row, :n], attention[row, :n] = sample.ids, 1
        mask[row, :n], logprobs[row, :n] = sample.trained(), sample.logprobs
        for k, turn in enumerate(sample.turns):
            scores[row, turn.end - 1] = turn.reward
            turn_index[row, turn.start : turn.end] = np.where(sample.mask[turn.start : turn.end], k, -1)
    input_ids, attention_mask = torch.from_numpy(ids), torch.from_numpy(attention)
    tensors = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "position_ids": (attention_mask.cumsum(-1) - 1).clamp(min=0),
        "responses": input_ids[:, 1:].contiguous(),
        "response_mask": torch.from_numpy(mask[:, 1:].copy()),
        "rollout_log_probs": torch.from_numpy(logprobs[:, 1:].copy()),
        "token_level_scores": torch.from_numpy(scores[:, 1:].copy()),
        "turn_index": torch.from_numpy(turn_index[:, 1:].copy()),
    }
    columns = {
        "uid": [f"{t.tag}/{t.group}/{t.agent}" for _, t, _ in rows],
        "tag": [t.tag for _, t, _ in rows],
        "role": [t.role for _, t, _ in rows],
    }
    non_tensors = {name: np.array(values, dtype=object) for name, values in columns.items()}
    for name in ("group", "member", "agent"):
        non_tensors[name] = np.array([getattr(t, name) for _, t, _ in rows])
    non_tensors["traj_id"] = np.array([i for i, _, _ in rows])
    non_tensors["reward"] = np.array([t.reward for _, t, _ in rows], dtype=np.float64)
    non_tensors["success"] = np.array([t.success for _, t, _ in rows], dtype=bool)
    return DataProto.from_dict(tensors=tensors, non_tensors=non_tensors)
