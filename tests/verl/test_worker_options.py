"""What the training workers do with options that have two names, or a section that the composed configuration closes."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from test_training_workers import critic_config
from training_cases import game_batch, numpy_weights, run_ranks, save_tiny_model, to_share, worker_config

from ragen.trainer.config import compose
from verl.workers.fsdp_workers import ActorRolloutRefWorker, CriticWorker

ROWS = 9
#: AdamW's first step is lr * g / (|g| + eps): with both at 1,000 it is the clipped gradient itself
STEP_IS_THE_GRADIENT = {"lr": 1e3, "eps": 1e3, "weight_decay": 0.0, "total_training_steps": 10}


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def moved(worker, update) -> tuple[float, float]:
    """How far one update moves the weights, and the norm of its gradient before clipping."""
    before = {name: p.detach().full_tensor().clone() for name, p in worker.trained.module.named_parameters()}
    metrics = update(to_share(game_batch(ROWS), range(ROWS), [0] * ROWS, 1)).meta_info["metrics"]
    squares = sum(float((p.detach().full_tensor() - before[name]).square().sum()) for name, p in worker.trained.module.named_parameters())
    return squares**0.5, next(value for name, value in metrics.items() if name.endswith("/grad_norm"))


def moved_by_clip(rank: int, path: str, clips: list[dict]) -> list[tuple[float, float]]:
    found = []
    for clip in clips:
        config = worker_config(path, **{"actor.grad_clip": clip["grad_clip"], "actor.optim": {**STEP_IS_THE_GRADIENT, **clip["optim"]}})
        actor = ActorRolloutRefWorker(config, "actor")
        actor.init_model()
        found.append(moved(actor, actor.update_actor))
        config = critic_config(path)
        config.update({"grad_clip": clip["grad_clip"], "optim": {**STEP_IS_THE_GRADIENT, **clip["optim"]}, "ppo_epochs": 1})
        critic = CriticWorker(config)
        critic.init_model()

        def update(share, critic=critic):
            share.batch["values"] = torch.zeros_like(share.batch["returns"])
            share.batch["returns"] = 10 * share.batch["returns"]
            return critic.update_critic(share)

        found.append(moved(critic, update))
    return found


def test_gradients_are_clipped_to_the_newer_name_where_it_is_given(model_path):
    clips = [{"grad_clip": 0.5, "optim": {}}, {"grad_clip": 0.5, "optim": {"clip_grad": 0.07}}, {"grad_clip": 0.01, "optim": {"clip_grad": 0.2}}]
    (found,) = run_ranks(moved_by_clip, 1, model_path, clips)
    for expected, *roles in zip((0.5, 0.07, 0.2), found[::2], found[1::2], strict=True):
        for distance, gradient in roles:
            assert gradient > 0.5, "the gradient has to be longer than what it is clipped to"
            assert distance == pytest.approx(expected, rel=5e-3)


def passes_of_critic(rank: int, path: str, ways: list[dict]) -> list[tuple[int, int, np.ndarray]]:
    """Forward passes of :meth:`compute_values` and of :meth:`update_critic`, and the values."""
    found = []
    for changes in ways:
        config = critic_config(path)
        config.update({"ppo_epochs": 1, **changes})
        worker = CriticWorker(config)
        worker.init_model()
        torch.nn.init.normal_(worker.trained.module.score.weight, generator=torch.Generator().manual_seed(0))
        passes = []
        worker.trained.module.model.register_forward_hook(lambda *_: passes.append(1))  # noqa: B023 (used up within the iteration)
        share = to_share(game_batch(ROWS), range(ROWS), [0] * ROWS, 1)
        values = worker.compute_values(share).batch["values"]
        forward = len(passes)
        share.batch["values"] = values
        worker.update_critic(share)
        found.append((forward, len(passes) - forward, values.numpy()))
    return found


def test_the_critic_has_limits_of_its_own_for_forward_passes(model_path):
    """By rows: as many micro-batches as it takes; by tokens: more of them with a smaller budget. The update keeps its own."""
    lengths = game_batch(ROWS)["attention_mask"].sum(1)
    longest, all_fit = int(lengths.max()), ROWS * int(lengths.max())
    ways = {
        "rows as the update": {"ppo_micro_batch_size_per_gpu": 2},
        "rows": {"ppo_micro_batch_size_per_gpu": 2, "forward_micro_batch_size_per_gpu": 4},
        "tokens as the update": {"use_dynamic_bsz": True, "ppo_max_token_len_per_gpu": all_fit},
        "tokens": {"use_dynamic_bsz": True, "ppo_max_token_len_per_gpu": all_fit, "forward_max_token_len_per_gpu": longest},
    }
    (found,) = run_ranks(passes_of_critic, 1, model_path, list(ways.values()))
    counts = {way: (forward, update) for way, (forward, update, _) in zip(ways, found, strict=True)}
    assert counts["rows as the update"] == (5, 5) and counts["rows"] == (3, 5)
    forward, update = counts["tokens as the update"]
    assert forward == update < counts["tokens"][0] and counts["tokens"][1] == update
    for _, _, values in found:
        np.testing.assert_allclose(values, found[0][2], atol=1e-5)
    assert np.abs(found[0][2]).max() > 0


def reference_of_a_composed_config(rank: int, path: str) -> tuple[bool, np.ndarray, np.ndarray]:
    config = compose("_0_laptop", [f"actor_rollout_ref.model.path={path}", "actor_rollout_ref.actor.use_kl_loss=true"])
    section = config.actor_rollout_ref
    worker = ActorRolloutRefWorker(section, "actor_rollout_ref")
    worker.init_model()
    batch = game_batch(ROWS)
    share = to_share(batch, range(ROWS), [0] * ROWS, 1)
    share.batch["ref_log_prob"] = reference = worker.compute_ref_log_prob(share).batch["ref_log_prob"]
    policy = worker.compute_log_prob(share).batch["old_log_probs"]
    before = numpy_weights(worker)
    metrics = worker.update_actor(share).meta_info["metrics"]
    assert any(not np.array_equal(before[name], weight) for name, weight in numpy_weights(worker).items())
    assert metrics["actor/kl_loss"] == pytest.approx(0.0, abs=1e-6)
    return OmegaConf.is_struct(section), reference.numpy(), policy.numpy()


def test_a_run_with_a_kl_term_starts_from_the_composed_configuration(model_path):
    """Hydra closes the configuration it composes: a section cannot be given a key that it lacks."""
    (found,) = run_ranks(reference_of_a_composed_config, 1, model_path)
    is_struct, reference, policy = found
    assert is_struct
    assert np.abs(reference).max() > 0
    np.testing.assert_allclose(reference, policy, atol=1e-5)
