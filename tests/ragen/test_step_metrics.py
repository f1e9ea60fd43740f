"""What a step tells: figures of the batch and its speed by hand, collapse against a bare transformers model."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from test_step import trajectory
from transformers import AutoModelForCausalLM

from ragen.llm_agent.batch import build_batch
from ragen.llm_agent.trajectory import Sample, Trajectory, Turn
from ragen.trainer.config import compose
from ragen.trainer.credit import compute_advantages
from ragen.trainer.step_metrics import StepMetrics
from ragen.trainer.trajectory_log import sample_generations
from verl.protocol import DataProto
from verl.utils.model_shape import read_shape
from verl.utils.tokenizer import hf_tokenizer
from verl.workers.actor import DataParallelPPOActor

STARTER = "assets/starter"


def step_metrics(*overrides, actor=None, ranks=2, device="cpu"):
    config = compose("_0_laptop", overrides)
    return StepMetrics(config, SimpleNamespace(ranks=ranks, device=device), actor, hf_tokenizer(STARTER))


# -- the batch and its speed --------------------------------------------------------------------


def a_batch():
    trajectories = [trajectory(0, 0, 1.0, turns=2), trajectory(0, 1, 0.0), trajectory(1, 0, 0.5), trajectory(1, 1, -0.1)]
    batch, _ = compute_advantages(build_batch(trajectories, 0), compose("_0_laptop"), None, {})
    return batch  # two turns: 16 tokens, 4 sampled; one: 8 tokens, 2 sampled


def test_figures_of_what_was_trained_on():
    found = step_metrics().of_update(a_batch(), {})
    assert (found["critic/score/mean"], found["critic/score/max"], found["critic/score/min"]) == pytest.approx((0.35, 1.0, -0.1))
    assert found["critic/rewards/mean"] == pytest.approx(0.35) and found["critic/returns/max"] == found["critic/advantages/max"]
    assert (found["response_length/mean"], found["prompt_length/max"], found["num_turns/mean"]) == (2.5, 12, 1.25)
    assert not [key for key in found if key.startswith(("timing", "perf"))]  # nothing was timed


def test_speed_of_an_update():
    measured = {"timing_s/update_actor": 2.0, "timing_s/gen": 4.0, "rollout/gen_tokens": 40.0}
    found = step_metrics("trainer.device_tflops=3").of_update(a_batch(), measured)
    assert found["timing_per_token_ms/update_actor"] == pytest.approx(2000 / 40)
    assert found["timing_per_token_ms/gen"] == 100.0  # of all that were generated, filtered or not
    assert "timing_s/gen" not in found
    lengths = [15, 7, 7, 7]  # up to what predicts the last sampled token
    assert found["perf/throughput/actor"] == sum(lengths) / (2.0 * 2)
    shape = read_shape(Path(STARTER))
    blocks = shape.layers * (shape.hidden * 2 * (shape.q + shape.kv) + 3 * shape.hidden * shape.intermediate)
    attention = 12 * shape.layers * shape.q * sum(sum(range(n + 1)) for n in lengths)  # a token sees itself and those before
    flops = 6 * blocks * sum(lengths) + 6 * shape.vocab * shape.hidden * 10 + attention
    assert found["perf/mfu/actor"] == pytest.approx(flops / 2.0 / 3e12 / 2)


def test_a_critic_is_counted_by_its_own_settings():
    timed = {"timing_s/update_actor": 1.0, "timing_s/update_critic": 1.0}
    found, adapters, other = (
        step_metrics("trainer.device_tflops=3", *settings).of_update(a_batch(), timed)
        for settings in ([], ["actor_rollout_ref.model.lora_rank=8"], ["critic.model.path=elsewhere"])
    )
    assert adapters["perf/mfu/actor"] < found["perf/mfu/actor"] and adapters["perf/mfu/critic"] == found["perf/mfu/critic"]
    assert found["perf/mfu/critic"] < found["perf/mfu/actor"]  # its head is one column
    assert "perf/mfu/critic" not in other and other["perf/mfu/actor"] == found["perf/mfu/actor"]


def test_peaks_come_from_the_workers_device_and_an_unknown_one_is_named(caplog):
    class Actor:
        name = "NVIDIA H100 80GB HBM3"

        def execute_func_rank_zero(self, func):
            return self.name

    assert step_metrics(actor=Actor(), device="cuda").counter.peak_tflops == 989.0
    Actor.name = "Tomorrow 1"
    assert step_metrics(actor=Actor(), device="cuda").counter is None
    assert "Tomorrow 1" in caplog.text and "trainer.device_tflops" in caplog.text
    assert step_metrics("trainer.device_tflops=5", actor=Actor(), device="cuda").counter.peak_tflops == 5.0
    assert step_metrics().counter is None  # a CPU


def test_throughput_of_a_step():
    found = step_metrics(ranks=4).of_step({"perf/total_num_tokens": 800.0}, 2.0)
    assert found["perf/throughput"] == 100.0 and found["perf/tokens_per_s"] == 400.0
    assert found["timing_s/step"] == found["perf/time_per_step"] == 2.0
    assert step_metrics().of_step({}, 2.0)["perf/throughput"] == 0.0  # a step of which nothing was kept


# -- collapse -----------------------------------------------------------------------------------


class Actor:
    """The worker group's call, answered by the trainer's own actor in this process."""

    def __init__(self):
        self.model = AutoModelForCausalLM.from_pretrained(STARTER)
        self.actor = DataParallelPPOActor(OmegaConf.create({}), self.model)
        self.rows = 0

    def compute_log_prob(self, batch):
        self.rows += len(batch)
        batch.meta_info |= {"use_dynamic_bsz": True, "max_token_len": 512}
        return DataProto.from_dict(tensors={"old_log_probs": self.actor.compute_log_prob(batch)[0]})


@pytest.fixture(scope="module")
def actor():
    return Actor()


def episode(group, *turns):
    """Turns of (prompt, reply) in one sample, in the starter's tokens."""
    tokenizer, sample = hf_tokenizer(STARTER), Sample()
    for prompt, reply in turns:
        sample.ids += tokenizer(prompt, add_special_tokens=False)["input_ids"]
        start = len(sample.ids)
        sample.ids += tokenizer(reply, add_special_tokens=False)["input_ids"]
        sample.turns.append(Turn(start, len(sample.ids), reply))
    return Trajectory("A", group, 0, 0, 0, 0, samples=[sample])


