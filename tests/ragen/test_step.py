"""What happens between episodes and the update: dealing, batches, credit, mini-batches, memory."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragen.llm_agent.batch import build_batch
from ragen.llm_agent.es_manager import build_env, deal_groups, deal_to_ranks, read_tags
from ragen.llm_agent.trajectory import Sample, Trajectory, Turn
from ragen.trainer import update_batch
from ragen.trainer.config import compose, plain
from ragen.trainer.credit import compute_advantages
from ragen.trainer.difficulty import DifficultyMemory
from ragen.trainer.play_orders import play_orders
from ragen.trainer.rollout_metrics import rollout_metrics, task_metrics
from ragen.trainer.schedule import cst_position, plays_of_step

LAPTOP_TAGS = read_tags(plain(compose("_0_laptop"))["custom_envs"], "train")
TAGS = read_tags({name: {"env_type": "tictactoe", "env_config": {}} for name in "AB"}, "train")


def trajectory(group, member, reward, *, turns=1, samples=1, tag="A", agent=0, length=6, status="finished"):
    """``samples`` sequences of ``turns`` turns; the reward lies on the last turn."""
    made = []
    for s in range(samples):
        sample = Sample()
        for k in range(turns):
            sample.ids += [3] * length + [5, 6]
            sample.mask += [False] * length + [True, True]
            sample.logprobs += [0.0] * length + [-0.7, -0.1]
            last = s == samples - 1 and k == turns - 1
            sample.turns.append(Turn(len(sample.ids) - 2, len(sample.ids), "r", reward=reward if last else 0.0))
        made.append(sample)
    return Trajectory(tag, group, member, agent, seed=group, seat=0, role="O", samples=made, reward=reward, success=reward > 0.5, status=status)


def laptop(*overrides):
    return compose("_0_laptop", overrides)


# -- dealing ----------------------------------------------------------------------------------


def test_groups_share_a_seed_and_steps_do_not():
    seen = set()
    for step in (1, 2, 3):
        groups = deal_groups(base_seed=1, phase="train", step=step, tags=TAGS, plays=[("A", 3), ("B", 2)], group_size=4)
        assert [g[0].tag for g in groups] == ["A"] * 3 + ["B"] * 2
        for index, group in enumerate(groups):
            assert len({s.seed for s in group}) == 1
            assert [(s.group, s.member) for s in group] == [(index, m) for m in range(4)]
            seen.add(group[0].seed)
    assert len(seen) == 15


def test_validation_plays_the_same_games_every_time_and_none_of_training():
    deal = lambda phase, step: [  # noqa: E731
        g[0].seed for g in deal_groups(base_seed=1, phase=phase, step=step, tags=TAGS, plays=[("A", 50)], group_size=1)
    ]
    assert deal("val", 0) == deal("val", 70)
    assert not set(deal("val", 0)) & {s for step in range(20) for s in deal("train", step)}


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_whole_groups_go_to_the_ranks(ranks):
    groups = deal_groups(base_seed=1, phase="train", step=1, tags=TAGS, plays=[("A", 4), ("B", 4)], group_size=3)
    shares = deal_to_ranks(groups, ranks)
    assert sorted((s.group, s.member) for share in shares for s in share) == [(g, m) for g in range(8) for m in range(3)]
    owners = {s.group: {r for r, share in enumerate(shares) if any(x.group == s.group for x in share)} for g in groups for s in g}
    assert all(len(o) == 1 for o in owners.values())
    assert max(map(len, shares)) - min(map(len, shares)) <= 3


# -- credit -----------------------------------------------------------------------------------


def grpo_by_hand(rewards: np.ndarray) -> np.ndarray:
    return (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-6)


@pytest.mark.parametrize("samples", [1, 3])
def test_grpo_is_the_formula_whether_a_trajectory_is_one_sample_or_one_a_turn(samples):
    rewards = np.array([1.0, 0.0, 0.5, -0.1])
    batch = build_batch([trajectory(0, m, r, turns=2, samples=samples) for m, r in enumerate(rewards)], 0)
    batch, _ = compute_advantages(batch, laptop(), None, {})
    for row in range(len(batch)):
        mask = batch.batch["response_mask"][row]
        wanted = grpo_by_hand(rewards)[batch.non_tensor_batch["traj_id"][row]]
        assert batch.batch["advantages"][row][mask].tolist() == pytest.approx([wanted] * int(mask.sum()), abs=1e-5)
        assert not batch.batch["advantages"][row][~mask].any()


def test_agents_of_self_play_are_compared_with_their_own_kind():
    rewards = {(m, a): float(m == a) for m in (0, 1) for a in (0, 1)}
    batch = build_batch([trajectory(0, m, r, agent=a) for (m, a), r in sorted(rewards.items())], 0)
    batch, _ = compute_advantages(batch, laptop(), None, {})
    for row, (m, a) in enumerate(zip(batch.non_tensor_batch["member"], batch.non_tensor_batch["agent"], strict=True)):
        assert np.sign(batch.batch["advantages"][row].sum()) == (1 if m == a else -1)


@pytest.mark.parametrize("method", ["mean", "mean_std", "asym_clip"])
@pytest.mark.parametrize("grouping", ["state", "inductive", "batch"])
def test_reward_normalisation(method, grouping):
    rewards = [3.0, 1.0, 0.0, 8.0, 2.0, 2.0]
    trajectories = [trajectory(i // 2, i % 2, r, tag="AAB"[i // 2]) for i, r in enumerate(rewards)]
    batch = build_batch(trajectories, 0)
    config = laptop(f"agent_proxy.reward_normalization.method={method}", f"agent_proxy.reward_normalization.grouping={grouping}")
    batch, _ = compute_advantages(batch, config, None, {})
    found = batch.batch["token_level_rewards"].sum(-1).numpy()
    parts = {"state": [[0, 1], [2, 3], [4, 5]], "inductive": [[0, 1, 2, 3], [4, 5]], "batch": [list(range(6))]}[grouping]
    for part in parts:
        x = np.array(rewards)[part]
        wanted = x - x.mean()
        if method != "mean":  # RAGEN divides by torch's deviation, the unbiased one
            deviation = float(torch.tensor(x).std())
            wanted = wanted / (deviation + 1e-6)
        if method == "asym_clip":
            wanted = wanted.clip(-1, 3)
        assert found[part] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("samples", [1, 3])
def test_without_turn_scores_a_whole_reward_stands_on_the_last_turn(samples):
    made = trajectory(0, 0, 1.0, turns=2, samples=samples)
    made.samples[0].turns[0].reward = 0.25
    batch = build_batch([made, trajectory(0, 1, -1.0, turns=1)], 0)
    before = batch.batch["token_level_scores"].clone()
    batch, _ = compute_advantages(batch, laptop("agent_proxy.use_turn_scores=false"), None, {})
    scores, rows = batch.batch["token_level_rewards"], list(batch.non_tensor_batch["traj_id"])
    last = len(rows) - 1 - rows[::-1].index(0)
    assert (before != 0).sum() == 3 and (scores != 0).sum() == 2
    end = int(batch.batch["response_mask"][last].nonzero()[-1])
    assert scores[last, end] == 1.25 and scores.sum() == before.sum()
    kept, _ = compute_advantages(build_batch([made, trajectory(0, 1, -1.0)], 0), laptop(), None, {})
    assert (kept.batch["token_level_scores"] != 0).sum() == 3


def test_sampling_has_a_seed_of_its_own_where_one_is_given():
    def orders(phase, *overrides):
        return play_orders(laptop("seed.train=7", *overrides), phase, 2, tags=TAGS | LAPTOP_TAGS, ranks=1, success_rates={})[0]

    plain, own = orders("train"), orders("train", "actor_rollout_ref.rollout.seed=5")
    assert plain.sampling.run_key == (7, "train", 2) and own.sampling.run_key == (5, "train", 2)
    assert [s.seed for s in plain.specs] == [s.seed for s in own.specs]  # the games are the same
    assert orders("val", "actor_rollout_ref.rollout.seed=5").sampling.run_key == (5, "val", 0)


# -- mini-batches -----------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(3, 60), min_size=1, max_size=24), ranks=st.integers(1, 4), size=st.integers(1, 30),
    shuffle=st.booleans(), samples=st.integers(1, 2),
)  # fmt: skip
def test_every_row_goes_to_one_rank_in_one_mini_batch_counted_in_trajectories(lengths, ranks, size, shuffle, samples):
    batch = build_batch([trajectory(0, i, 1.0, length=n, samples=samples) for i, n in enumerate(lengths)], 0)
    key = (1, "x") if shuffle else None
    shares, metrics = update_batch.deal_to_ranks(batch, ranks=ranks, mini_batch_size=size, shuffle_key=key)
    assert len(shares) == ranks and metrics["perf/balance"] >= 1
    where = {}
    for share in shares:
        for i, index in zip(share.non_tensor_batch["traj_id"], share.batch["mini_batch"].tolist(), strict=True):
            where.setdefault(int(i), []).append(index)
    assert sorted(where) == list(range(len(lengths))) and all(len(v) == samples and len(set(v)) == 1 for v in where.values())
    sizes = np.bincount([v[0] for v in where.values()])
    assert len(sizes) == update_batch.count_mini_batches(len(lengths), size)
    assert all(s == size for s in sizes[:-1]) and 1 <= sizes[-1] <= size
    again, _ = update_batch.deal_to_ranks(batch, ranks=ranks, mini_batch_size=size, shuffle_key=key)
    assert all(torch.equal(a.batch["input_ids"], b.batch["input_ids"]) for a, b in zip(shares, again, strict=True))


def test_unbalanced_ranks_get_trajectories_in_order():
    batch = build_batch([trajectory(0, i, 1.0, length=40 if i == 0 else 3) for i in range(7)], 0)
    shares, metrics = update_batch.deal_to_ranks(batch, ranks=2, mini_batch_size=4, balance=False)
    dealt = [list(zip(s.non_tensor_batch["traj_id"], s.batch["mini_batch"].tolist(), strict=True)) for s in shares]
    assert dealt == [[(0, 0), (1, 0), (4, 1), (5, 1)], [(2, 0), (3, 0), (6, 1)]]
    _, balanced = update_batch.deal_to_ranks(batch, ranks=2, mini_batch_size=4)
    assert metrics["perf/balance"] > balanced["perf/balance"]


# -- schedule, metrics, memory ----------------------------------------------------------------


def test_cst_plays_one_task_by_the_step_number():
    assert [cst_position(s, [2, 1, 3]) for s in range(1, 13)] == [0, 0, 1, 2, 2, 2] * 2
    config = {"es_manager": {"train": {"env_groups": 8}}, "schedule": {"type": "cst", "tags": ["A", "B"], "k_list": [4, 4]}}
    assert [plays_of_step(config, s)[0] for s in (1, 4, 5, 8, 9)] == [("A", 8), ("A", 8), ("B", 8), ("B", 8), ("A", 8)]


def test_aborted_episodes_are_counted_and_never_scored():
    found = task_metrics([trajectory(0, 0, 1.0), trajectory(0, 1, 0.0, status="aborted")], "train")
    assert found["train/A/success"] == 1.0 and found["train/A/aborted"] == 0.5
    everywhere = rollout_metrics([trajectory(0, 0, 1.0), trajectory(0, 1, 0.0, status="aborted")])
    assert everywhere["rollout/reward_mean"] == 1.0 and everywhere["rollout/aborted"] == 0.5
    with pytest.raises(ValueError, match="aborted"):
        build_batch([trajectory(0, 0, 1.0, status="aborted")], 0)


def nest_episode(tag, value, name="0_nash_new"):
    t = trajectory(0, 0, value)
    t.tag, t.metrics = tag, {f"sub/{name}/success": value}
    return t


def test_difficulty_memory_is_frozen_between_refreshes_and_survives_a_checkpoint():
    memory = DifficultyMemory({"N": (4, 2)})
    memory.record([nest_episode("N", 1.0)] * 4, step=1)
    assert memory.rates() == {"N": {}}
    memory.record([nest_episode("N", 0.0)] * 2, step=2)
    assert memory.rates() == {"N": {"0_nash_new": 0.5}}  # the last four of six
    twin = DifficultyMemory({"N": (4, 2)})
    twin.load_state_dict(json.loads(json.dumps(memory.state_dict())))
    for m in (memory, twin):
        m.record([nest_episode("N", 1.0)], step=4)
    assert memory.rates() == twin.rates() == {"N": {"0_nash_new": 0.5}}


def test_nests_remember_apart_each_by_its_own_knobs():
    """Two nests whose sub-tasks have the same names; a third that does not weigh by difficulty."""
    sub = {"env_type": "nash_new"}
    inner = {"env_type": "compose_new", "env_config": {"base_env_list": [sub], "reward_improve": True, "max_num": 6, "k": 4}}
    tags = read_tags({
        "Easy": {"env_type": "compose_new", "env_config": {"base_env_list": [sub, sub], "reward_improve": True, "max_num": 2, "k": 2}},
        "Hard": {"env_type": "compose_new", "env_config": {"base_env_list": [sub, sub], "reward_improve": True, "max_num": 8, "k": 4}},
        "Plain": {"env_type": "compose_new", "env_config": {"base_env_list": [sub, sub]}},
        "Outer": {"env_type": "compose_new", "env_config": {"base_env_list": [inner, sub]}},
    }, "train")  # fmt: skip
    memory = DifficultyMemory.from_tags(tags)
    step = [nest_episode("Easy", v) for v in (0.0, 1.0, 1.0)] + [nest_episode("Hard", v) for v in (0.0, 0.0, 0.0, 1.0)] + [nest_episode("Plain", 1.0)]
    memory.record(step + [nest_episode("Outer", 1.0, "0_compose_new/sub/0_nash_new")], step=2)
    assert memory.rates() == {"Easy": {"0_nash_new": 1.0}, "Hard": {}, "Outer": {}}
    memory.record([], step=4)
    assert memory.rates() == {"Easy": {"0_nash_new": 1.0}, "Hard": {"0_nash_new": 0.25}, "Outer": {"0_compose_new/sub/0_nash_new": 1.0}}
    rates = memory.rates()
    assert build_env(tags["Hard"], rates["Hard"]).success_rates == {"0_nash_new": 0.25}
    assert build_env(tags["Outer"], rates["Outer"]).envs[0].success_rates == {"0_nash_new": 1.0}
    older = {"results": {"0_nash_new": [1.0, 1.0]}, "rates": {"0_nash_new": 1.0}}  # of a checkpoint in which nests shared one memory
    memory.load_state_dict(older)
    assert memory.rates() == {"Easy": {}, "Hard": {}, "Outer": {}}  # whose results those were it does not say


def test_episodes_of_self_play_are_counted_once():
    both = [trajectory(0, 0, 1.0), trajectory(0, 0, 0.0), trajectory(0, 1, 0.0), trajectory(0, 1, 1.0)]
    for place, t in enumerate(both):
        t.agent = place % 2
    assert task_metrics(both, "train")["train/A/episodes"] == 2.0 == rollout_metrics(both)["rollout/episodes"]
