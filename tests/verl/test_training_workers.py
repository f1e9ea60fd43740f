"""Log-probabilities, exported weights, LoRA, reference and critic of the training workers, against transformers and peft."""

import copy

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from peft import LoraConfig, get_peft_model
from training_cases import game_batch, numpy_weights, run_ranks, save_tiny_model, to_share, worker_config
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

from verl.workers.fsdp_workers import ActorRolloutRefWorker, CriticWorker

PACKED = {"model.use_remove_padding": True, "model.override_config": {"attn_implementation": "torch_varlen"}}
BFLOAT16 = {"actor.fsdp_config.mixed_precision": {"param_dtype": "bf16", "reduce_dtype": "fp32"}}
SHARED = {"actor.use_prefix_grouper": True}


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def model_path(request, tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"), tied=request.param)


@pytest.fixture(scope="module")
def untied_path(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("untied"), tied=False)


def transformers_log_probs(model, batch: dict, temperature: float = 0.7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities, entropies and sums of squared probabilities (B, T-1) where response_mask is true, 0 elsewhere."""
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1] / temperature
    log_softmax = logits.log_softmax(-1)
    log_prob = log_softmax.gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    entropy = -(log_softmax.exp() * log_softmax).sum(-1)
    squares = log_softmax.exp().square().sum(-1)
    return tuple(values * batch["response_mask"] for values in (log_prob, entropy, squares))


def log_probs_and_weights(rank: int, path: str, dealing, ways: list[dict]):
    results = []
    for changes in ways:
        worker = ActorRolloutRefWorker(worker_config(path, **changes), "actor_rollout_ref")
        worker.init_model()
        share = to_share(game_batch(), dealing[rank], [0] * 9, 1)
        found = worker.compute_log_prob(share).batch
        assert "sum_pi_squared" not in found.keys()
        share.meta_info["calculate_sum_pi_squared"] = True
        squares = worker.compute_log_prob(share).batch["sum_pi_squared"]
        reference = worker.compute_ref_log_prob(share).batch["ref_log_prob"]
        results.append(
            (
                {
                    "log": found["old_log_probs"].numpy(), "entropy": found["entropys"].numpy(), "ref": reference.numpy(),
                    "squares": squares.numpy(),
                },
                numpy_weights(worker),
            )
        )
    return results


def test_log_probs_and_exported_weights_are_those_of_transformers(model_path):
    batch, dealing = game_batch(), [[6, 0, 8, 1, 3], [5, 2, 7, 4]]
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32, attn_implementation="eager").eval()
    log_prob, entropy, squares = transformers_log_probs(model, batch)
    budget = {"rollout.log_prob_use_dynamic_bsz": True, "rollout.log_prob_max_token_len_per_gpu": 60}
    ways = [{}, PACKED, budget, SHARED, BFLOAT16]
    for rank, results in enumerate(run_ranks(log_probs_and_weights, 2, model_path, dealing, ways)):
        (rough, half_weights), results = results[-1], results[:-1]
        assert 0 < np.abs(rough["log"] - log_prob[dealing[rank]].numpy()).mean() < 0.05  # computed in bfloat16 ...
        for name, weight in results[0][1].items():
            np.testing.assert_array_equal(half_weights[name], weight)  # ... over float32 weights
        for found, weights in results:
            np.testing.assert_allclose(found["log"], log_prob[dealing[rank]], atol=2e-5)
            np.testing.assert_allclose(found["entropy"], entropy[dealing[rank]], atol=2e-5)
            np.testing.assert_allclose(found["ref"], log_prob[dealing[rank]], atol=2e-5)
            np.testing.assert_allclose(found["squares"], squares[dealing[rank]], atol=2e-5)
            expected = dict(model.named_parameters())  # tied weights are named once
            assert weights.keys() == expected.keys()
            for name, weight in expected.items():
                np.testing.assert_array_equal(weights[name], weight.detach().numpy(), err_msg=name)


def lora_steps(rank: int, path: str, dealing):
    config = worker_config(path, **{"model.lora_rank": 4, "model.lora_alpha": 8, "model.target_modules": ["q_proj", "down_proj"]})
    worker = ActorRolloutRefWorker(config, "actor_rollout_ref")
    worker.init_model()
    batch = game_batch()
    batch["rollout_log_probs"] = torch.zeros_like(batch["advantages"])
    share = to_share(batch, dealing[rank], [0] * 9, 1)
    metrics = [worker.update_actor(share).meta_info["metrics"]]
    reference = worker.compute_ref_log_prob(share).batch["ref_log_prob"]
    metrics.append(worker.update_actor(share).meta_info["metrics"])
    policy = worker.compute_log_prob(share).batch["old_log_probs"]
    adapters = {}
    worker.trained.module.reshard()
    for name, parameter in worker.trained.module.named_parameters():
        if parameter.requires_grad:
            adapters[name] = parameter.full_tensor().detach().numpy()
    return {
        "metrics": metrics,
        "ref": reference.numpy(),
        "log": policy.numpy(),
        "adapters": adapters,
        "weights": numpy_weights(worker),
    }


def test_lora_trains_adapters_alone_and_hands_over_merged_weights(untied_path):
    batch, dealing = game_batch(), [[6, 0, 8, 1, 3], [5, 2, 7, 4]]
    model = AutoModelForCausalLM.from_pretrained(untied_path, dtype=torch.float32)
    base_log_prob, *_ = transformers_log_probs(copy.deepcopy(model).eval(), batch)
    results = run_ranks(lora_steps, 2, untied_path, dealing)

    adapters = results[0]["adapters"]
    assert len(adapters) == 8 and all("lora_" in name for name in adapters)
    peft_model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], lora_dropout=0.0))
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.from_numpy(adapters[name]))
    assert max(float(p.detach().abs().max()) for name, p in peft_model.named_parameters() if "lora_B" in name) > 0
    merged = peft_model.merge_and_unload().eval()
    log_prob, *_ = transformers_log_probs(merged, batch)

    for rank, result in enumerate(results):
        np.testing.assert_allclose(result["ref"], base_log_prob[dealing[rank]], atol=2e-5)
        np.testing.assert_allclose(result["log"], log_prob[dealing[rank]], atol=5e-5)
        for name, parameter in merged.named_parameters():
            np.testing.assert_allclose(result["weights"][name], parameter.detach().numpy(), atol=1e-6, err_msg=name)
        # exactly on-policy: no old log-probabilities, ratio 1; the engine's (here all 0) are compared with the trainer's
        first = result["metrics"][0]
        assert first["actor/ppo_kl"] == 0 and first["actor/pg_clipfrac"] == 0
        gaps = base_log_prob.abs()[batch["response_mask"]]
        assert first["rollout/logprob_diff_max"] == pytest.approx(float(gaps.max()), rel=1e-4)
        assert first["rollout/logprob_diff_mean"] == pytest.approx(float(gaps.mean()), rel=1e-4)


def critic_config(path: str, **changes):
    config = worker_config(path, **changes)
    return OmegaConf.create(
        {
            "model": {**config.model, "fsdp_config": {"reshard_after_forward": True}}, "use_dynamic_bsz": False,
            "ppo_micro_batch_size_per_gpu": 2,
            "ppo_epochs": 2, "grad_clip": 0.5, "cliprange_value": 0.5, "loss_agg_mode": "token-mean",
            "optim": {"lr": 1e-2, "weight_decay": 0.01},
        }
    )  # fmt: skip


def critic_steps(rank: int, path: str, dealing):
    worker = CriticWorker(critic_config(path))
    worker.init_model()
    batch = game_batch()
    batch["values"] = 0.3 * batch["returns"]
    share = to_share(batch, dealing[rank], [0] * 9, 1)
    before = worker.compute_values(share).batch["values"]
    metrics = worker.update_critic(share).meta_info["metrics"]
    adapted = CriticWorker(critic_config(path, **{"model.lora_rank": 4, "model.target_modules": "all-linear"}))
    adapted.init_model()
    frozen = {name: p.full_tensor().clone() for name, p in adapted.trained.module.named_parameters() if not p.requires_grad}
    adapted.update_critic(share)
    now = dict(adapted.trained.module.named_parameters())
    moved = [name for name, weight in frozen.items() if not now[name].full_tensor().equal(weight)]
    trained = sorted(name for name, p in now.items() if p.requires_grad)
    return {
        "moved": moved,
        "trained": trained,
        "before": before.numpy(),
        "after": worker.compute_values(share).batch["values"].numpy(),
        "metrics": metrics,
    }


def test_critic_agrees_with_a_bare_value_model(untied_path):
    batch, dealing = game_batch(), [[6, 0, 8, 1, 3], [5, 2, 7, 4]]
    mask = batch["response_mask"]
    model = AutoModelForTokenClassification.from_pretrained(untied_path, num_labels=1, dtype=torch.float32).eval()
    for parameter in model.score.parameters():
        torch.nn.init.zeros_(parameter)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)
    old = 0.3 * batch["returns"]
    losses, norms = [], []
    for _ in range(2):
        values = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1, 0]
        clipped = old + (values - old).clamp(-0.5, 0.5)
        loss = 0.5 * torch.maximum((values - batch["returns"]) ** 2, (clipped - batch["returns"]) ** 2)[mask].mean()
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)))
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        after = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1, 0] * mask
    for rank, result in enumerate(run_ranks(critic_steps, 2, untied_path, dealing)):
        assert np.abs(result["before"]).max() == 0
        assert result["moved"] == [] and sum("lora_" in name for name in result["trained"]) == 2 * 2 * 7
        whole = [name.removeprefix("base_model.model.") for name in result["trained"] if "lora_" not in name]
        assert whole == ["score.bias", "score.weight"]
        assert result["metrics"]["critic/vf_loss"] == pytest.approx(sum(losses) / 2, rel=1e-4)
        assert result["metrics"]["critic/grad_norm"] == pytest.approx(sum(norms) / 2, rel=1e-4)
        np.testing.assert_allclose(result["after"], after[dealing[rank]], atol=1e-4)


def single_rank_faults(rank: int, path: str) -> dict:
    """What the worker says to bad batches, and that a step without a finite gradient leaves the weights alone."""
    worker = ActorRolloutRefWorker(worker_config(path), "actor")
    worker.init_model()
    said = {}
    batch = game_batch()
    left_padded = {**batch, "attention_mask": batch["attention_mask"].flip(1)}
    for name, case, count in (("off-policy", batch, 2), ("left", left_padded, 1)):
        try:
            worker.update_actor(to_share(case, range(9), [0] * 9, count))
        except ValueError as error:
            said[name] = str(error)
    weights = numpy_weights(worker)
    broken = {**batch, "advantages": torch.where(batch["response_mask"], torch.inf, 0.0)}
    metrics = worker.update_actor(to_share(broken, range(9), [0] * 9, 1)).meta_info["metrics"]
    said["skipped"] = metrics["actor/skipped_steps"]
    said["unchanged"] = all(np.array_equal(weights[name], weight) for name, weight in numpy_weights(worker).items())
    empty = {**batch, "response_mask": torch.zeros_like(batch["response_mask"])}
    said["nothing to train"] = worker.update_actor(to_share(empty, range(9), [0] * 9, 1)).meta_info["metrics"]["actor/grad_norm"]
    try:
        ActorRolloutRefWorker(worker_config("/no/such/model"), "actor").init_model()
    except ValueError as error:
        said["path"] = str(error)
    return said


def test_bad_batches_and_paths_are_named(untied_path):
    said = run_ranks(single_rank_faults, 1, untied_path)[0]
    assert "old_log_probs" in said["off-policy"] and "ppo_epochs" in said["off-policy"]
    assert "RIGHT padded" in said["left"]
    assert said["skipped"] == 1 and said["unchanged"]
    assert said["nothing to train"] == 0
    assert "actor_rollout_ref.model.path='/no/such/model'" in said["path"] and "Give an existing" in said["path"]
