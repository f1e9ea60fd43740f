"""The worker groups of a run; whoever starts them (``ragen.trainer.worker_setup`` does it with Ray)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from verl.single_controller.ray import RayWorkerGroup

#: how long a start waits for nodes with room
START_WAIT_S = 60.0


@dataclass
class Workers:
    """The worker groups of a run. ``critic`` is ``None`` for estimators without one, ``rollout`` where the actors
    play themselves (``hybrid_engine: true``)."""

    actor: RayWorkerGroup
    critic: RayWorkerGroup | None = None
    rollout: RayWorkerGroup | None = None

    @property
    def groups(self) -> list[RayWorkerGroup]:
        return [group for group in (self.actor, self.critic, self.rollout) if group is not None]

    def kill(self) -> None:
        for group in self.groups:
            group.kill()
        for pool in {id(group.resource_pool): group.resource_pool for group in self.groups}.values():
            pool.release()
