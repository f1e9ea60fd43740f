"""Which groups of a step's rollouts are worth an update (RAGEN: uncertainty-based filtering).

A group is all members of one prompt. Its score is a statistic of its members; whole groups are kept
or dropped. Keys, under ``actor_rollout_ref.rollout``:

``rollout_filter_metric``
    ``reward_variance`` (the members' standard deviation of total reward, as RAGEN names it),
    ``reward`` (mean), ``reward_sum``, ``entropy`` (mean over members of the mean token entropy),
    ``entropy_variance`` (its standard deviation), ``length`` (mean number of sampled tokens).
``rollout_filter_type``
    ``largest`` or ``smallest`` scores are kept; RAGEN's older ``std`` is ``largest``.
``rollout_filter_strategy``
    ``top_k``: the fraction ``value`` of all groups, rounded down, at least one. ``top_k_abs``: ``value``
    groups. ``top_p``: the fewest whose scores reach the share ``value`` of the total (``linear``) or
    whose ``softmax(scores)`` do. ``min_p``: scores of at least ``value`` times the largest
    (``smallest``: at most the smallest over ``value``).
``rollout_filter_value``
    as above; ``rollout_filter_ratio`` (default 0.25) where it is not set.
``rollout_filter_include_zero``
    False: groups of score 0 (no signal) are never kept. Null: false for an estimator that compares the members of a
    group, unless ``algorithm.zero_advantages=train``, else true.
``rollout_filter_top_p_prob_mode``, ``rollout_filter_selection_eps``
    ``linear`` or ``softmax``; linear asks for ``value * total - eps``.
``rollout_filter_by_tag``
    rank within each tag instead of over all tags together.
``rollout_filter_empty_stop_steps``
    stop the run after so many steps in a row without signal (0: never); steps in which every episode succeeded do not count.

Ties are broken by the order of groups in the batch, so the choice is a function of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from verl.utils.verl_keys import GROUP_ESTIMATORS

METRICS = ("reward_variance", "reward", "reward_sum", "entropy", "entropy_variance", "length")
STRATEGIES = ("top_k", "top_k_abs", "top_p", "min_p")
ZERO = 1e-10  # scores up to this are "no signal", as in RAGEN


class EmptyAfterFilter(RuntimeError):
    """No group had signal for so many steps in a row that the run should stop."""


@dataclass(frozen=True)
class RolloutFilterConfig:
    """The keys of the module docstring without their prefix. Raises ``ValueError`` naming the key."""

    value: float = 0.25
    strategy: str = "top_k"
    filter_type: str = "largest"
    metric: str = "reward_variance"
    include_zero: bool = True
    top_p_prob_mode: str = "linear"
    selection_eps: float = 0.01
    by_tag: bool = False
    empty_stop_steps: int = 5

    def __post_init__(self) -> None:
        choices = {
            "strategy": STRATEGIES,
            "filter_type": ("largest", "smallest"),
            "metric": METRICS,
            "top_p_prob_mode": ("linear", "softmax"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                key = name if name.startswith("filter") else f"filter_{name}"
                raise ValueError(f"rollout_{key} is {getattr(self, name)!r}; known: {', '.join(known)}")
        upper = np.inf if self.strategy == "top_k_abs" else 1.0
        if not 0 < self.value <= upper:
            raise ValueError(f"rollout_filter_value (or _ratio) is {self.value}; {self.strategy} needs a value in (0, {upper:g}]")

    @classmethod
    def from_rollout(cls, rollout: Any, include_zero: bool = True) -> RolloutFilterConfig:
        """From ``actor_rollout_ref.rollout`` (OmegaConf, dict or dataclass); absent keys keep defaults.
        ``include_zero``: what ``rollout_filter_include_zero: null`` means (:func:`filter_of`)."""
        get = rollout.get if hasattr(rollout, "get") else lambda key, default=None: getattr(rollout, key, default)
        keys = ("strategy", "metric", "include_zero", "top_p_prob_mode", "selection_eps", "by_tag", "empty_stop_steps")
        found = {key: get(f"rollout_filter_{key}", None) for key in keys}
        found["filter_type"] = {"std": "largest", "std_rev": "smallest"}.get(kind := get("rollout_filter_type", None), kind)
        value = get("rollout_filter_value", None)
        found["value"] = get("rollout_filter_ratio", None) if value is None else value
        if found["include_zero"] is None:
            found["include_zero"] = include_zero
        return cls(**{key: v for key, v in found.items() if v is not None})


def filter_of(config: Any) -> RolloutFilterConfig:
    """The filter of a whole configuration (OmegaConf or plain)."""
    algorithm = config["algorithm"]
    compares = algorithm["adv_estimator"] in GROUP_ESTIMATORS
    return RolloutFilterConfig.from_rollout(
        config["actor_rollout_ref"]["rollout"], include_zero=not compares or algorithm["zero_advantages"] == "train"
    )


def group_scores(values: Sequence[float], groups: Sequence[Any], metric: str) -> tuple[list[Any], np.ndarray]:
    """Group ids in order of first appearance, and the score of each under ``metric``.

    ``values`` (B,): what the metric reads of each member: total reward, mean token entropy or number
    of sampled tokens. Standard deviations are unbiased; a group of one has 0.
    """
    if metric not in METRICS:
        raise ValueError(f"rollout_filter_metric is {metric!r}; known: {', '.join(METRICS)}")
    if len(values) != len(groups):
        raise ValueError(f"{len(values)} values for {len(groups)} group ids")
    members: dict[Any, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        members.setdefault(group, []).append(float(value))
    if metric in ("reward_variance", "entropy_variance"):
        scores = [np.std(v, ddof=1) if len(v) > 1 else 0.0 for v in members.values()]
    elif metric == "reward_sum":
        scores = [np.sum(v) for v in members.values()]
    else:
        scores = [np.mean(v) for v in members.values()]
    return list(members), np.asarray(scores, dtype=np.float64)


def select_groups(scores: Sequence[float] | np.ndarray, config: RolloutFilterConfig) -> np.ndarray:
    """Positions of the kept groups, ascending; empty where nothing has signal."""
    scores = np.asarray(scores, dtype=np.float64)
    candidates = np.arange(len(scores))
    if not config.include_zero:
        candidates = candidates[np.abs(scores) > ZERO]
    if len(candidates) == 0:
        return candidates
    if config.strategy == "top_p" and config.value >= 1:
        return candidates
    sign = 1.0 if config.filter_type == "largest" else -1.0
    ranked = candidates[np.argsort(-sign * scores[candidates], kind="stable")]  # the best first
    if config.strategy in ("top_k", "top_k_abs"):
        k = int(config.value * len(scores)) if config.strategy == "top_k" else int(config.value)
        kept = ranked[: max(1, k)]
    elif config.strategy == "min_p":
        kept = _min_p(scores, ranked, config)
    elif config.top_p_prob_mode == "softmax":
        logits = sign * scores[ranked]
        mass = np.cumsum(np.exp(logits - logits.max()))
        kept = ranked[: int(np.searchsorted(mass / mass[-1], config.value)) + 1]
    else:
        kept = _top_p_linear(scores, ranked, config)
    return np.sort(kept)


def _min_p(scores: np.ndarray, ranked: np.ndarray, config: RolloutFilterConfig) -> np.ndarray:
    best = scores[ranked[0]]
    if config.filter_type == "largest":
        return ranked[scores[ranked] >= best * config.value - ZERO]
    return ranked[scores[ranked] <= best / config.value + ZERO]


def _top_p_linear(scores: np.ndarray, ranked: np.ndarray, config: RolloutFilterConfig) -> np.ndarray:
    """The fewest groups from the front whose scores reach ``value * total - eps``; scores of 0 and less
    add nothing and end the run. Nothing where the sum cannot be reached or is within ``eps`` of 0."""
    goal = config.value * scores[ranked].sum() - config.selection_eps
    total, count = 0.0, 0
    for score in scores[ranked]:
        if total >= goal or score <= 0:
            break
        total, count = total + score, count + 1
    return ranked[:count] if total >= goal else ranked[:0]


@dataclass(frozen=True)
class FilterResult:
    """``rows``: bool (B,), the rows that stay; ``groups``: their group ids; ``metrics`` under RAGEN's keys."""

    rows: np.ndarray
    groups: list[Any]
    metrics: dict[str, float]

    @property
    def empty(self) -> bool:
        """Nothing had signal: the step has no update (see :class:`EmptyStop`)."""
        return not self.groups


