"""Knobs of a nest."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_CHOICES = {
    "reward_mode": ("mean", "product", "min"),
    "reward_when": ("each_ended", "all_ended"),
    "order": ("fixed", "shuffled"),
    "credit": ("trajectory", "subtask"),
}
_SUB_KEYS = ("tag", "env_type", "env_config", "player_info", "max_turn")

#: turns of a sub-task that says nothing itself (paper, appendix B); other games have no limit of their own
PAPER_TURNS = {"math_lv3to5": 1, "nash_new": 1, "tictactoe": 5, "undercover": 3}


@dataclass(frozen=True)
class SubTask:
    """One game of a nest. ``name`` stands in metrics and success rates. ``max_turn``: replies of an
    agent (a trained seat, or one of self-play) before the game is closed as unfinished; ``None``: no limit."""

    name: str
    env_type: str
    env_config: Mapping[str, Any]
    player_info: tuple[Mapping[str, Any], ...]
    max_turn: int | None


@dataclass(frozen=True)
class ComposeConfig:
    """``base_env_list``: the sub-tasks: ``{env_type, env_config, player_info, max_turn}`` each, all
    but the first optional (in ``custom_envs`` the name of a tag will do; ``player_info`` may also
    stand inside ``env_config``). ``max_turns``: turn limits in the same order, instead of the
    sub-tasks' own (an entry may be null).
    ``reward_mode``: the nest's reward from its sub-tasks' rewards: their ``mean`` (paper),
    ``product`` (a negative one counts as 0) or ``min``. A sub-task not reached counts as 0.
    ``reward_when``: ``each_ended``: a sub-task that ended pays whatever becomes of the others; ``all_ended``: nothing is
    paid unless every sub-task ended by its own rules, as in the reference implementation (what a refused reply costs is
    paid in either case).
    ``order``: as listed (``fixed``) or drawn from the seed (``shuffled``).
    ``credit``: all reward at the end (``trajectory``), or each sub-task's share of the mean on the
    turn that ended it (``subtask``).
    ``reward_improve``: multiply the reward of a success by the sub-task's difficulty relative to
    the hardest, ``(1 - rate) / max(1 - rate)``, where ``rate`` is the success rate over the last
    ``max_num`` results, refreshed every ``k`` steps. The driver keeps the history; an env is handed
    the rates in :attr:`ComposeEnv.success_rates`."""

    base_env_list: tuple[Mapping[str, Any], ...] = ()
    max_turns: tuple[int | None, ...] | None = None
    reward_mode: str = "mean"
    reward_when: str = "each_ended"
    order: str = "fixed"
    credit: str = "trajectory"
    reward_improve: bool = False
    max_num: int = 500
    k: int = 4

    def __post_init__(self) -> None:
        for key, choices in _CHOICES.items():
            if getattr(self, key) not in choices:
                raise ValueError(f"compose_new: {key} must be one of {choices}, got {getattr(self, key)!r}")
        for key in ("max_num", "k"):
            if not isinstance(getattr(self, key), int) or getattr(self, key) < 1:
                raise ValueError(f"compose_new: {key} must be a positive integer, got {getattr(self, key)!r}")
        if self.credit == "subtask" and self.reward_mode != "mean":
            raise ValueError(f"compose_new: credit: subtask splits a mean; reward_mode {self.reward_mode!r} has no parts (use credit: trajectory)")
        if not self.base_env_list:
            raise ValueError("compose_new: base_env_list is empty; list at least one sub-task (a tag, or {env_type: ...})")
        if self.max_turns is not None and len(self.max_turns) != len(self.base_env_list):
            raise ValueError(f"compose_new: max_turns has {len(self.max_turns)} entries for {len(self.base_env_list)} sub-tasks")
        self.sub_tasks()

    def sub_tasks(self) -> tuple[SubTask, ...]:
        """The sub-tasks in the order of the list. Raises ``ValueError`` for a malformed one."""
        return tuple(self._sub_task(i, entry) for i, entry in enumerate(self.base_env_list))

    def _sub_task(self, i: int, entry: Any) -> SubTask:
        where = f"compose_new: base_env_list[{i}]"
        if not isinstance(entry, Mapping) or "env_type" not in entry:
            raise ValueError(f"{where} must be {{env_type: ..., env_config: ...}} (tags are resolved by the env manager), got {entry!r}")
        for key in entry:
            if key not in _SUB_KEYS:
                near = difflib.get_close_matches(key, _SUB_KEYS, n=1)
                raise ValueError(f"{where}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else f" (known: {', '.join(_SUB_KEYS)})"))
        env_type, config = entry["env_type"], dict(entry.get("env_config") or {})
        inside = config.pop("player_info", None)
        players = entry.get("player_info") or inside or ()
        limit = entry.get("max_turn", PAPER_TURNS.get(env_type)) if self.max_turns is None else self.max_turns[i]
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise ValueError(f"{where}: max_turn must be a positive integer or null, got {limit!r}")
        return SubTask(f"{i}_{env_type}", env_type, config, tuple(dict(p) for p in players), limit)
