"""What the driver remembers of past episodes, for nests that weigh a success by its difficulty.

Lives on the driver, frozen for a step and saved in the checkpoint; an env is handed the numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from ragen.env.compose_new import ComposeConfig
from ragen.llm_agent.es_manager import Tag
from ragen.llm_agent.trajectory import ABORTED, Trajectory


class DifficultyMemory:
    """Success rate of each sub-task over its last ``max_num`` results, refreshed every ``k`` steps.

    Sub-tasks are told apart by the metrics a nest reports: ``sub/NAME/success``.
    """

    def __init__(self, max_num: int, every: int):
        self.max_num, self.every = max_num, every
        self._results: dict[str, deque[float]] = {}
        self._rates: dict[str, float] = {}

    @classmethod
    def from_tags(cls, tags: Mapping[str, Tag]) -> DifficultyMemory:
        """Knobs of the nests among ``tags`` (the largest memory and the shortest interval of them)."""
        nests = [t.env_config for t in tags.values() if t.env_config.get("reward_improve")]
        return cls(
            max_num=max((int(n.get("max_num", ComposeConfig.max_num)) for n in nests), default=1),
            every=min((int(n.get("k", ComposeConfig.k)) for n in nests), default=1),
        )

    def record(self, trajectories: Sequence[Trajectory], step: int) -> None:
        """Take in a step's results; the rates handed out change after steps that ``every`` divides."""
        for t in trajectories:
            if t.status == ABORTED:
                continue
            for name, value in t.metrics.items():
                if name.startswith("sub/") and name.endswith("/success"):
                    key = name[len("sub/") : -len("/success")]
                    self._results.setdefault(key, deque(maxlen=self.max_num)).append(float(value))
        if step % self.every == 0:
            self._rates = {key: sum(values) / len(values) for key, values in self._results.items()}

    def rates(self) -> dict[str, float]:
        """Frozen success rates, by sub-task; empty before the first refresh."""
        return dict(self._rates)

    def state_dict(self) -> dict:
        return {"results": {k: list(v) for k, v in self._results.items()}, "rates": dict(self._rates)}

    def load_state_dict(self, state: dict) -> None:
        self._results = {k: deque(v, maxlen=self.max_num) for k, v in state["results"].items()}
        self._rates = dict(state["rates"])
