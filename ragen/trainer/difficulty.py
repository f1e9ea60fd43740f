"""What the driver remembers of past episodes, for nests that weigh a success by its difficulty.

Lives on the driver, frozen for a step and saved in the checkpoint; an env is handed the numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from ragen.env.compose_new import ComposeConfig
from ragen.llm_agent.es_manager import Tag
from ragen.llm_agent.trajectory import ABORTED, Trajectory


class DifficultyMemory:
    """Success rate of each sub-task over its last results, refreshed every so many steps: each nest has
    a memory of its own, with its own ``max_num`` and ``k`` (``knobs``: by tag).

    Sub-tasks are told apart by the nest's tag and the metrics it reports: ``sub/NAME/success``.
    """

    def __init__(self, knobs: Mapping[str, tuple[int, int]]):
        self._knobs = dict(knobs)
        self._results: dict[str, dict[str, deque[float]]] = {tag: {} for tag in knobs}
        self._rates: dict[str, dict[str, float]] = {tag: {} for tag in knobs}

    @classmethod
    def from_tags(cls, tags: Mapping[str, Tag]) -> DifficultyMemory:
        """A memory for each nest among ``tags`` that weighs by difficulty (or has a nest within that does)."""
        nests = {name: nest for name, tag in tags.items() if (nest := _weighing(tag.env_config)) is not None}
        return cls({tag: (int(n.get("max_num", ComposeConfig.max_num)), int(n.get("k", ComposeConfig.k))) for tag, n in nests.items()})

    def record(self, trajectories: Sequence[Trajectory], step: int) -> None:
        """Take in a step's results; the rates handed out change after steps that a nest's ``k`` divides."""
        for t in trajectories:
            if t.status == ABORTED or t.tag not in self._knobs:
                continue
            for name, value in t.metrics.items():
                if name.startswith("sub/") and name.endswith("/success"):
                    key = name[len("sub/") : -len("/success")]
                    self._results[t.tag].setdefault(key, deque(maxlen=self._knobs[t.tag][0])).append(float(value))
        for tag, (_, every) in self._knobs.items():
            if step % every == 0:
                self._rates[tag] = {key: sum(values) / len(values) for key, values in self._results[tag].items()}

    def rates(self) -> dict[str, dict[str, float]]:
        """Frozen success rates of the sub-tasks, by the nest's tag; empty before the first refresh."""
        return {tag: dict(rates) for tag, rates in self._rates.items()}

    def state_dict(self) -> dict:
        results = {tag: {key: list(values) for key, values in known.items()} for tag, known in self._results.items()}
        return {"results": results, "rates": self.rates()}

    def load_state_dict(self, state: dict) -> None:
        """Nests that the state does not name start with an empty memory; those that are gone are dropped. A checkpoint
        written before each nest had its own memory does not name them, so it is dropped too."""
        for tag, (max_num, _) in self._knobs.items():
            known, rates = state["results"].get(tag, {}), state["rates"].get(tag, {})
            if isinstance(known, Mapping) and isinstance(rates, Mapping):
                self._results[tag] = {key: deque(values, maxlen=max_num) for key, values in known.items()}
                self._rates[tag] = dict(rates)


def _weighing(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The outermost nest of an ``env_config`` that has ``reward_improve``."""
    if config.get("reward_improve"):
        return config
    subs = [sub.get("env_config") or {} for sub in config.get("base_env_list") or () if isinstance(sub, Mapping)]
    return next((found for sub in subs if (found := _weighing(sub)) is not None), None)
