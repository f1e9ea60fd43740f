"""The critic's own mini-batches: `critic.ppo_mini_batch_size` and `critic.shuffle` beside the actor's."""

import contextlib
from types import SimpleNamespace

import pytest
from test_step import trajectory

from ragen.llm_agent.batch import build_batch
from ragen.trainer.agent_trainer import AgentTrainer
from ragen.trainer.config import compose
from ragen.trainer.rollout_filter import EmptyStop
from ragen.trainer.worker_setup import Workers
from verl.protocol import DataProto


class Updated:
    """A group that keeps the shares it was to learn from."""

    def update(self, shares):
        self.shares = shares
        return [DataProto(meta_info={"metrics": {}})]

    update_actor = update_critic = update

    def mini_batches(self) -> list[list[int]]:
        """Trajectories of each mini-batch, over all ranks."""
        count = self.shares[0].meta_info["num_mini_batches"]
        pairs = [pair for s in self.shares for pair in zip(s.batch["mini_batch"].tolist(), s.non_tensor_batch["traj_id"].tolist(), strict=True)]
        return [sorted(i for index, i in pairs if index == wanted) for wanted in range(count)]


def dealt(*overrides):
    """Mini-batches of actor and critic over 12 trajectories and two ranks."""
    config = compose("_0_laptop", ["actor_rollout_ref.actor.ppo_mini_batch_size=6", "algorithm.adv_estimator=gae", *overrides])
    batch = build_batch([trajectory(k // 4, k % 4, float(k % 2), length=4 + k) for k in range(12)], 0)
    batch.batch["advantages"] = batch.batch["response_mask"].float()
    trainer = object.__new__(AgentTrainer)
    trainer.config, trainer.plan = config, SimpleNamespace(ranks=2)
    trainer.workers, trainer.empty_stop = Workers(Updated(), critic=Updated()), EmptyStop(0)
    trainer._timed = lambda metrics, name: contextlib.nullcontext()
    metrics: dict = {}
    trainer._update(batch, 1, metrics)
    assert metrics["rollout/trained_tokens"] == 24  # two sampled tokens a trajectory
    return trainer.workers.actor.mini_batches(), trainer.workers.critic.mini_batches()


def test_without_keys_of_its_own_the_critic_has_the_actors():
    actor, critic = dealt()
    assert actor == critic == [list(range(6)), list(range(6, 12))]


@pytest.mark.parametrize("size", [1, 4, 5, 12])
def test_its_own_size(size):
    actor, critic = dealt(f"critic.ppo_mini_batch_size={size}")
    assert list(map(len, actor)) == [6, 6]
    assert critic == [list(range(12))[k : k + size] for k in range(0, 12, size)]


def test_its_own_shuffling():
    actor, critic = dealt("critic.shuffle=true")
    assert actor == [list(range(6)), list(range(6, 12))] != critic
    assert sorted(critic[0] + critic[1]) == list(range(12)) and len(critic[0]) == 6
    shuffled, plain = dealt("actor_rollout_ref.actor.shuffle=true", "critic.shuffle=false")
    assert plain == actor and shuffled == critic  # one order of the step, whoever asks for it
