"""The sharded policy update against a bare PyTorch loop over transformers' own logits: same loss, gradient norm, weights."""

import numpy as np
import pytest
import torch
from training_cases import game_batch, numpy_weights, run_ranks, save_tiny_model, to_share, worker_config
from transformers import AutoModelForCausalLM

from verl.workers.fsdp_workers import ActorRolloutRefWorker

STEPS, ROWS, MINI_BATCHES, LR = 3, 9, 2, 1e-3
TEMPERATURE, LOW, HIGH, ENTROPY, KL = 0.7, 0.2, 0.28, 0.01, 0.1


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def batches(path: str) -> list[dict]:
    """Batches whose old and reference log-probabilities are the model's first ones and noise: some ratios are clipped."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    made = []
    for step in range(STEPS):
        batch = game_batch(ROWS, seed=step)
        with torch.no_grad():
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1] / TEMPERATURE
        log_prob = logits.log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
        noise = torch.Generator().manual_seed(step)
        for key in ("old_log_probs", "ref_log_prob"):
            batch[key] = log_prob + 0.3 * torch.randn(log_prob.shape, generator=noise)
        made.append(batch)
    return made


def bare_update(path: str) -> tuple[list[dict], dict]:
    """The same steps in plain PyTorch, a whole mini-batch at once, from the formulas."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01, fused=False, foreach=False)
    reports = []
    for batch in batches(path):
        report = {
            "actor/pg_loss": 0.0,
            "actor/kl_loss": 0.0,
            "actor/entropy": 0.0,
            "actor/grad_norm": 0.0,
            "actor/pg_clipfrac": 0.0,
        }
        for mini in range(MINI_BATCHES):
            rows = torch.arange(ROWS) % MINI_BATCHES == mini
            part = {name: tensor[rows] for name, tensor in batch.items()}
            mask = part["response_mask"]
            logits = model(input_ids=part["input_ids"], attention_mask=part["attention_mask"]).logits[:, :-1] / TEMPERATURE
            log_softmax = logits.log_softmax(-1)
            log_prob = log_softmax.gather(-1, part["input_ids"][:, 1:, None])[..., 0]
            entropy = -(log_softmax.exp() * log_softmax).sum(-1)
            ratio = (log_prob - part["old_log_probs"]).exp()
            advantage = part["advantages"]
            plain, clipped = -advantage * ratio, -advantage * ratio.clamp(1 - LOW, 1 + HIGH)
            pg = torch.maximum(plain, clipped)
            pg = torch.where(advantage < 0, torch.minimum(pg, -advantage * 3.0), pg)[mask].mean()
            gap = part["ref_log_prob"] - log_prob
            kl = (gap.exp() - gap - 1)[mask].mean()
            optimizer.zero_grad()
            (pg - ENTROPY * entropy[mask].mean() + KL * kl).backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            shares = (pg, kl, entropy[mask].mean(), norm, (clipped > plain)[mask].float().mean())
            for name, value in zip(report, shares, strict=True):
                report[name] += float(value.detach()) / MINI_BATCHES
        reports.append(report)
    return reports, {name: p.detach().numpy() for name, p in model.named_parameters()}


def sharded_update(rank: int, path: str, dealing: list[list[int]], changes: dict) -> tuple[list[dict], dict]:
    """The same steps by the worker; `dealing[rank]` are this rank's rows, in its own order."""
    worker = ActorRolloutRefWorker(worker_config(path, **changes), "actor")
    worker.init_model()
    mini_batch = torch.arange(ROWS) % MINI_BATCHES
    reports = []
    for batch in batches(path):
        share = to_share(batch, dealing[rank], mini_batch, MINI_BATCHES)
        reports.append(worker.update_actor(share).meta_info["metrics"])
    return reports, numpy_weights(worker)


def assert_same(found, expected) -> None:
    for report, right in zip(found[0], expected[0], strict=True):
        for name, value in right.items():
            assert report[name] == pytest.approx(value, rel=2e-4, abs=1e-6), name
    assert found[1].keys() == expected[1].keys()
    for name, weight in expected[1].items():
        np.testing.assert_allclose(found[1][name], weight, atol=2e-5, err_msg=name)