def filter_rollouts(
    values: Sequence[float], groups: Sequence[Any], config: RolloutFilterConfig, tags: Sequence[str] | None = None
) -> FilterResult:
    """Choose among the groups of a step; arrays (B,) in, rows out. ``tags`` is read where the config
    ranks by tag (each tag then keeps its own share)."""
    ids, scores = group_scores(values, groups, config.metric)
    if config.by_tag:
        if tags is None:
            raise ValueError("rollout_filter_by_tag ranks within tags, but the batch names no tag")
        tag_of = {group: tag for group, tag in zip(groups, tags, strict=True)}
        by_tag: dict[str, list[int]] = {}
        for position, group in enumerate(ids):
            by_tag.setdefault(tag_of[group], []).append(position)
        kept = np.sort(np.concatenate([np.asarray(p)[select_groups(scores[p], config)] for p in by_tag.values()]))
    else:
        kept = select_groups(scores, config)
    kept_ids = [ids[int(k)] for k in kept]
    keep = set(kept_ids)
    rows = np.fromiter((group in keep for group in groups), dtype=bool, count=len(groups))
    return FilterResult(rows, kept_ids, _metrics(values, groups, ids, scores, kept))


def _metrics(values, groups, ids, scores: np.ndarray, kept: np.ndarray) -> dict[str, float]:
    members: dict[Any, list[float]] = {group: [] for group in ids}
    for value, group in zip(values, groups, strict=True):
        members[group].append(float(value))
    stats = {
        "std": [np.std(v, ddof=1) if len(v) > 1 else 0.0 for v in members.values()],
        "max": [max(v) for v in members.values()],
        "mean": [np.mean(v) for v in members.values()],
    }
    metrics = {}
    for name, per_group in stats.items():
        per_group = np.asarray(per_group)
        metrics[f"rollout/in_group_{name}"] = float(per_group.mean()) if len(ids) else 0.0
        metrics[f"rollout/chosen_in_group_{name}"] = float(per_group[kept].mean()) if len(kept) else 0.0
    metrics["rollout/filter_kept_count"] = float(len(kept))
    metrics["rollout/filter_kept_ratio"] = len(kept) / len(ids) if len(ids) else 0.0
    metrics["rollout/filter_zero_count"] = float((np.abs(scores) <= ZERO).sum())
    return metrics


