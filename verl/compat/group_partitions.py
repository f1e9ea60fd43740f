"""Sequences dealt over ranks by their attention's cost, groups kept whole."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

#: 6 * hidden size of VeRL's model of reference (hidden size 4096): where the linear part of a layer's cost and the
#: quadratic one meet
_LINEAR = 6 * 4096


def calculate_workload(seqlen_list: Any) -> Any:
    """The cost of a sequence of n tokens, up to a factor: ``24576 n + n**2`` (numbers, arrays or tensors). A dense layer of
    hidden size h costs ``12 h**2 n + 2 h n**2`` multiplications."""
    return _LINEAR * seqlen_list + seqlen_list**2


def get_group_balanced_partitions(seqlen_list: Sequence[int], uid_list: Sequence[Hashable], k_partitions: int) -> list[list[int]]:
    """Positions in ``k_partitions`` lists (sorted): all sequences of one uid in the same list, as many uids in each, and
    the lists' workloads (:func:`calculate_workload`) close.

    Raises ``ValueError`` where the two lists differ in length, or the number of uids is less than ``k_partitions`` or no
    multiple of it.
    """
    from verl.utils.seqlen_balancing import get_seqlen_balanced_partitions

    if len(seqlen_list) != len(uid_list):
        raise ValueError(f"{len(seqlen_list)} lengths and {len(uid_list)} uids: give one uid a sequence")
    groups: dict[Hashable, list[int]] = {}
    for position, uid in enumerate(uid_list):
        groups.setdefault(uid, []).append(position)
    if len(groups) < k_partitions:
        raise ValueError(f"{len(groups)} uid groups cannot fill {k_partitions} partitions: use fewer ranks or a larger batch")
    members = list(groups.values())
    costs = [sum(calculate_workload(int(seqlen_list[i])) for i in group) for group in members]
    partitions = get_seqlen_balanced_partitions(costs, k_partitions, equal_size=True)
    return [sorted(i for group in partition for i in members[group]) for partition in partitions]
