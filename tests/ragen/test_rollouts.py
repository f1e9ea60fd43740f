"""Which weights play which step: the trainer's own loop over workers that keep a diary, and the old log-probabilities."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from test_step import trajectory

from ragen.llm_agent.batch import build_batch
from ragen.llm_agent.es_manager import read_tags
from ragen.report.console import TrainDisplay
from ragen.trainer import agent_trainer
from ragen.trainer.agent_trainer import AgentTrainer
from ragen.trainer.config import compose, plain, validate_config
from ragen.trainer.plan import bypasses_old_log_probs
from ragen.trainer.play_orders import play_orders
from ragen.trainer.rollouts import Rollouts
from ragen.trainer.worker_setup import Workers
from verl.protocol import DataProto

SPLIT = ["actor_rollout_ref.hybrid_engine=false", "rollout.n_gpus_per_node=1", "trainer.n_gpus_per_node=1"]
SMALL = [
    "es_manager.train.env_groups=1", "es_manager.train.env_configs.n_groups=[1]", "es_manager.train.env_configs.tags=[TicTacToe]",
    "es_manager.train.group_size=2", "actor_rollout_ref.actor.ppo_mini_batch_size=2",
    "trainer.device=cpu", "trainer.logger=[file]",
    "actor_rollout_ref.rollout.rollout_filter_ratio=1.0",
]  # fmt: skip


def run_config(folder, *overrides):
    return compose("_0_laptop", [*SMALL, f"trainer.default_local_dir={folder}", *overrides])


class Engines:
    """Workers that play: everything they are told goes into the diary, a play when it is begun."""

    world_size = 1

    def __init__(self, diary: list):
        self.diary, self.version, self.under_way = diary, None, None

    def _begin(self, orders):
        phase, step = orders[0].sampling.run_key[1:]
        found = [trajectory(s.group, s.member, float(s.member % 2)) for s in orders[0].specs]
        for t in found:
            t.policy_version = self.version
        self.diary.append((phase, step, self.version))
        return [(found, {"seconds": 0.0})]

    def play(self, orders):
        assert self.under_way is None, "two plays at once"
        return self._begin(orders)

    def execute_all_async(self, method, orders):
        assert method == "play" and self.under_way is None
        self.under_way = self._begin(orders)
        return ["play"]

    def gather(self, refs, method):
        done, self.under_way = (self.under_way, None) if refs == ["play"] else (None, self.under_way)
        return done

    def sync_rollout_weights(self, version):
        assert self.under_way is None, "weights changed under a play"
        self.version = version
        return ["sync"]

    def kill(self):
        pass


class Trainers:
    """The actor group: counts updates, and its checkpoint is that count."""

    world_size = 1

    def __init__(self, diary: list):
        self.diary, self.updates = diary, 0

    def update_actor(self, shares):
        self.diary.append(("update", int(shares[0].meta_info["global_steps"]), None))
        self.updates += 1
        return [DataProto(meta_info={"metrics": {"actor/pg_loss": 0.0}})]

    def sync_rollout_weights(self):
        return ["sent"]

    def gather(self, refs, method, beside=()):
        return [None]

    def checkpoint_bytes(self):
        return [1]

    def save_checkpoint(self, folder, global_step):
        Path(folder).mkdir()
        (Path(folder) / "updates").write_text(str(self.updates))

    def load_checkpoint(self, folder):
        self.updates = int((Path(folder) / "updates").read_text())


def diary_of(monkeypatch, folder, *overrides) -> tuple[list, list[float]]:
    """Fit; what the workers were told, and the logged lag of every step."""
    diary: list = []
    config = run_config(folder, *SPLIT, *overrides)
    monkeypatch.setattr(AgentTrainer, "start_workers", lambda *args, **kwargs: Workers(Trainers(diary), rollout=Engines(diary)))
    AgentTrainer(config, validate_config(config, check_machine=False)).fit()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return diary, [row["rollout/policy_lag"] for row in rows if "rollout/policy_lag" in row]


def steps(diary, phase):
    return {step: version for what, step, version in diary if what == phase}


def test_without_playing_ahead_every_step_is_played_by_the_newest_policy(monkeypatch, tmp_path):
    few = ["trainer.total_training_steps=3", "trainer.test_freq=-1", "trainer.save_freq=-1"]
    diary, lags = diary_of(monkeypatch, tmp_path, *few)
    assert [entry for entry in diary if entry[0] != "val"] == [
        ("train", 1, 0), ("update", 1, None), ("train", 2, 1), ("update", 2, None), ("train", 3, 2), ("update", 3, None),
    ]  # fmt: skip
    assert lags == [0, 0, 0]


@pytest.mark.parametrize("save_freq", [1, 2, 3, -1])
def test_one_step_ahead_is_one_update_old_but_never_over_a_checkpoint(monkeypatch, tmp_path, save_freq):
    ahead = ["trainer.rollout_ahead=1", "trainer.total_training_steps=7", f"trainer.save_freq={save_freq}"]
    diary, lags = diary_of(monkeypatch, tmp_path / "plain", *ahead, "trainer.test_freq=-1", "trainer.val_before_train=false")
    # step k is played ahead, beside the update of k-1, unless k-1 was the first or ended in a checkpoint
    wanted = [0.0 if step == 1 or (save_freq > 0 and (step - 1) % save_freq == 0) else 1.0 for step in range(1, 8)]
    assert lags == wanted
    assert steps(diary, "train") == {step: step - 1 - lag for step, lag in enumerate(wanted, 1)}
    for step, lag in enumerate(wanted, 1):  # what is played ahead is begun before the update of the step before
        if lag:
            assert diary.index(("train", step, step - 2)) < diary.index(("update", step - 1, None))
    # a validation between any two steps plays with the newest policy and changes nothing for training
    validated, same = diary_of(monkeypatch, tmp_path / "val", *ahead, "trainer.test_freq=1")
    assert same == lags and steps(validated, "train") == steps(diary, "train")
    versions = [version for what, _, version in validated if what == "val"]
    assert versions == list(range(8))


def test_a_resumed_run_plays_what_one_never_killed_does(monkeypatch, tmp_path):
    ahead = ["trainer.rollout_ahead=1", "trainer.save_freq=2", "trainer.test_freq=-1"]
    whole, lags = diary_of(monkeypatch, tmp_path / "whole", *ahead, "trainer.total_training_steps=6")
    (tmp_path / "whole" / "latest_checkpointed_iteration.txt").write_text("4")
    shutil.rmtree(tmp_path / "whole" / "global_step_6")
    resumed, again = diary_of(monkeypatch, tmp_path / "whole", *ahead, "trainer.total_training_steps=6")
    late = {step: version for step, version in steps(whole, "train").items() if step > 4}
    assert steps(resumed, "train") == late and again == lags


def test_validating_a_checkpoint_plays_it_and_leaves_later_steps_alone(monkeypatch, tmp_path):
    few = ["trainer.total_training_steps=4", "trainer.save_freq=2", "trainer.test_freq=-1", "trainer.val_before_train=false"]
    diary_of(monkeypatch, tmp_path, *few)
    source = f"trainer.resume_from_path={tmp_path / 'global_step_2'}"
    told, lags = diary_of(monkeypatch, tmp_path, *few, "trainer.val_only=true", "trainer.resume_mode=resume_path", source)
    assert told == [("val", 0, 2)] and lags == [0, 0, 0, 0]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 2] and "val/A/success" in rows[-1]
    assert len(list((tmp_path / "trajectories").glob("train_step_*.jsonl"))) == 4


def test_trackers_are_closed_however_a_run_ends(monkeypatch, tmp_path):
    closed = []
    monkeypatch.setattr(agent_trainer.Tracking, "finish", lambda tracking: closed.append(tracking))
    monkeypatch.setattr(AgentTrainer, "_one_step", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        diary_of(monkeypatch, tmp_path, "trainer.val_before_train=false")
    assert len(closed) == 1


def test_a_step_that_was_played_ahead_is_not_lost_or_mistaken():
    diary: list = []
    rollouts = Rollouts(Workers(Trainers(diary), rollout=Engines(diary)))
    config = run_config("unused", *SPLIT, "trainer.rollout_ahead=1")
    tags = read_tags(plain(config)["custom_envs"], "train")
    orders = play_orders(config, "train", 5, tags=tags, ranks=1, success_rates={})
    assert rollouts.take(5) is None
    rollouts.start(5, orders)
    with pytest.raises(RuntimeError, match="step 6 cannot be played ahead"):
        rollouts.start(6, orders)
    with pytest.raises(RuntimeError, match="step 5 was played ahead, but step 7 comes next"):
        rollouts.take(7)


# -- old log-probabilities ----------------------------------------------------------------------


class LogProbs:
    """The trainer's log-probabilities: the engine's plus ``shift``."""

    world_size = 1

    def __init__(self, shift: float):
        self.shift, self.asked = shift, 0

    def compute_log_prob(self, batch):
        self.asked += 1
        own = batch.batch["rollout_log_probs"] + self.shift
        return DataProto.from_dict(tensors={"old_log_probs": own, "entropys": torch.zeros_like(own)})


def with_log_probs(tmp_path, *overrides, shift=0.3):
    config = run_config(tmp_path, *SPLIT, *overrides)
    trainer = AgentTrainer(config, validate_config(config, check_machine=False))
    trainer.display = TrainDisplay(1, "test")
    actor = LogProbs(shift)
    trainer.workers = Workers(actor)
    batch = build_batch([trajectory(0, member, float(member), turns=2) for member in range(3)], 0)
    metrics: dict = {}
    return trainer._with_log_probs(batch, 1, metrics), actor, metrics


def test_what_is_an_update_old_is_clipped_against_the_policy_that_played(tmp_path):
    batch, actor, _ = with_log_probs(tmp_path, "trainer.rollout_ahead=1")
    assert torch.equal(batch.batch["old_log_probs"], batch.batch["rollout_log_probs"]) and not actor.asked
    assert "rollout_is_weights" not in batch.batch.keys()


def test_or_is_weighed_by_how_far_the_policy_has_moved(tmp_path):
    correction = "algorithm.rollout_correction.rollout_is=token"
    batch, actor, metrics = with_log_probs(tmp_path, "trainer.rollout_ahead=1", correction)
    mask = batch.batch["response_mask"]
    assert actor.asked == 1
    assert torch.allclose(batch.batch["old_log_probs"], batch.batch["rollout_log_probs"] + 0.3)
    assert torch.allclose(batch.batch["rollout_is_weights"][mask], torch.tensor(0.3).exp(), atol=1e-6)
    assert metrics["rollout/logprob_diff_max"] == pytest.approx(0.3, abs=1e-6)


def test_nothing_is_computed_where_the_update_is_on_policy(tmp_path):
    batch, actor, _ = with_log_probs(tmp_path, "actor_rollout_ref.actor.ppo_mini_batch_size=2")
    assert actor.asked == 1  # two mini-batches
    batch, actor, _ = with_log_probs(tmp_path, "es_manager.train.group_size=4", "actor_rollout_ref.actor.ppo_mini_batch_size=4")
    assert actor.asked == 0 and "old_log_probs" not in batch.batch.keys()


@pytest.mark.parametrize(
    ("overrides", "bypass"),
    [
        ([], False),
        (["algorithm.rollout_correction.bypass_mode=true"], True),
        (["trainer.rollout_ahead=1"], True),
        (["trainer.rollout_ahead=1", "algorithm.rollout_correction.rollout_is=sequence"], False),
        (["trainer.rollout_ahead=1", "algorithm.rollout_correction.bypass_mode=true"], True),
    ],
)
def test_when_the_engines_log_probabilities_are_the_old_ones(tmp_path, overrides, bypass):
    config = run_config(tmp_path, *SPLIT, *overrides)
    validate_config(config, check_machine=False)
    assert bypasses_old_log_probs(config) == bypass


# -- engines that share the trainer's devices ---------------------------------------------------


class Hybrid(Trainers):
    """Ranks that play and train on one device each. ``sleeps``: as on a GPU; its weights are then gone."""

    def __init__(self, diary: list, sleeps: bool):
        super().__init__(diary)
        self.sleeps, self.awake, self.engines = sleeps, True, Engines(diary)

    def _compute(self, what, batch):
        self._alone(what)
        self.diary.append((what, int(batch.meta_info.get("global_steps", 0)), None))

    def _alone(self, what):
        assert not (self.sleeps and self.awake), f"{what} while the engine holds its memory"

    def compute_log_prob(self, batch):
        self._compute("log_prob", batch)
        own = batch.batch["rollout_log_probs"] if "rollout_log_probs" in batch.batch.keys() else batch.batch["response_mask"].float()
        return DataProto.from_dict(tensors={"old_log_probs": own, "entropys": torch.rand(own.shape)})

    def compute_ref_log_prob(self, batch):
        self._compute("ref_log_prob", batch)
        return DataProto.from_dict(tensors={"ref_log_prob": batch.batch["rollout_log_probs"]})

    def update_actor(self, shares):
        self._alone("update")
        return super().update_actor(shares)

    def play(self, orders):
        assert self.awake and self.engines.version == self.updates, "played without the newest weights"
        return self.engines.play(orders)

    def sync_weights(self, version):
        self.awake, self.engines.version = True, version
        self.diary.append(("sync", version, None))

    def sleep_engine(self):
        if self.sleeps:
            self.awake, self.engines.version = False, None
        return [self.sleeps]

    def save_checkpoint(self, folder, global_step):
        self.diary.append(("save", global_step, self.awake))
        super().save_checkpoint(folder, global_step)

    def load_checkpoint(self, folder):
        self.diary.append(("load", 0, self.awake))
        super().load_checkpoint(folder)


class Values:
    """A critic next to them."""

    world_size = 1

    def __init__(self, actor: Hybrid):
        self.actor = actor

    def compute_values(self, batch):
        self.actor._compute("values", batch)
        return DataProto.from_dict(tensors={"values": torch.zeros_like(batch.batch["rollout_log_probs"])})

    def update_critic(self, shares):
        self.actor._compute("update_critic", shares[0])
        return [DataProto(meta_info={"metrics": {}})]

    def checkpoint_bytes(self):
        return [1]

    def save_checkpoint(self, folder, global_step):
        Path(folder).mkdir()


def hybrid_diary(monkeypatch, folder, *overrides, sleeps=True, device="cuda", made=None) -> list:
    diary: list = []
    config = run_config(folder, "trainer.n_gpus_per_node=1", "trainer.test_freq=2", "trainer.save_freq=-1", "trainer.total_training_steps=2", *overrides)
    actor = Hybrid(diary, sleeps)
    critic = Values(actor) if config.algorithm.adv_estimator == "gae" else None
    monkeypatch.setattr(AgentTrainer, "start_workers", lambda *args, **kwargs: Workers(actor, critic))
    plan = dataclasses.replace(validate_config(config, check_machine=False), device=device)
    trainer = AgentTrainer(config, plan)
    if made is not None:
        made(trainer)
    trainer.fit()
    return diary


KINDS = {
    "two updates": ["actor_rollout_ref.actor.ppo_epochs=2"],
    "reference": ["actor_rollout_ref.actor.use_kl_loss=true"],
    "critic": ["algorithm.adv_estimator=gae"],
    "greedy baseline": ["algorithm.adv_estimator=remax"],
    "entropy filter": ["actor_rollout_ref.rollout.rollout_filter_metric=entropy"],
    "entropy filter and greedy baseline": ["algorithm.adv_estimator=remax", "actor_rollout_ref.rollout.rollout_filter_metric=entropy"],
    "collapse metrics": ["collapse_detection.multi_turn_enabled=true", "collapse_detection.compute_freq=1"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_computed_for_an_update_while_the_engine_holds_its_memory(monkeypatch, tmp_path, kind):
    monkeypatch.setattr(AgentTrainer, "step_metrics", StillStepMetrics())
    diary = hybrid_diary(monkeypatch, tmp_path, *KINDS[kind])  # the workers themselves object
    phases = [what for what, _, _ in diary]
    assert phases.count("update") == 2 and phases.count("val") == 2
    assert phases.count("sync") == 3, "one before the first episode and one after each update"


class StillStepMetrics:
    """Nothing of speed, whose counters ask for the model's device; collapse asks for log-probabilities, as the real one does."""

    def __get__(self, trainer, owner):
        self.trainer = trainer
        return self

    def of_step(self, metrics, seconds):
        return {}

    def of_update(self, batch, metrics):
        return {}

    def collapse(self, trajectories, step):
        if self.trainer.config.collapse_detection.multi_turn_enabled:
            self.trainer.workers.actor.compute_log_prob(build_batch(trajectories, 0))
        return {}