def member_values(batch: Any, metric: str) -> np.ndarray:
    """What ``metric`` reads of each row of a DataProto's tensors (B, T): ``token_level_scores``,
    ``entropys`` or ``response_mask``. Raises ``KeyError`` naming the tensor that is missing."""
    if metric in ("reward_variance", "reward", "reward_sum"):
        return _need(batch, "token_level_scores", metric).double().sum(-1).cpu().numpy()
    mask = _need(batch, "response_mask", metric).double()
    if metric == "length":
        return mask.sum(-1).cpu().numpy()
    entropy = _need(batch, "entropys", metric).double()
    return ((entropy * mask).sum(-1) / mask.sum(-1).clamp(min=1)).cpu().numpy()


def _need(batch: Any, key: str, metric: str) -> Any:
    if key not in batch.keys():  # noqa: SIM118 (a TensorDict has no other `in`)
        raise KeyError(f"rollout_filter_metric {metric!r} reads {key!r}, which the batch has not (it has {sorted(batch.keys())})")
    return batch[key]


class EmptyStop:
    """Counts steps in a row that had nothing to learn from; its state goes into the checkpoint. A step in which every
    episode succeeded is not counted: the game is learned, and the run is not sick."""

    def __init__(self, empty_stop_steps: int):
        self.limit, self.empty_steps = empty_stop_steps, 0

    def update(self, empty: bool, solved: bool = False) -> dict[str, float]:
        """Count a step: without signal (``empty``), with every episode a success (``solved``)."""
        self.empty_steps = self.empty_steps + 1 if empty and not solved else 0
        return {"rollout/empty_after_filter": float(empty), "rollout/consecutive_empty_after_filter": float(self.empty_steps)}

    @property
    def reached(self) -> bool:
        """Whether the run should end, at the limit (0: never)."""
        return bool(self.limit) and self.empty_steps >= self.limit

    def end(self) -> None:
        """Raises :class:`EmptyAfterFilter` at the limit."""
        if self.reached:
            raise EmptyAfterFilter(
                f"nothing had signal in {self.empty_steps} steps in a row: all members of every group scored alike. "
                "Make the task easier or harder, raise temperature or group size, or set "
                "actor_rollout_ref.rollout.rollout_filter_empty_stop_steps=0 to go on regardless; the checkpoint of the last step was saved"
            )

    def state_dict(self) -> dict[str, int]:
        return {"empty_steps": self.empty_steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.empty_steps = int(state["empty_steps"])


def filter_batch(data: Any, config: RolloutFilterConfig) -> tuple[Any, FilterResult]:
    """:func:`filter_rollouts` on a DataProto: groups from ``non_tensor_batch["uid"]``, tags from ``tag``.
    Returns the kept rows (``data.select_idxs``) and the result; check ``result.empty`` before using them."""
    tags = data.non_tensor_batch.get("tag")
    result = filter_rollouts(member_values(data.batch, config.metric), list(data.non_tensor_batch["uid"]), config, tags)
    return data.select_idxs(result.rows), result
