"""Roof efficiency of the laptop step: (raw engine time for the same tokens + bare update time for the same
batch) / time of the whole step. Also what the weight sync takes of a step, and the padding of its update.

In the same worker processes, after each real step: the engine alone answers the same prompts with replies of
the same lengths, all turns k of all games at once; and plain PyTorch updates an unsharded copy of the model on
the same rows. What is missing to 1 is episodes, environments, Ray, FSDP, filter, sync and idle ranks.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time

import torch
from transformers import AutoModelForCausalLM

from ragen.report.console import TrainDisplay
from ragen.trainer.agent_trainer import AgentTrainer
from ragen.trainer.config import compose, validate_config
from ragen.trainer.rollouts import Rollouts
from ragen.trainer.worker_setup import ray_session, start_workers
from ragen.workers.agent_worker import AgentWorker
from verl.protocol import DataProto
from verl.single_controller.base.decorator import Dispatch, register
from verl.workers.rollout.base import SamplingParams

WARM, STEPS = 2, 6


class BenchWorker(AgentWorker):
    """A worker that can also do the two halves of a step with nothing around them."""

    @register(dispatch_mode=Dispatch.DP_COMPUTE)
    def raw_engine(self, waves: list[list[tuple[list[int], int]]]) -> float:
        """Seconds to sample replies of given lengths to given prompts, wave by wave."""
        started = time.perf_counter()
        for wave in waves:
            for i, (prompt, length) in enumerate(wave):
                self.engine.add(str(i), prompt, SamplingParams(max_tokens=length, seed=i))
            while self.engine.unfinished:
                self.engine.step()
        return time.perf_counter() - started

    @register(dispatch_mode=Dispatch.DP_COMPUTE)
    def bare_update(self, share: DataProto) -> float:
        """Seconds of a plain PyTorch policy-gradient step on this rank's rows, sorted and cut to 32 at a time."""
        if not hasattr(self, "bare"):
            self.bare = AutoModelForCausalLM.from_pretrained(self.config.model.path, dtype=torch.float32)
            self.bare_optimizer = torch.optim.AdamW(self.bare.parameters(), lr=1e-6, fused=True)
        lengths = share.batch["attention_mask"].sum(-1)
        order = lengths.argsort()
        started = time.perf_counter()
        for rows in order.split(32):
            width = int(lengths[rows].max())
            ids = share.batch["input_ids"][rows, :width]
            mask = share.batch["response_mask"][rows, : width - 1]
            logprobs = self.bare(input_ids=ids).logits[:, :-1].log_softmax(-1)
            taken = logprobs.gather(-1, ids[:, 1:, None])[..., 0]
            ratio = (taken - taken.detach()).exp()
            loss = -(ratio * share.batch["advantages"][rows, : width - 1] * mask).sum() / len(order)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.bare.parameters(), 1.0)
        self.bare_optimizer.step()
        self.bare_optimizer.zero_grad()
        return time.perf_counter() - started


class BenchTrainer(AgentTrainer):
    """Remembers what a step played and updated with."""

    def _play(self, phase, step):
        self.trajectories, counters = super()._play(phase, step)
        return self.trajectories, counters

    def _update(self, batch, step, metrics):
        self.batch = batch
        super()._update(batch, step, metrics)


def waves_of(trajectories, ranks: int) -> list[list[list[tuple[list[int], int]]]]:
    """For each rank: a list of waves of (prompt ids, reply length), wave k holding every game's turn k."""
    shares: list[dict[int, list]] = [{} for _ in range(ranks)]
    for t in trajectories:
        for k, turn in enumerate(t.samples[0].turns):
            shares[t.group % ranks].setdefault(k, []).append((t.samples[0].ids[: turn.start], turn.end - turn.start))
    return [[share[k] for k in sorted(share)] for share in shares]


def run() -> list[dict]:
    from ragen.trainer import update_batch

    with tempfile.TemporaryDirectory() as folder:
        config = compose("_0_laptop", [f"trainer.default_local_dir={folder}", "trainer.logger=[file]"])
        plan = validate_config(config)
        with ray_session(config):
            trainer = BenchTrainer(config, plan)
            trainer.display = TrainDisplay(WARM + STEPS, "bench")
            trainer.workers = start_workers(config, plan.device, BenchWorker)
            trainer.rollouts = Rollouts(trainer.workers)
            try:
                trainer.rollouts.sync()
                rows = [_one_step(trainer, step, update_batch) for step in range(1, WARM + STEPS + 1)][WARM:]
            finally:
                trainer.workers.kill()
    whole, raw, bare, sync, padding = (statistics.median(column) for column in zip(*rows, strict=True))
    efficiency = statistics.median((r + b) / w for w, r, b, *_ in rows)
    detail = f"step {whole:.2f} s, engine alone {raw:.2f} s, bare update {bare:.2f} s (medians of {STEPS} steps)"
    share = f"{1000 * sync:.0f} ms: gathered from {plan.ranks} ranks, loaded into their engines, prefix caches reset"
    return [
        {"name": "roof efficiency of the laptop step", "ratio": efficiency, "target": ">= 0.7", "detail": detail},
        {"name": "sync: weight transfer / step, seconds", "ratio": sync / whole, "target": "<= 0.1", "detail": share},
        {"name": "padding of the update: 1 - real / computed positions", "ratio": padding, "target": "<= 0.05", "detail": "the laptop step"},
    ]


def _one_step(trainer: BenchTrainer, step: int, update_batch) -> tuple[float, float, float, float, float]:
    started = time.perf_counter()
    metrics = trainer._train_step(step)
    whole = time.perf_counter() - started
    actor, ranks = trainer.config.actor_rollout_ref.actor, trainer.plan.ranks
    raw = max(trainer.workers.actor.raw_engine(waves_of(trainer.trajectories, ranks)))
    trainer.workers.actor.sync_weights()  # forget the prefixes that the raw engine left in the cache
    shares, _ = update_batch.deal_to_ranks(copy.copy(trainer.batch), ranks=ranks, mini_batch_size=actor.ppo_mini_batch_size)
    bare = max(trainer.workers.actor.bare_update(shares))
    return whole, raw, bare, metrics["timing_s/sync"], metrics["perf/actor_padding"]
