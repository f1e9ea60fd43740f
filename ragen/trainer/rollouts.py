"""Who plays a step, with which weights, and when: the actors themselves, or rollout workers of their own.

    hybrid, or rollout_ahead 0     play k | update k | sync | play k+1 | ...
    rollout_ahead 1                play k | sync, then play k+1 beside update k | sync, then play k+2 beside update k+1 | ...

With ``trainer.rollout_ahead: 1`` an episode is played by the policy of one update ago at most. Nothing is played ahead
over a checkpoint: the step after it starts with the saved weights, so that a resumed run plays what one never killed does.
A validation waits for what is under way and keeps it for its step; weights and episodes of training do not depend on it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ragen.llm_agent.trajectory import Trajectory
from ragen.trainer.play_orders import Played
from ragen.trainer.workers import Workers
from ragen.workers.playing import PlayOrder


class Rollouts:
    """The episodes of a run.

    Args:
        workers: whose ``rollout`` group plays, or where there is none its ``actor`` group.
        policy_version: of the trainer's weights now. Versions count updates, from any start.
    """

    def __init__(self, workers: Workers, policy_version: int = 0):
        self._workers = workers
        self.policy_version = policy_version
        self._engine_version: int | None = None
        self._asleep = False
        self._under_way: tuple[int, list] | None = None
        self._kept: tuple[int, Played] | None = None

    @property
    def split(self) -> bool:
        return self._workers.rollout is not None

    def start_from(self, policy_version: int) -> None:
        """The trainer's weights are those of a checkpoint: the engines have them only after the next sync."""
        self.policy_version, self._engine_version = policy_version, None

    def updated(self) -> None:
        """The trainer's weights have changed."""
        self.policy_version += 1

    def sync(self) -> None:
        """Hand the trainer's weights to the engines, unless they have them and are awake. Nothing may be under way."""
        if self._engine_version == self.policy_version and not self._asleep:
            return
        actor, rollout = self._workers.actor, self._workers.rollout
        if rollout is None:
            actor.sync_weights(self.policy_version)
        else:
            sent, taken = actor.sync_rollout_weights(), rollout.sync_rollout_weights(self.policy_version)
            actor.gather(sent, "sync_rollout_weights", beside=taken)
            rollout.gather(taken, "sync_rollout_weights")
        self._engine_version, self._asleep = self.policy_version, False

    def make_room(self) -> None:
        """Before the trainer computes anything: engines that share its devices give their memory to it. An engine that
        does keeps no weights, so the next play syncs first, whether they have changed or not."""
        if not self.split and not self._asleep:
            self._asleep = any(self._workers.actor.sleep_engine())

    def play(self, orders: Sequence[PlayOrder]) -> Played:
        """Play with the newest weights and wait for it; what is under way is waited for first."""
        self._drain()
        self.sync()
        return self._group.play(list(orders))

    def start(self, step: int, orders: Sequence[PlayOrder]) -> None:
        """Begin to play ``step`` with the newest weights, beside whatever the trainer does; :meth:`take` fetches it."""
        if self._under_way or self._kept:
            raise RuntimeError(f"step {step} cannot be played ahead: an earlier one has not been taken")
        self.sync()
        self._under_way = step, self._group.execute_all_async("play", list(orders))

    def take(self, step: int) -> Played | None:
        """What :meth:`start` began for ``step``, or ``None`` if it was not played ahead."""
        self._drain()
        kept, self._kept = self._kept, None
        if kept is not None and kept[0] != step:
            raise RuntimeError(f"step {kept[0]} was played ahead, but step {step} comes next")
        return None if kept is None else kept[1]

    def metrics(self, trajectories: Sequence[Trajectory]) -> dict[str, float]:
        """``rollout/policy_lag``, where it could be above 0: updates between the weights that played and the trainer's."""
        if not self.split or not trajectories:
            return {}
        return {"rollout/policy_lag": float(self.policy_version - min(t.policy_version for t in trajectories))}

    @property
    def _group(self):
        return self._workers.rollout or self._workers.actor

    def _drain(self) -> None:
        if self._under_way is not None:
            step, refs = self._under_way
            self._kept, self._under_way = (step, self._group.gather(refs, "play")), None
