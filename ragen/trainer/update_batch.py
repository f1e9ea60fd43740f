"""A step's rows cut into mini-batches and dealt to the ranks.

Mini-batches are counted in trajectories, so any number of ranks will do; within each, trajectories go
to the ranks so that their token counts are balanced. A rank's share may be empty: the workers run as
many micro-batches as the busiest, empty ones where needed.
"""

from __future__ import annotations

import numpy as np
import torch

from ragen.env.base import derived_rng
from verl.protocol import DataProto
from verl.utils.seqlen_balancing import get_seqlen_balanced_partitions


def count_mini_batches(trajectories: int, mini_batch_size: int) -> int:
    return max(1, -(-trajectories // mini_batch_size))


def deal_to_ranks(
    batch: DataProto, *, ranks: int, mini_batch_size: int, shuffle_key: tuple | None = None, balance: bool = True
) -> tuple[list[DataProto], dict[str, float]]:
    """One DataProto a rank, rows marked with ``mini_batch`` (B,) int64, and balance metrics.

    Args:
        batch: rows of all ranks, with ``non_tensor_batch["traj_id"]``.
        mini_batch_size: trajectories of one optimizer step, over all ranks.
        shuffle_key: shuffle trajectories before cutting, as a pure function of this key; ``None``: in order.
        balance: loads are equal in tokens; otherwise (``trainer.balance_batch=false``) in trajectories, in order.
    """
    lengths = batch.batch["attention_mask"].sum(-1).tolist()
    rows_of: dict[int, list[int]] = {}
    for row, i in enumerate(batch.non_tensor_batch["traj_id"].tolist()):
        rows_of.setdefault(i, []).append(row)
    order = list(rows_of)
    if shuffle_key is not None:
        derived_rng(*shuffle_key).shuffle(order)
    count = count_mini_batches(len(order), mini_batch_size)
    shares: list[list[tuple[int, int]]] = [[] for _ in range(ranks)]
    loads = np.zeros(ranks)
    for index in range(count):
        members = order[index * mini_batch_size : (index + 1) * mini_batch_size]
        tokens = [sum(lengths[row] for row in rows_of[i]) for i in members]
        if balance:
            # Karmarkar-Karp puts the heaviest share anywhere: the next heaviest goes to the rank with least so far
            parts = balanced_parts(tokens, ranks)
            parts.sort(key=lambda part: -sum(tokens[k] for k in part))
            takers = np.argsort(loads, kind="stable")
        else:
            parts, takers = [part.tolist() for part in np.array_split(range(len(members)), ranks)], range(ranks)
        for rank, part in zip(takers, parts, strict=True):
            loads[rank] += sum(tokens[k] for k in part)
            shares[rank] += [(row, index) for k in sorted(part) for row in rows_of[members[k]]]
    dealt = []
    for share in shares:
        rows = batch.select_idxs(torch.tensor([row for row, _ in share], dtype=torch.long))
        rows.batch["mini_batch"] = torch.tensor([index for _, index in share], dtype=torch.long)
        rows.meta_info = {**batch.meta_info, "num_mini_batches": count}
        dealt.append(rows)
    return dealt, {"perf/balance": float(loads.max() / loads.mean()) if loads.sum() else 1.0}


def balanced_parts(weights: list[int], parts: int) -> list[list[int]]:
    """Indices of ``weights`` in ``parts`` lists of nearly equal sums; some empty if there are few."""
    if len(weights) < parts:
        return [[i] for i in range(len(weights))] + [[] for _ in range(parts - len(weights))]
    return [list(p) for p in get_seqlen_balanced_partitions(weights, k_partitions=parts, equal_size=False)]
