"""Best, worst and majority of several replies to a prompt (``verl.trainer.ppo.metric_utils``)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

N_BOOTSTRAP = 1000


def bootstrap_metric(
    data: Sequence[Any],
    subset_size: int,
    reduce_fns: Sequence[Callable[[np.ndarray], float]],
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 42,
) -> list[tuple[float, float]]:
    """``(mean, population deviation)`` of each of ``reduce_fns`` over ``n_bootstrap`` draws of ``subset_size`` items with replacement.

    The draws are VeRL's; NumPy's global state, which VeRL seeds anew, is left alone.
    """
    items = np.empty(len(data), dtype=object)
    items[:] = list(data)
    draws = np.random.RandomState(seed).choice(len(items), size=(n_bootstrap, subset_size), replace=True)
    results = np.array([[reduce(items[draw]) for draw in draws] for reduce in reduce_fns], dtype=np.float64)
    return [(float(row.mean()), float(row.std())) for row in results]


def calc_maj_val(data: Sequence[Mapping[str, Any]], vote_key: str, val_key: str) -> float:
    """``val_key`` of the first item with the commonest ``vote_key``; of those that are equally common, the first to occur."""
    (winner, _), *_ = Counter(item[vote_key] for item in data).most_common(1)
    return next(item[val_key] for item in data if item[vote_key] == winner)


def process_validation_metrics(
    data_sources: Sequence[str],
    sample_uids: Sequence[str],
    infos_dict: Mapping[str, Sequence[Any]],
    seed: int = 42,
    expected_acc_counts: Mapping[tuple[str, str], int] | None = None,
) -> dict[str, dict[str, dict[str, float]]]:
    """``result[data source][variable][metric]``, each metric a mean over the prompts that have it.

    Of the n replies to a prompt: ``mean@n``, and for n > 1 ``std@n`` (population) and, for k = 2, 4, 8, ... and n,
    ``best@k/mean``, ``best@k/std``, ``worst@k/*`` over random subsets of k, and ``maj@k/*`` where ``pred`` holds every reply's vote.

    Args:
        data_sources, sample_uids: of each reply, where it is from and which prompt it answers.
        infos_dict: variable -> a value a reply; None is left out, variables of strings are not measured.
        expected_acc_counts: (source, uid) -> replies asked for. Where a source has ``acc`` at all, those that are missing count
            as 0, and ``acc_success_only`` holds what is there.
    """
    groups: dict[str, dict[str, dict[str, list]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for i, (source, uid) in enumerate(zip(data_sources, sample_uids, strict=True)):
        for name, values in infos_dict.items():
            groups[source][uid][name].append(values[i])
    _count_missing(groups, expected_acc_counts or {})

    result: dict[str, dict[str, dict[str, float]]] = {}
    for source, prompts in groups.items():
        found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for variables in prompts.values():
            for name, values in variables.items():
                for metric, value in _of_prompt(values, variables.get("pred"), seed).items():
                    found[name][metric].append(value)
        result[source] = {name: {metric: float(np.mean(values)) for metric, values in metrics.items()} for name, metrics in found.items()}
    return result


def _count_missing(groups: Mapping[str, Mapping[str, dict]], expected: Mapping[tuple[str, str], int]) -> None:
    judged = {source for source, prompts in groups.items() if any(v is not None for p in prompts.values() for v in p.get("acc", []))}
    for (source, uid), count in expected.items():
        if source in judged:
            variables = groups[source][uid]
            there = [value for value in variables.get("acc", []) if value is not None]
            variables["acc_success_only"] = there
            variables["acc"] = there + [0.0] * max(0, count - len(there))


def _of_prompt(values: Sequence[Any], votes: Sequence[Any] | None, seed: int) -> dict[str, float]:
    values = [value for value in values if value is not None]
    if not values or isinstance(values[0], str):
        return {}
    n = len(values)
    metrics = {f"mean@{n}": float(np.mean(values))}
    if n == 1:
        return metrics
    metrics[f"std@{n}"] = float(np.std(values))
    voted = votes is not None and len(votes) == n and all(vote is not None for vote in votes)
    for k in _subset_sizes(n):
        kinds = zip(("best", "worst"), bootstrap_metric(values, k, [np.max, np.min], seed=seed), strict=True)
        for kind, (mean, std) in kinds:
            metrics |= {f"{kind}@{k}/mean": mean, f"{kind}@{k}/std": std}
        if voted:
            ballots = [{"val": value, "pred": vote} for value, vote in zip(values, votes, strict=True)]
            [(mean, std)] = bootstrap_metric(ballots, k, [partial(calc_maj_val, vote_key="pred", val_key="val")], seed=seed)
            metrics |= {f"maj@{k}/mean": mean, f"maj@{k}/std": std}
    return metrics


def _subset_sizes(n: int) -> list[int]:
    """2, 4, 8, ... below ``n``, and ``n``."""
    return [2**power for power in range(1, n.bit_length()) if 2**power < n] + [n]
