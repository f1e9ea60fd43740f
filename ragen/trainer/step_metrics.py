"""What a step tells beside its phases' own numbers: VeRL's metrics of the batch, speed, and RAGEN's
collapse diagnostics (``collapse_detection``). Nothing here changes the run: with it or without it the
same weights come out.
"""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Mapping, Sequence

import torch

from ragen.env.base import derived_rng
from ragen.llm_agent.trajectory import ABORTED, Trajectory
from ragen.trainer.collapse_metrics import compute_collapse_metrics
from ragen.trainer.config import plain
from ragen.trainer.memory import find_shape
from ragen.trainer.plan import ResolvedPlan
from ragen.trainer.thoughts import all_thoughts, any_turns, first_turns
from verl.protocol import DataProto, pad_dataproto_to_divisor, unpad_dataproto
from verl.trainer.ppo.metric_utils import compute_data_metrics, compute_throughput_metrics, compute_timing_metrics
from verl.utils.config_check import ConfigError
from verl.utils.flops_counter import FlopsCounter, get_device_flops, this_device_name
from verl.workers.micro_batch import needed_lengths

log = logging.getLogger(__name__)

#: collapse_detection.NAME_enabled, prefix of its metrics (RAGEN's), which thoughts
_KINDS = (("first_turn", "collapse_first_turn_sample", first_turns), ("multi_turn", "collapse_trajectory_sample", any_turns))