BASE = {"actor.use_kl_loss": True, "actor.optim.lr": LR}
ONE_RANK = {
    "one row a micro-batch": {"actor.ppo_micro_batch_size_per_gpu": 1},
    "all rows at once": {"actor.ppo_micro_batch_size_per_gpu": None},
    "token budget, whole parameters kept": {
        "actor.use_dynamic_bsz": True, "actor.ppo_max_token_len_per_gpu": 64, "actor.fsdp_config.reshard_after_forward": False,
    },
    "packed, checkpointed, blocks under the root": {
        "model.use_remove_padding": True, "model.override_config": {"attn_implementation": "torch_varlen"},
        "model.enable_gradient_checkpointing": True, "actor.fsdp_config.wrap_policy.min_num_params": 10**6,
    },
    "shared prompts": {"actor.use_prefix_grouper": True, "actor.use_dynamic_bsz": True, "actor.ppo_max_token_len_per_gpu": 100},
}  # fmt: skip


@pytest.fixture(scope="module")
def expected(model_path):
    return bare_update(model_path)


def several_ways(rank: int, path: str, dealing, ways: list[dict]):
    return [sharded_update(rank, path, dealing, {**BASE, **changes}) for changes in ways]


def test_one_rank_agrees_with_bare_pytorch_however_the_batch_is_cut(model_path, expected):
    order = [8, 3, 0, 5, 1, 7, 2, 6, 4]
    for result in run_ranks(several_ways, 1, model_path, [order], list(ONE_RANK.values()))[0]:
        assert_same(result, expected)


def test_two_ranks_agree_with_bare_pytorch(model_path, expected):
    dealing = [[0, 1, 2, 3, 8, 6], [7, 5, 4]]  # uneven shares of both mini-batches
    ways = [{}, {"actor.fsdp_config.reshard_after_forward": False, "actor.ppo_micro_batch_size_per_gpu": 2}]
    for results in run_ranks(several_ways, 2, model_path, dealing, ways):
        for result in results:
            assert_same(result, expected)


def test_three_ranks_one_of_them_empty_agree_with_bare_pytorch(model_path, expected):
    dealing = [[4, 2, 0, 8], [], [1, 3, 5, 7, 6]]  # rank 0 has mini-batch 0 alone
    ways = [{"actor.ppo_micro_batch_size_per_gpu": 1}]
    for results in run_ranks(several_ways, 3, model_path, dealing, ways):
        assert_same(results[0], expected)


LOSS_OPTIONS = {
    "dro": {"dro_beta": 0.1},
    "bypass_mode": {"rollout_correction": {"loss_type": "reinforce", "rollout_is": "token", "rollout_rs": "token_k1", "rollout_rs_threshold": 1.3}},
}


def every_loss(rank: int, path: str, dealing: list[list[int]], cuts: list[dict]) -> dict:
    """Loss and gradient norm of every policy loss and aggregation, for each way of cutting; the weights stay (lr 0)."""
    from verl.trainer.ppo.core_algos import LOSS_AGG_MODES, POLICY_LOSS_REGISTRY, add_cov_selected

    found = {}
    for number, cut in enumerate(cuts):
        worker = ActorRolloutRefWorker(worker_config(path, **{"actor.optim.lr": 0.0, **cut}), "actor")
        worker.init_model()
        for loss, mode in [(loss, "token-mean") for loss in sorted(POLICY_LOSS_REGISTRY)] + [
            ("vanilla", m) for m in LOSS_AGG_MODES
        ]:
            worker.actor.config.policy_loss = {"loss_mode": loss, **LOSS_OPTIONS.get(loss, {})}
            worker.actor.config.loss_agg_mode = mode
            whole = to_share(batches(path)[0], range(ROWS), [0] * ROWS, 1)
            whole = add_cov_selected(whole, worker.actor.config, seed=0)
            share = whole.select_idxs(torch.tensor(dealing[rank]))
            metrics = worker.update_actor(share).meta_info["metrics"]
            found[loss, mode, number] = [
                metrics[name] for name in ("actor/pg_loss", "actor/entropy", "actor/ppo_kl", "actor/grad_norm")
            ]
    return found


def test_no_loss_depends_on_how_the_batch_is_cut(model_path):
    cuts = [
        {"actor.ppo_micro_batch_size_per_gpu": 1},
        {"actor.use_prefix_grouper": True, "actor.ppo_micro_batch_size_per_gpu": None},
    ]
    one = run_ranks(every_loss, 1, model_path, [list(range(ROWS))], cuts)[0]
    two = run_ranks(every_loss, 2, model_path, [[8, 2, 3], [0, 1, 4, 5, 6, 7]], cuts[:1])[0]
    assert len({loss for loss, _, _ in one}) >= 11
    for (loss, mode, number), values in one.items():
        expected = one[loss, mode, 0]
        assert values == pytest.approx(expected, rel=1e-4, abs=1e-6), (loss, mode, number)
        assert two[loss, mode, 0] == pytest.approx(expected, rel=1e-4, abs=1e-6), (loss, mode)
        assert expected[3] > 0