def test_a_step_without_signal_still_leaves_an_engine_that_can_play(monkeypatch, tmp_path):
    """Its weights are gone though nobody has changed them."""
    monkeypatch.setattr(AgentTrainer, "step_metrics", StillStepMetrics())
    monkeypatch.setattr(AgentTrainer, "_kept_batch", lambda self, trajectories, metrics: (None, set()))
    diary = hybrid_diary(monkeypatch, tmp_path, "actor_rollout_ref.rollout.rollout_filter_empty_stop_steps=0", "trainer.test_freq=-1")
    assert [(what, version) for what, version, _ in diary if what == "sync"] == [("sync", 0)] * len([1 for what, _, _ in diary if what == "sync"])
    assert [step for what, step, _ in diary if what == "train"] == [1, 2]


def test_where_engines_cannot_sleep_nothing_is_synced_twice(monkeypatch, tmp_path):
    monkeypatch.setattr(AgentTrainer, "step_metrics", StillStepMetrics())
    for kind in ("greedy baseline", "entropy filter", "collapse metrics"):
        diary = hybrid_diary(monkeypatch, tmp_path / kind, *KINDS[kind], sleeps=False, device="cpu")
        assert [version for what, version, _ in diary if what == "sync"] == [0, 1, 2]


@pytest.mark.parametrize("offload", ["actor.fsdp_config.optimizer_offload", "actor.fsdp_config.param_offload"])
def test_what_is_offloaded_comes_back_to_be_saved_and_loaded_only_where_there_is_room(monkeypatch, tmp_path, offload):
    monkeypatch.setattr(AgentTrainer, "step_metrics", StillStepMetrics())
    changes = [f"actor_rollout_ref.{offload}=true", "trainer.save_freq=1", "trainer.test_freq=-1"]
    diary = hybrid_diary(monkeypatch, tmp_path, *changes)
    assert [awake for what, _, awake in diary if what == "save"] == [False, False]
    diary = hybrid_diary(monkeypatch, tmp_path, *changes, "trainer.total_training_steps=3")
    assert [awake for what, _, awake in diary if what == "load"] == [False]
    assert [(what, step) for what, step, _ in diary if what in ("train", "update")] == [("train", 3), ("update", 3)]