class StepMetrics:
    """Metrics of every step of a run.

    Args:
        config: the whole run's; ``plan``: what it amounts to.
        actor: the workers that hold the policy.
        tokenizer: to find thoughts in replies.
    """

    def __init__(self, config, plan: ResolvedPlan, actor, tokenizer):
        self.config, self.actor, self.ranks = config, actor, plan.ranks
        self.pad_id = tokenizer.pad_token_id
        self.decode_token = functools.cache(lambda i: tokenizer.decode([i]))
        self.counter = self._flops_counter(plan.device)

    # -- the batch and its speed ----------------------------------------------------------------

    def of_update(self, batch: DataProto, metrics: Mapping[str, float]) -> dict[str, float]:
        """After an update: ``critic/score``, ``rewards``, ``advantages``, ``returns`` (``values``,
        ``vf_explained_var``), ``response_length``, ``prompt_length``, ``num_turns`` of the rows that were
        trained on; ``timing_per_token_ms/*``; ``perf/throughput/MODEL``, tokens a second and rank of an
        update, and ``perf/mfu/MODEL``. ``metrics``: what the step has so far, its ``timing_s/*`` above all."""
        keys = batch.batch.keys()
        if "turn_index" in keys:
            batch.non_tensor_batch["__num_turns__"] = (batch.batch["turn_index"].amax(-1) + 1).numpy()
        found = compute_data_metrics(batch, use_critic="values" in keys)
        timing = {name.removeprefix("timing_s/"): seconds for name, seconds in metrics.items() if name.startswith("timing_s/")}
        found |= {k: v for k, v in compute_timing_metrics(batch, timing).items() if k not in metrics}
        if metrics.get("rollout/gen_tokens"):  # all that were generated, not only those that the filter kept
            found["timing_per_token_ms/gen"] = timing["gen"] * 1000 / metrics["rollout/gen_tokens"]
        for model in ("actor", "critic"):
            if f"update_{model}" in timing:
                found |= self._speed(batch, model, timing[f"update_{model}"])
        return found

    def of_step(self, metrics: Mapping[str, float], seconds: float) -> dict[str, float]:
        """``timing_s/step``, ``perf/time_per_step``, ``perf/tokens_per_s`` and VeRL's ``perf/throughput``, the
        same a rank; tokens are those of the update."""
        tokens = metrics.get("perf/total_num_tokens", 0.0)
        trained = DataProto(meta_info={"global_token_num": [tokens]})
        found = compute_throughput_metrics(trained, {"step": seconds}, self.ranks)
        return {**found, "timing_s/step": seconds, "perf/tokens_per_s": tokens / seconds}

    def _speed(self, batch: DataProto, model: str, seconds: float) -> dict[str, float]:
        mask = batch.batch["response_mask"].bool()
        if model == "actor" and "trained" in batch.non_tensor_batch:
            mask = mask[torch.from_numpy(batch.non_tensor_batch["trained"])]
        lengths = needed_lengths(mask)  # what stands behind the last trained token is not computed
        section = self.config.critic if model == "critic" else self.config.actor_rollout_ref.actor
        epochs = int(section.ppo_epochs)
        found = {f"perf/throughput/{model}": float(lengths.sum()) * epochs / (seconds * self.ranks)}
        counter = self._counter_of(model)
        if counter is not None:
            head = 0 if model == "critic" else int(mask.sum())
            achieved, promised = counter.estimate_flops(lengths.tolist(), seconds, head_tokens=head)
            found[f"perf/mfu/{model}"] = achieved * epochs / (promised * self.ranks)
        return found

    def _counter_of(self, model: str) -> FlopsCounter | None:
        if model == "actor" or self.counter is None:
            return self.counter
        own = self.config.critic.model
        if own.path != self.config.actor_rollout_ref.model.path:  # the plan knows the policy's sizes alone
            return None
        return FlopsCounter(self.counter.shape, self.counter.peak_tflops, lora=int(own.lora_rank) > 0)

    def _flops_counter(self, device: str) -> FlopsCounter | None:
        """``None`` where the device's peak is not known (a CPU's never is) or the model's sizes are not."""
        peak = self.config.trainer.device_tflops
        if peak is None and device == "cpu":
            return None
        if peak is None:
            name = self.actor.execute_func_rank_zero(this_device_name)
            peak = get_device_flops("T", name)
            if math.isinf(peak):
                log.warning("perf/mfu is left out: the peak of %s is not known; set trainer.device_tflops", name)
                return None
        try:
            shape, _ = find_shape(plain(self.config))
        except ConfigError as error:
            log.warning("perf/mfu is left out: %s", error)
            return None
        return FlopsCounter(shape, float(peak), lora=int(self.config.actor_rollout_ref.model.lora_rank) > 0)

    # -- collapse -------------------------------------------------------------------------------

    def collapse(self, trajectories: Sequence[Trajectory], step: int) -> dict[str, float]:
        """RAGEN's diagnostics of all that was played, every ``collapse_detection.compute_freq`` steps; {} at
        the others. Scored by the policy as it is now, so call it before the update."""
        section = self.config.collapse_detection
        if step % section.compute_freq or not (section.first_turn_enabled or section.multi_turn_enabled):
            return {}
        thoughts = all_thoughts([t for t in trajectories if t.status != ABORTED], self.decode_token)
        every = [t is not None for turns in thoughts for t in turns]
        firsts = [turns[0] is not None for turns in thoughts if turns]
        if not every:
            return {}
        found = {
            "collapse/valid_thinking_rate": sum(every) / len(every),
            "collapse/first_turn_num_total": float(len(firsts)),
            "collapse/first_turn_num_valid": float(sum(firsts)),
            "collapse/first_turn_valid_rate": sum(firsts) / len(firsts),
        }
        for name, prefix, choose in _KINDS:
            if section[f"{name}_enabled"]:
                started = time.perf_counter()
                rng = derived_rng(int(self.config.seed.train), "collapse", step, name)
                chosen = choose(thoughts, int(section.num_samples), rng)
                found |= compute_collapse_metrics(chosen, self._log_probs, self.pad_id, int(section.micro_batch_size), prefix)
                found[f"timing_s/collapse_{name}_step"] = time.perf_counter() - started
        return found

    def _log_probs(self, ids: torch.Tensor, attention: torch.Tensor, scored: torch.Tensor) -> torch.Tensor:
        batch = DataProto.from_dict(
            tensors={"input_ids": ids, "attention_mask": attention, "response_mask": scored},
            meta_info={"temperature": float(self.config.actor_rollout_ref.rollout.temperature)},
        )
        padded, extra = pad_dataproto_to_divisor(batch, self.ranks)
        return unpad_dataproto(self.actor.compute_log_prob(padded), extra).batch["old_log_probs"]
