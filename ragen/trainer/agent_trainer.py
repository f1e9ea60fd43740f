"""The training loop: play, filter, credit, update, sync, report; the eight phases of one step.

Algorithms are registered functions (``verl.trainer.ppo.core_algos``) and games are environments
(``ragen.env``); this file knows neither. Everything that a resumed run needs lies in the checkpoint:
models, optimizers and random states (workers), and :meth:`AgentTrainer._driver_state`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf

from ragen.llm_agent.batch import build_batch
from ragen.llm_agent.es_manager import TRAIN, VAL, read_tags
from ragen.llm_agent.trajectory import ABORTED, Trajectory
from ragen.report.console import TrainDisplay
from ragen.trainer import update_batch
from ragen.trainer.credit import TOKEN_LEVEL, compute_advantages, rows_with_signal
from ragen.trainer.difficulty import DifficultyMemory
from ragen.trainer.plan import bypasses_old_log_probs
from ragen.trainer.play_orders import collect, play_orders
from ragen.trainer.rollout_filter import EmptyStop, FilterResult, filter_of, filter_rollouts
from ragen.trainer.rollout_metrics import rollout_metrics, task_metrics
from ragen.trainer.rollouts import Rollouts
from ragen.trainer.step_metrics import StepMetrics
from ragen.trainer.trajectory_log import TrajectoryLog, sample_generations
from ragen.trainer.trajectory_rows import TrajectoryRows
from ragen.trainer.workers import START_WAIT_S, Workers
from ragen.workers.playing import PlayOrder
from verl.protocol import DataProto, pad_dataproto_to_divisor, unpad_dataproto
from verl.trainer.ppo.core_algos import add_cov_selected, get_kl_controller
from verl.utils.checkpoint import CheckpointDir
from verl.utils.checkpoint.checkpoint_manager import resolve_resume
from verl.utils.checkpoint.shared_folder import check_shared_folder
from verl.utils.config_check import one_or_more
from verl.utils.tokenizer import hf_tokenizer
from verl.utils.tracking import Tracking
from verl.utils.verl_keys import TOKEN_BASELINE_ESTIMATORS

log = logging.getLogger(__name__)


class AgentTrainer:
    """One run in one folder.

    Args:
        config: a checked configuration (``ragen.trainer.config.validate_config``).
        plan: what it amounts to.
    """

    def __init__(self, config, plan):
        self.config, self.plan = config, plan
        self.folder = Path(config.trainer.default_local_dir)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tags = {phase: read_tags(OmegaConf.to_container(config.custom_envs, resolve=True), phase) for phase in (TRAIN, VAL)}
        model = config.actor_rollout_ref.model
        self.tokenizer = hf_tokenizer(model.path, trust_remote_code=bool(model.trust_remote_code))
        self.pad_id = self.tokenizer.pad_token_id
        self.filter = filter_of(config)
        self.kl_controller = get_kl_controller(config.algorithm.kl_ctrl)
        self.empty_stop = EmptyStop(self.filter.empty_stop_steps)
        self.difficulty = DifficultyMemory.from_tags(self.tags[TRAIN])
        self.estimator_state: dict = {}
        trainer = config.trainer
        self.checkpoints = CheckpointDir(self.folder, trainer.max_actor_ckpt_to_keep, trainer.max_critic_ckpt_to_keep)
        self.episodes = TrajectoryLog(self.folder, lambda i: self.tokenizer.decode([i]))
        self.workers: Workers | None = None
        self.rollouts: Rollouts | None = None
        self.step = 0

    # -- a run ----------------------------------------------------------------------------------

    def fit(self, wait_s: float = START_WAIT_S) -> None:
        """Train to ``trainer.total_training_steps``, from the last checkpoint if there is one. ``wait_s``: how long
        to wait for nodes with room for the workers."""
        trainer = self.config.trainer
        self.checkpoints.clean()
        self.workers = self.start_workers(wait_s)
        if trainer.nnodes > 1:
            check_shared_folder(self.folder, self.workers.actor.confirm_shared_folder)
        self.rollouts = Rollouts(self.workers)
        self.step = self._resume()
        self.rollouts.start_from(self.step)
        self.tracking = Tracking(
            project_name=trainer.project_name, experiment_name=trainer.experiment_name,
            default_backend=[name for name in one_or_more(trainer.logger) if name != "console"],  # the display is the console
            config=OmegaConf.to_container(self.config, resolve=True),
            folder=self.folder, resume_step=None if trainer.val_only else self.step,
        )  # fmt: skip
        if not trainer.val_only:  # which plays no step anew
            self.episodes.cut_after(self.step)
        try:
            self._all_steps(trainer.total_training_steps)
        finally:
            self.tracking.finish()  # a restart's trackers meet no run that is still open

    def start_workers(self, wait_s: float) -> Workers:
        """The run's worker groups, models and engines built: Ray actors. (Imported here: a run in one process needs no Ray.)"""
        from ragen.trainer.worker_setup import start_workers

        return start_workers(self.config, self.plan.device, wait_s=wait_s)

    def _all_steps(self, total: int) -> None:
        trainer = self.config.trainer
        with TrainDisplay(total, trainer.experiment_name, history=self.tracking.history()) as self.display:
            self.rollouts.sync()  # before the first episode, a resumed run's too
            if trainer.val_only or (trainer.val_before_train and self.step == 0):
                self._log(self.step, self._validate(self.step))
            while self.step < total and not trainer.val_only:
                self._one_step(self.step + 1, last=self.step + 1 == total)

    def _one_step(self, step: int, last: bool) -> None:
        trainer = self.config.trainer
        started = time.perf_counter()
        metrics = self._train_step(step)
        metrics |= self.step_metrics.of_step(metrics, time.perf_counter() - started)
        if _due(step, trainer.test_freq, last):
            metrics |= self._validate(step)
        self.step = step
        if _due(step, trainer.save_freq, last or self.empty_stop.reached):
            with self._timed(metrics, "save_checkpoint"):
                self._save(step, metrics)
        else:
            self._log(step, metrics)
        if not last:
            self.empty_stop.end()

    def _train_step(self, step: int) -> dict[str, float]:
        metrics: dict[str, float] = {}
        with self._timed(metrics, "gen"):
            trajectories, counters = self._play(TRAIN, step)
        metrics |= task_metrics(trajectories, "train") | rollout_metrics(trajectories) | counters | self.rollouts.metrics(trajectories)
        self.difficulty.record(trajectories, step)
        self._play_ahead(step, metrics)
        greedy = {}
        if self.config.algorithm.adv_estimator == "remax":
            with self._timed(metrics, "gen_max"):
                greedy = self._greedy_rewards(step)
        self.rollouts.make_room()  # everything below computes with the trainer's models
        metrics |= self.step_metrics.collapse(trajectories, step)
        with self._timed(metrics, "filter"):
            batch, kept = self._kept_batch(trajectories, metrics)
        if batch is None:
            self.episodes.write(step, TRAIN, trajectories, kept=set())
            played = [t for t in trajectories if t.status != ABORTED]
            return metrics | self._signal(False, solved=bool(played) and all(t.success for t in played))
        if self.config.algorithm.adv_estimator == "remax":
            batch.batch["reward_baselines"] = _baselines(batch, greedy)
        with self._timed(metrics, "old_log_prob"):
            batch = self._with_log_probs(batch, step, metrics)
        with self._timed(metrics, "adv"):
            batch, found = compute_advantages(batch, self.config, self.kl_controller, self.estimator_state)
        metrics |= found
        self._update(batch, step, metrics)
        self.rollouts.updated()
        if not self.config.trainer.rollout_ahead:
            with self._timed(metrics, "sync"):
                self.rollouts.sync()
        self.episodes.write(step, TRAIN, trajectories, kept=kept, advantages=_advantages_by_trajectory(batch))
        return metrics | self.step_metrics.of_update(batch, metrics)

    # -- phases ---------------------------------------------------------------------------------

    def _play(self, phase: str, step: int, greedy: bool = False) -> tuple[list[Trajectory], dict[str, float]]:
        """All episodes of a step, in (group, member) order, and what players counted. ``greedy``: one
        episode a group, at temperature 0 (ReMax's baseline)."""
        played = self.rollouts.take(step) if phase == TRAIN and not greedy else None
        return collect(self.rollouts.play(self._orders(phase, step, greedy)) if played is None else played)

    def _orders(self, phase: str, step: int, greedy: bool = False) -> list[PlayOrder]:
        return play_orders(
            self.config, phase, step, tags=self.tags[phase], ranks=self.plan.rollout_ranks,
            success_rates=self.difficulty.rates(), greedy=greedy,
        )  # fmt: skip

    def _play_ahead(self, step: int, metrics: dict) -> None:
        """Begin the next step beside this one's update, but never over a checkpoint (``ragen.trainer.rollouts``)."""
        trainer = self.config.trainer
        if not trainer.rollout_ahead or _due(step, trainer.save_freq, last=step == trainer.total_training_steps):
            return
        with self._timed(metrics, "sync"):
            self.rollouts.sync()
        self.rollouts.start(step + 1, self._orders(TRAIN, step + 1))

    def _greedy_rewards(self, step: int) -> dict[tuple[int, int], float]:
        """(group, agent) -> the reward of its greedy episode, without those that were aborted. Played before the filter,
        while the engine is awake."""
        greedy, _ = self._play(TRAIN, step, greedy=True)
        return {(t.group, t.agent): t.reward for t in greedy if t.status != ABORTED}

    def _kept_batch(self, trajectories: list[Trajectory], metrics: dict) -> tuple[DataProto | None, set[int]]:
        """The rows to train on: groups with signal, episodes that were played to an end of their own. None where they
        hold no token to train (every reply overlong and masked)."""
        usable = [i for i, t in enumerate(trajectories) if t.status != ABORTED and t.turns]
        if not usable:
            return None, set()
        batch = build_batch(trajectories, self.pad_id)
        if self.filter.metric.startswith("entropy"):
            batch = self._with_entropy(batch)
        result = self._filter(batch, trajectories, usable)
        metrics |= result.metrics
        if result.empty:
            return None, set()
        kept = {i for i, keep in zip(usable, result.rows, strict=True) if keep}
        batch = batch.select_idxs(np.isin(batch.non_tensor_batch["traj_id"], sorted(kept)))
        return (batch, kept) if batch.batch["response_mask"].any() else (None, set())

    def _filter(self, batch: DataProto, trajectories: list[Trajectory], usable: list[int]) -> FilterResult:
        values = {i: trajectories[i].reward for i in usable}
        if self.filter.metric == "length":
            values = {i: float(sum(t.sampled_tokens for t in trajectories[i].turns)) for i in usable}
        elif self.filter.metric.startswith("entropy"):
            mask = batch.batch["response_mask"].double()
            sums, counts = (batch.batch["entropys"].double() * mask).sum(-1), mask.sum(-1)
            ids = batch.non_tensor_batch["traj_id"]
            values = {i: float(sums[ids == i].sum() / counts[ids == i].sum().clamp(min=1)) for i in usable}
        groups = [(trajectories[i].group, trajectories[i].agent) for i in usable]
        return filter_rollouts([values[i] for i in usable], groups, self.filter, [trajectories[i].tag for i in usable])

    def _with_log_probs(self, batch: DataProto, step: int, metrics: dict) -> DataProto:
        """Old log-probabilities where the update is not exactly on-policy, the reference's where a KL
        term asks for them, values where there is a critic."""
        config = self.config
        batch.meta_info |= {"global_steps": step, **self._log_prob_settings()}
        if bypasses_old_log_probs(config):  # the ratio, and what clips it, is against the policy that played
            batch.batch["old_log_probs"] = batch.batch["rollout_log_probs"]
        elif self._needs_old_log_probs(batch) and "old_log_probs" not in batch.batch.keys():
            batch = batch.union(self._over_ranks(self.workers.actor.compute_log_prob, batch))
        if "old_log_probs" in batch.batch.keys() and not bypasses_old_log_probs(config):
            gap = (batch.batch["old_log_probs"] - batch.batch["rollout_log_probs"]).abs()[batch.batch["response_mask"]]
            metrics["rollout/logprob_diff_max"] = float(gap.max())
            metrics["rollout/logprob_diff_mean"] = float(gap.mean())
            batch = self._with_rollout_correction(batch, metrics)
        if config.actor_rollout_ref.actor.use_kl_loss or config.algorithm.use_kl_in_reward:
            batch = batch.union(self._over_ranks(self.workers.actor.compute_ref_log_prob, batch))
        if config.algorithm.adv_estimator in TOKEN_LEVEL:
            batch = batch.union(self._over_ranks(self.workers.critic.compute_values, batch))
        return batch

    def _needs_old_log_probs(self, batch: DataProto) -> bool:
        config, actor = self.config, self.config.actor_rollout_ref.actor
        trajectories = len(set(batch.non_tensor_batch["traj_id"].tolist()))
        updates = update_batch.count_mini_batches(trajectories, actor.ppo_mini_batch_size) * actor.ppo_epochs
        correction = config.algorithm.rollout_correction
        asked = config.algorithm.use_kl_in_reward or config.algorithm.adv_estimator in TOKEN_BASELINE_ESTIMATORS
        return updates > 1 or asked or bool(correction.rollout_is or correction.rollout_rs)

    def _log_prob_settings(self) -> dict:
        """What ``compute_log_prob`` reads in ``meta_info``."""
        squares = self.config.algorithm.adv_estimator in TOKEN_BASELINE_ESTIMATORS
        return {"temperature": float(self.config.actor_rollout_ref.rollout.temperature), "calculate_sum_pi_squared": squares}

    def _with_rollout_correction(self, batch: DataProto, metrics: dict) -> DataProto:
        correction = self.config.algorithm.rollout_correction
        if not (correction.rollout_is or correction.rollout_rs):
            return batch
        from verl.trainer.ppo.rollout_correction import compute_rollout_correction_and_add_to_batch

        rows = TrajectoryRows(batch)  # a sequence's ratio is that of the whole trajectory
        joined = rows.join_batch(batch, ("old_log_probs", "rollout_log_probs", "response_mask"))
        joined, found = compute_rollout_correction_and_add_to_batch(joined, correction)
        for name in ("response_mask", "rollout_is_weights"):
            if name in joined.batch.keys():
                batch.batch[name] = rows.split(joined.batch[name])
        metrics |= found
        return batch

    def _with_entropy(self, batch: DataProto) -> DataProto:
        batch.meta_info |= self._log_prob_settings()
        return batch.union(self._over_ranks(self.workers.actor.compute_log_prob, batch))

    def _over_ranks(self, method, batch: DataProto) -> DataProto:
        padded, extra = pad_dataproto_to_divisor(batch, self.plan.ranks)
        return unpad_dataproto(method(padded), extra)

    def _update(self, batch: DataProto, step: int, metrics: dict) -> None:
        config, actor = self.config, self.config.actor_rollout_ref.actor
        metrics["perf/total_num_tokens"] = float(batch.batch["attention_mask"].sum())
        metrics["rollout/trained_tokens"] = float(batch.batch["response_mask"].sum())
        metrics["rollout/trained_share"] = metrics["rollout/trained_tokens"] / metrics["perf/total_num_tokens"]
        # a constant, as Dr. GRPO means it: the same for every batch, however trajectories are cut into rows
        batch.meta_info["loss_scale_factor"] = config.agent_proxy.max_turn * config.actor_rollout_ref.rollout.response_length
        trained = self._rows_to_train(batch, metrics)
        batch.non_tensor_batch["trained"] = trained
        if self.workers.critic is not None:
            shares, balance = self._deal(batch, config.critic, step)
            metrics |= balance
            with self._timed(metrics, "update_critic"):
                metrics |= self.workers.critic.update_critic(shares)[0].meta_info["metrics"]
        if step > config.trainer.critic_warmup and trained.any():
            # clip_cov and kl_cov rank the tokens of the whole update; other losses leave the batch as it is
            rows = batch if trained.all() else batch.select_idxs(trained)
            shares, balance = self._deal(add_cov_selected(rows, actor, seed=step), actor, step)
            metrics |= balance
            with self._timed(metrics, "update_actor"):
                metrics |= self.workers.actor.update_actor(shares)[0].meta_info["metrics"]

    def _rows_to_train(self, batch: DataProto, metrics: dict) -> np.ndarray:
        """Bool (B,): the rows that the policy learns from. Rows without an advantage would leave their entropy bonus
        alone; where no row has any, weights, optimizer and scheduler stay as they are."""
        with_signal = rows_with_signal(batch, self.config.algorithm.adv_estimator)
        metrics["rollout/zero_advantage_share"] = 1.0 - float(with_signal.mean())
        metrics |= self._signal(bool(with_signal.any()), solved=bool(batch.non_tensor_batch["success"].all()))
        return with_signal if self.config.algorithm.zero_advantages == "leave_out" else np.ones_like(with_signal)

    def _signal(self, found: bool, solved: bool) -> dict[str, float]:
        """Count a step that had an advantage somewhere, or none; too many of these in a row end the run."""
        return {**self.empty_stop.update(not found, solved), "actor/no_signal": float(not found)}

    def _deal(self, batch: DataProto, section, step: int) -> tuple[list[DataProto], dict[str, float]]:
        """A share a rank, in mini-batches as ``section`` (the actor's or the critic's) asks for."""
        key = (int(self.config.seed.train), "mini_batches", step) if section.shuffle else None
        return update_batch.deal_to_ranks(
            batch, ranks=self.plan.ranks, mini_batch_size=section.ppo_mini_batch_size, shuffle_key=key,
            balance=bool(self.config.trainer.balance_batch),
        )  # fmt: skip

    def _validate(self, step: int) -> dict[str, float]:
        metrics: dict[str, float] = {}
        with self._timed(metrics, "testing"):
            trajectories, _ = self._play(VAL, step)
        self.episodes.write(step, VAL, trajectories)
        shown = sample_generations(trajectories, self.config.trainer.log_val_generations, int(self.config.seed.val))
        self.tracking.log_generations(shown, step)
        return metrics | task_metrics(trajectories, "val")

    # -- saving and resuming --------------------------------------------------------------------

    def _driver_state(self) -> dict:
        return {
            "step": self.step,
            "kl_controller": self.kl_controller.state_dict(),
            "empty_stop": self.empty_stop.state_dict(),
            "difficulty": self.difficulty.state_dict(),
            "estimator": self.estimator_state,
        }

    def _save(self, step: int, metrics: dict) -> None:
        # metrics first: a run killed between the two plays the step again and cuts this line off
        self._log(step, metrics)
        self.display.phase("saving")
        self._room_for_checkpoint()
        groups = [g for g in (self.workers.actor, self.workers.critic) if g is not None]
        needed = sum(g.checkpoint_bytes()[0] for g in groups)
        with self.checkpoints.saving(step, self._driver_state, needed) as folder:
            self.workers.actor.save_checkpoint(str(folder / "actor"), global_step=step)
            if self.workers.critic is not None:
                self.workers.critic.save_checkpoint(str(folder / "critic"), global_step=step)

    def _room_for_checkpoint(self) -> None:
        """Offloaded shards come back to their GPU to be written or read: the engine must not be there then."""
        sections = [self.config.actor_rollout_ref.actor.fsdp_config, self.config.critic.model.fsdp_config]
        if self.plan.device == "cuda" and any(section.param_offload or section.optimizer_offload for section in sections):
            self.rollouts.sync()  # an engine that has been synced once leaves its weights, not a copy of them
            self.rollouts.make_room()

    def _resume(self) -> int:
        """Load the checkpoint that ``trainer.resume_mode`` names; the step it was saved at, or 0."""
        trainer = self.config.trainer
        found = resolve_resume(self.folder, trainer.resume_mode, trainer.resume_from_path)
        if found is None:
            return 0
        source = Path(found)
        step = self.checkpoints.verify(source)
        log.info("resuming from %s", source)
        self._room_for_checkpoint()
        self.workers.actor.load_checkpoint(str(source / "actor"))
        if self.workers.critic is not None:
            self.workers.critic.load_checkpoint(str(source / "critic"))
        state = self.checkpoints.load_driver_state(source)
        self.kl_controller.load_state_dict(state["kl_controller"])
        self.empty_stop.load_state_dict(state["empty_stop"])
        self.difficulty.load_state_dict(state["difficulty"])
        self.estimator_state = state["estimator"]
        return step

    # -- small things ---------------------------------------------------------------------------

    @functools.cached_property
    def step_metrics(self) -> StepMetrics:
        return StepMetrics(self.config, self.plan, self.workers.actor, self.tokenizer)

    def _log(self, step: int, metrics: dict) -> None:
        self.tracking.log(metrics, step)
        self.display.update(step, metrics)

    @contextlib.contextmanager
    def _timed(self, metrics: dict, name: str) -> Iterator[None]:
        self.display.phase(name)
        started = time.perf_counter()
        yield
        metrics[f"timing_s/{name}"] = time.perf_counter() - started


def _due(step: int, every: int, last: bool) -> bool:
    return last or (every > 0 and step % every == 0)


def _baselines(batch: DataProto, rewards: dict[tuple[int, int], float]) -> torch.Tensor:
    """(B,): the reward of the greedy episode of each row's group and agent, 0 where that one was aborted."""
    keys = zip(batch.non_tensor_batch["group"].tolist(), batch.non_tensor_batch["agent"].tolist(), strict=True)
    return torch.tensor([rewards.get(key, 0.0) for key in keys])


def _advantages_by_trajectory(batch: DataProto) -> dict[int, list[list[float]]]:
    lengths = batch.batch["attention_mask"].sum(-1).tolist()
    found: dict[int, list[list[float]]] = {}
    for row, i in enumerate(batch.non_tensor_batch["traj_id"].tolist()):
        found.setdefault(i, []).append(torch.as_tensor(batch.batch["advantages"][row, : lengths[row] - 1]).tolist())
    return found