def text_of(i, thought):
    return f"Board {i}: (1,1)X (2,2)-", f"<think>{thought}</think><answer>(2,2)</answer>"


EPISODES = [
    episode(0, text_of(1, "block (2,2)"), text_of(2, "win (1,1)")),
    episode(0, text_of(1, "look")),
    episode(1, text_of(3, "play (1,1) then (2,2)")),
    episode(1, ("Board 3: (1,1)X (2,2)-", "<answer>(2,2)</answer>")),  # no thought
]
ON = ["collapse_detection.first_turn_enabled=true", "collapse_detection.compute_freq=3", "collapse_detection.micro_batch_size=4"]


def bare_scores(model, prompts, thoughts):
    """log p(thought | prompt) of every pair, one plain forward each."""
    found = np.zeros((len(thoughts), len(prompts)))
    for i, thought in enumerate(thoughts):
        for j, prompt in enumerate(prompts):
            ids = torch.tensor([prompt + thought])
            with torch.no_grad():
                logps = torch.log_softmax(model(ids).logits[0].double(), -1)
            found[i, j] = sum(float(logps[len(prompt) + k - 1, t]) for k, t in enumerate(thought))
    return found


def test_first_turns_are_scored_as_a_bare_model_does(actor):
    found = step_metrics(*ON, actor=actor).collapse(EPISODES, step=3)
    tokenizer = hf_tokenizer(STARTER)

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    prompts = [ids("Board 1: (1,1)X (2,2)-") + ids("<think>"), ids("Board 3: (1,1)X (2,2)-") + ids("<think>")]
    thoughts = [ids("block (2,2)"), ids("look"), ids("play (1,1) then (2,2)")]
    scores = bare_scores(actor.model, prompts, thoughts)
    own = scores[[0, 1, 2], [0, 0, 1]]
    marginal = np.log(np.exp(scores).mean(1))
    prefix = "collapse_first_turn_sample"
    assert found[f"{prefix}/conditional_entropy_seq_est"] == pytest.approx(-own.mean(), rel=1e-5)
    assert found[f"{prefix}/reasoning_entropy_seq_est"] == pytest.approx(-marginal.mean(), rel=1e-5)
    assert found[f"{prefix}/mi_seq_estimate"] == pytest.approx((own - marginal).mean(), abs=1e-4)
    assert found[f"{prefix}/retrieval_accuracy"] == pytest.approx((scores.argmax(1) == [0, 0, 1]).mean())
    assert found["collapse/valid_thinking_rate"] == 0.8 and found["collapse/first_turn_valid_rate"] == 0.75
    assert "timing_s/collapse_first_turn_step" in found
    assert not [key for key in found if key.startswith("collapse_trajectory_sample")]


def test_how_often_and_how_many(actor):
    on = step_metrics(*ON, actor=actor)
    before = actor.rows
    assert on.collapse(EPISODES, step=4) == {} and step_metrics(actor=actor).collapse(EPISODES, step=5) == {}
    assert actor.rows == before  # nothing was computed
    few = step_metrics("collapse_detection.multi_turn_enabled=true", "collapse_detection.num_samples=3", actor=actor)
    found = few.collapse(EPISODES, step=5)
    assert actor.rows - before <= 3 * 3 + 1  # pairs, and a row that fills up for two ranks
    assert {k: v for k, v in few.collapse(EPISODES, step=5).items() if "timing" not in k} == {
        k: v for k, v in found.items() if "timing" not in k
    }  # the same are drawn again
    for t in (aborted := [episode(0, text_of(1, "look"))]):
        t.status = "aborted"
    assert on.collapse(aborted, step=3) == {}


# -- validation episodes to show ----------------------------------------------------------------


def test_validation_episodes_to_show():
    played = [trajectory(i, 0, i / 10) for i in range(10)]
    for i, t in enumerate(played):
        t.messages = [
            {"role": "system", "content": "s"}, {"role": "user", "content": f"board {i}"},
            {"role": "assistant", "content": "a1"}, {"role": "user", "content": "next"}, {"role": "assistant", "content": "a2"},
        ]  # fmt: skip
    shown = sample_generations(played, 3, seed=1)
    assert len(shown) == 3 and shown == sample_generations(played, 3, seed=1)
    for given, said, score in shown:
        assert given == f"system: s\nuser: board {round(score * 10)}"
        assert said == "assistant: a1\nuser: next\nassistant: a2"
    assert len(sample_generations(played, 99, seed=1)) == 10 and sample_generations(played, 0, seed=1) == []
