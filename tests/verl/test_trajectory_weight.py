"""A trajectory has one weight in the loss, whether its turns are one row or a row each: same loss, same gradient."""

import numpy as np
import pytest
import torch
from training_cases import VOCAB, save_tiny_model, worker_config
from transformers import AutoModelForCausalLM

from verl.protocol import DataProto
from verl.trainer.ppo.aggregation import LOSS_AGG_MODES, agg_loss, agg_seq_loss
from verl.workers.actor.dp_actor import DataParallelPPOActor
from verl.workers.critic.dp_critic import DataParallelPPOCritic

#: turns of each trajectory: (tokens read, tokens sampled)
GAMES = [[(4, 2), (3, 5), (2, 1)], [(5, 3)], [(2, 7), (4, 1)]]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def rows_of(by_turn: bool, keys: dict[str, float]) -> DataProto:
    """The games as rows; a row a turn repeats all that came before it, so that every token has the same context."""
    noise = np.random.default_rng(5)
    rows = []
    for i, turns in enumerate(GAMES):
        ids, ranges = [], []
        for read, sampled in turns:
            ids += noise.integers(1, VOCAB, read + sampled).tolist()
            ranges.append((len(ids) - sampled, len(ids)))
        values = {key: noise.normal(size=len(ids)) * scale for key, scale in keys.items()}
        for part in [[r] for r in ranges] if by_turn else [ranges]:
            mask = np.zeros(len(ids), dtype=bool)
            for start, end in part:
                mask[start:end] = True
            end = part[-1][1]
            rows.append((i, ids[:end], mask[:end], {key: v[:end] for key, v in values.items()}))
    width = max(len(ids) for _, ids, _, _ in rows)

    def padded(of, dtype):
        out = torch.zeros(len(rows), width, dtype=dtype)
        for k, row in enumerate(rows):
            out[k, : len(row[1])] = torch.as_tensor(of(row)).to(dtype)
        return out

    tensors = {
        "input_ids": padded(lambda row: row[1], torch.long),
        "attention_mask": padded(lambda row: np.ones(len(row[1])), torch.long),
        "response_mask": padded(lambda row: row[2], torch.bool)[:, 1:],
        **{key: padded(lambda row, key=key: row[3][key], torch.float32)[:, 1:] for key in keys},
    }
    return DataProto.from_dict(tensors=tensors, non_tensors={"traj_id": np.array([i for i, *_ in rows])}, meta_info={"loss_scale_factor": 40})


def updated(path: str, batch: DataProto, mode: str, loss: str, max_tokens: int):
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attention_dropout=0.0)
    config = worker_config(path).actor
    config.update({"loss_agg_mode": mode, "use_dynamic_bsz": True, "ppo_max_token_len_per_gpu": max_tokens, "use_kl_loss": True})
    config.policy_loss.loss_mode = loss
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    metrics = DataParallelPPOActor(config, model, optimizer).update_policy(batch)
    return metrics, {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("mode", LOSS_AGG_MODES)
@pytest.mark.parametrize("loss", ["vanilla", "cispo", "sapo"])
def test_the_update_is_the_same_with_a_row_a_trajectory_and_a_row_a_turn(model_path, mode, loss):
    keys = {"advantages": 1.0, "old_log_probs": 1.0, "ref_log_prob": 1.0}
    whole, weights = updated(model_path, rows_of(False, keys), mode, loss, 1000)
    for max_tokens in (1000, 20):  # all rows together, and turns of one trajectory in different micro-batches
        found, by_turn = updated(model_path, rows_of(True, keys), mode, loss, max_tokens)
        for name in ("actor/pg_loss", "actor/kl_loss", "actor/entropy", "actor/grad_norm"):
            assert found[name] == pytest.approx(whole[name], rel=1e-4), name
        for name, weight in weights.items():
            torch.testing.assert_close(by_turn[name], weight, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", LOSS_AGG_MODES)
def test_the_critic_weighs_trajectories_the_same_way(model_path, mode):
    found = []
    for by_turn in (False, True):
        torch.manual_seed(0)
        from transformers import AutoModelForTokenClassification

        model = AutoModelForTokenClassification.from_pretrained(model_path, num_labels=1, dtype=torch.float32, attention_dropout=0.0)
        config = {"loss_agg_mode": mode, "use_dynamic_bsz": True, "ppo_max_token_len_per_gpu": 1000, "ppo_epochs": 1, "grad_clip": 9.0, "cliprange_value": 0.5}
        critic = DataParallelPPOCritic(config, model, torch.optim.SGD(model.parameters(), lr=0.1))
        metrics = critic.update_critic(rows_of(by_turn, {"values": 1.0, "returns": 1.0}))
        found.append((metrics["critic/vf_loss"], metrics["critic/grad_norm"]))
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_each_trajectory_weighs_over_its_own_length():
    """seq-mean-token-mean by hand: the paper's equation 5, which the reference reaches with micro-batches of one."""
    losses = torch.tensor([[3.0, 3.0, 9.0], [6.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 0, 0]])
    of_two_rows = agg_loss(losses, mask, "seq-mean-token-mean", sequence_tokens=torch.tensor([3, 3, 1]))
    assert float(of_two_rows) == pytest.approx(((3 + 3 + 6) / 3 + 2) / 2)
    micro_batches_of_one = torch.stack([agg_loss(x[None], m[None], "token-mean") for x, m in [(torch.tensor([3.0, 3.0, 6.0]), torch.ones(3)), (losses[2], mask[2])]])
    assert float(micro_batches_of_one.mean()) == pytest.approx(float(of_two_rows))


def test_a_piece_of_a_sequence_weighs_by_its_share():
    losses, mask = torch.tensor([4.0, 8.0, 1.0]), torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]])
    whole = agg_seq_loss(losses, mask, sequence_tokens=torch.tensor([4, 4, 2]))
    assert float(whole) == pytest.approx((4.0 * 3 / 4 + 8.0 / 4 + 1.0) / 2)
    counts = {"global_batch_size": 2}
    parts = [agg_seq_loss(losses[k], mask[k], sequence_tokens=torch.tensor([4, 4, 2])[k], **counts) for k in (slice(0, 1), slice(1, 3))]
    assert float(sum(parts)) == pytest.approx(float(whole))
