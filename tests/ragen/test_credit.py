"""Credit does not depend on how a trajectory was cut into samples: one for all turns, or one a turn (a window, a template
that strips thoughts). And what gives no signal is not trained on."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragen.llm_agent.batch import build_batch
from ragen.llm_agent.trajectory import Sample, Trajectory, Turn
from ragen.trainer.agent_trainer import AgentTrainer
from ragen.trainer.config import compose, validate_config
from ragen.trainer.credit import compute_advantages, rows_with_signal
from ragen.trainer.trajectory_rows import TrajectoryRows
from verl.protocol import DataProto
from verl.trainer.ppo.core_algos import get_kl_controller
from verl.trainer.ppo.registry import ADV_ESTIMATOR_REGISTRY
from verl.utils.verl_keys import ADV_ESTIMATORS, GROUP_ESTIMATORS, TOKEN_BASELINE_ESTIMATORS

#: columns by sampled token that credit may read, and what draws them
DRAWN = ("values", "ref_log_prob", "old_log_probs", "sum_pi_squared", "rollout_is_weights")
GREEDY = 0.3


def trajectory(group, member, turns, windowed, *, tag="A", role="O"):
    """``turns``: (prompt tokens, sampled tokens, reward) of each; windowed: a sample a turn."""
    samples, sample = [], Sample()
    for prompt, sampled, reward in turns:
        if windowed and sample.turns:
            samples.append(sample)
            sample = Sample()
        start = len(sample.ids) + prompt
        sample.ids += [1] * prompt + [2] * sampled
        sample.mask += [False] * prompt + [True] * sampled
        sample.logprobs += [0.0] * prompt + [-0.5] * sampled
        sample.turns.append(Turn(start, start + sampled, "r", reward=reward))
    samples.append(sample)
    total = sum(reward for _, _, reward in turns)
    return Trajectory(tag, group, member, 0, seed=group, seat=0, role=role, samples=samples, reward=total, success=total > 0.5)


def both_forms(games):
    """The batch with one sample a trajectory, and with one a turn; drawn columns are the same token by token."""
    for windowed in (False, True):
        batch = build_batch([trajectory(*game[:3], windowed, tag=game[3], role=game[4]) for game in games], 0)
        mask = batch.batch["response_mask"]
        noise = torch.Generator().manual_seed(7)
        # a trajectory's tokens lie in the same order in both forms
        draws = {name: torch.randn(int(mask.sum()), generator=noise) for name in DRAWN}
        for name, values in draws.items():
            column = torch.zeros(mask.shape)
            column[mask] = values
            batch.batch[name] = column
        batch.batch["reward_baselines"] = torch.full((len(mask),), GREEDY)
        yield batch


@functools.cache
def config_for(estimator, *overrides):
    return compose("_0_laptop", [f"algorithm.adv_estimator={estimator}", *overrides])


turn = st.tuples(st.integers(2, 6), st.integers(1, 5), st.sampled_from([0.0, -0.2, 0.0, 1.0, 0.4]))
game = st.lists(turn, min_size=1, max_size=4)


@pytest.mark.parametrize("estimator", ADV_ESTIMATORS)
@pytest.mark.parametrize(
    "overrides",
    [(), ("algorithm.gamma=0.9", "algorithm.lam=0.8", "algorithm.use_kl_in_reward=true", "agent_proxy.reward_normalization.method=mean_std")],
    ids=["plain", "discounted, KL in the reward, normalised"],
)
@settings(max_examples=12, deadline=None)
@given(games=st.lists(game, min_size=4, max_size=4))
def test_advantages_are_the_same_in_one_sample_and_in_a_sample_a_turn(estimator, overrides, games):
    dealt = [(i // 2, i % 2, turns, "AB"[i // 2], "OX"[i % 2]) for i, turns in enumerate(games)]
    config, found = config_for(estimator, *overrides), []
    for batch in both_forms(dealt):
        controller = get_kl_controller(config.algorithm.kl_ctrl)
        batch, metrics = compute_advantages(batch, config, controller, {})
        mask = batch.batch["response_mask"]
        found.append([batch.batch[name][mask] for name in ("advantages", "returns", "token_level_rewards")] + [metrics])
        assert not batch.batch["advantages"][~mask].any()
    for one, by_turn in zip(*found, strict=True):
        if isinstance(one, dict):
            assert one == by_turn
        else:
            assert torch.equal(one, by_turn)


def test_every_registered_estimator_is_compared():
    assert set(ADV_ESTIMATOR_REGISTRY) - set(ADV_ESTIMATORS) == set()


@pytest.mark.parametrize("estimator", ["gae", "bi_level_gae", "reinforce_plus_plus", "remax"])
def test_an_early_turn_is_credited_with_a_late_reward(estimator):
    """The plain formula, undiscounted, values 0: every token of the game earns what is still to come."""
    games = [(0, 0, [(3, 2, 0.0), (3, 3, 0.0), (3, 1, 1.0)], "A", "O"), (0, 1, [(3, 2, 0.5), (3, 2, 0.0)], "A", "O")]
    _, batch = both_forms(games)
    batch.batch["values"] = torch.zeros_like(batch.batch["values"])
    batch, _ = compute_advantages(batch, config_for(estimator, "algorithm.high_level_gamma=1.0"), None, {})
    still_to_come = torch.tensor([1.0] * 6 + [0.5] * 2 + [0.0] * 2)
    mask = batch.batch["response_mask"]
    torch.testing.assert_close(batch.batch["returns"][mask], still_to_come)


def test_a_length_weighted_baseline_counts_every_turn():
    """OPO: sum l r / sum l over all sampled tokens of each member, by hand."""
    games = [(0, 0, [(3, 30, 0.0), (3, 1, 2.0)], "A", "O"), (0, 1, [(3, 1, 0.0), (3, 8, 1.0)], "A", "O")]
    for batch in both_forms(games):
        batch, _ = compute_advantages(batch, config_for("opo"), None, {})
        baseline = (31 * 2.0 + 9 * 1.0) / 40
        for i, reward in enumerate((2.0, 1.0)):
            rows = torch.from_numpy(batch.non_tensor_batch["traj_id"] == i)
            found = batch.batch["advantages"][rows][batch.batch["response_mask"][rows]]
            torch.testing.assert_close(found, torch.full_like(found, reward - baseline))


def test_a_reward_whose_tokens_were_rejected_still_counts_in_its_group():
    one, by_turn = (batch for batch in both_forms([(0, 0, [(3, 2, 0.0), (3, 2, 1.0)], "A", "O"), (0, 1, [(3, 2, 0.0)], "A", "O")]))
    for batch in (one, by_turn):
        batch.batch["response_mask"] &= batch.batch["token_level_scores"] == 0  # the token that earned it
        batch, _ = compute_advantages(batch, config_for("grpo", "algorithm.norm_adv_by_std_in_grpo=false"), None, {})
        first = torch.from_numpy(batch.non_tensor_batch["traj_id"] == 0)
        found = batch.batch["advantages"][first][batch.batch["response_mask"][first]]
        torch.testing.assert_close(found, torch.full((3,), 0.5))


@settings(max_examples=100, deadline=None)
@given(games=st.lists(game, min_size=1, max_size=4), windowed=st.booleans(), data=st.data())
def test_joining_and_splitting_lose_no_token(games, windowed, data):
    batch = build_batch([trajectory(0, i, turns, windowed) for i, turns in enumerate(games)], 0)
    mask = batch.batch["response_mask"]
    column = torch.where(mask, torch.arange(1, mask.numel() + 1).reshape(mask.shape), 0)
    rows = TrajectoryRows(batch)
    joined = rows.join(column)
    assert torch.equal(rows.split(joined), column)
    for i, turns in enumerate(games):
        # one position between turns, none of the prompts
        assert int((joined[i] != 0).nonzero().max()) + 1 == sum(n for _, n, _ in turns) + len(turns) - 1
        tokens = joined[i][joined[i] != 0]
        assert torch.equal(tokens, tokens.sort().values)


# -- normalisation ----------------------------------------------------------------------------


def test_rewards_are_normalised_before_the_kl_penalty():
    """What the game paid is normalised; the penalty comes off afterwards, unscaled."""
    games = [(0, m, [(3, 2, reward)], "A", "O") for m, reward in enumerate((4.0, 1.0, 1.0))]
    batch, _ = both_forms(games)
    config = config_for("reinforce_plus_plus", "agent_proxy.reward_normalization.method=mean", "algorithm.use_kl_in_reward=true", "algorithm.kl_ctrl.kl_coef=0.5")
    kl = (batch.batch["old_log_probs"] - batch.batch["ref_log_prob"]).sum(-1)
    batch, _ = compute_advantages(batch, config, get_kl_controller(config.algorithm.kl_ctrl), {})
    torch.testing.assert_close(batch.batch["token_level_rewards"].sum(-1), torch.tensor([2.0, -1.0, -1.0]) - 0.5 * kl)
    torch.testing.assert_close(batch.batch["token_level_scores"].sum(-1), torch.tensor([4.0, 1.0, 1.0]))


# -- no signal --------------------------------------------------------------------------------


# (a token baseline is 0 by VeRL's definition where only the longest member still goes on)
@pytest.mark.parametrize("estimator", [name for name in GROUP_ESTIMATORS if name not in TOKEN_BASELINE_ESTIMATORS])
@settings(max_examples=20, deadline=None)
@given(reward=st.floats(-3, 3, width=32), members=st.integers(2, 7))
def test_members_that_earn_the_same_have_no_advantage_at_all(estimator, reward, members):
    """Not even a rounding error, which a division by a deviation of 0 would blow up."""
    games = [(0, m, [(3, 1 + m, reward)], "A", "O") for m in range(members)]
    batch, _ = both_forms(games)
    batch, _ = compute_advantages(batch, config_for(estimator), None, {})
    assert not batch.batch["advantages"].any()
    assert not rows_with_signal(batch, estimator).any()


@pytest.mark.parametrize("estimator", [name for name in GROUP_ESTIMATORS if name not in TOKEN_BASELINE_ESTIMATORS])
@pytest.mark.parametrize("method", ["identity", "mean_std"])
@settings(max_examples=20, deadline=None)
@given(total=st.integers(-9, 9), penalties=st.lists(st.lists(st.integers(-4, 4), max_size=3), min_size=2, max_size=5))
def test_members_that_earn_the_same_in_other_portions_have_no_advantage(estimator, method, total, penalties):
    """Portions in tenths add up to the same total, but for the rounding of float32."""
    turns = [[(3, 2, p / 10) for p in parts] + [(3, 1 + len(parts), (total - sum(parts)) / 10)] for parts in penalties]
    config = config_for(estimator, f"agent_proxy.reward_normalization.method={method}")
    for batch in both_forms([(0, m, game, "A", "O") for m, game in enumerate(turns)]):
        batch, _ = compute_advantages(batch, config, None, {})
        assert not rows_with_signal(batch, estimator).any()


@settings(max_examples=20, deadline=None)
@given(reward=st.floats(-3, 3, width=32), lengths=st.lists(st.integers(1, 40), min_size=2, max_size=9))
def test_whitening_equal_returns_leaves_nothing(reward, lengths):
    batch, _ = both_forms([(i // 2, i % 2, [(3, n, reward)], "A", "O") for i, n in enumerate(lengths)])
    batch, _ = compute_advantages(batch, config_for("reinforce_plus_plus"), None, {})
    assert not batch.batch["advantages"].any()
    assert not rows_with_signal(batch, "reinforce_plus_plus").any()


@settings(max_examples=20, deadline=None)
@given(later=st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_a_greedy_baseline_earned_in_other_portions_leaves_no_signal(later):
    """The greedy episode earned in one turn what the first token of this one expects."""
    batch, _ = both_forms([(0, 0, [(3, 1, 0.0)] + [(3, 1, part / 10) for part in later], "A", "O")])
    batch.batch["response_mask"][:, (batch.batch["turn_index"] > 0)[0]] = False  # only the first turn is trained
    batch.batch["reward_baselines"] = torch.tensor([sum(later) / 10])
    batch, _ = compute_advantages(batch, config_for("remax"), None, {})
    assert not rows_with_signal(batch, "remax").any()


def test_signal_is_counted_by_group_where_an_estimator_compares_one_and_by_trajectory_elsewhere():
    rewards = [1.0, 0.5, 0.0, 0.7, 0.7, 0.7]  # a group with a member at its mean, and one without signal
    games = [(i // 3, i % 3, [(3, 2, 0.0), (3, 2, r)], "A", "O") for i, r in enumerate(rewards)]
    for batch in both_forms(games):
        batch, _ = compute_advantages(batch, config_for("grpo"), None, {})
        told = {i for i, keep in zip(batch.non_tensor_batch["traj_id"], rows_with_signal(batch, "grpo"), strict=True) if keep}
        assert told == {0, 1, 2}
        told = {i for i, keep in zip(batch.non_tensor_batch["traj_id"], rows_with_signal(batch, "rae"), strict=True) if keep}
        assert told == {0, 2}
        counts = np.unique(batch.non_tensor_batch["traj_id"], return_counts=True)[1]
        assert rows_with_signal(batch, "rae").sum() == counts[[0, 2]].sum()  # all rows of a trajectory or none


class Recorder:
    """A worker group that keeps what it is handed."""

    def __init__(self):
        self.rows = []

    def _update(self, shares):
        self.rows = sorted(i for share in shares for i in share.non_tensor_batch["traj_id"].tolist())
        return [DataProto(meta_info={"metrics": {}})]

    update_actor = update_critic = _update


@pytest.mark.parametrize("zero_advantages", ["leave_out", "train"])
def test_the_critic_learns_from_rows_that_the_policy_leaves_out(tmp_path, zero_advantages):
    games = [(0, m, [(3, 2, 0.0), (3, 2, r)], "A", "O") for m, r in enumerate((1.0, 0.0, 0.0))]
    _, batch = both_forms(games)
    batch.batch["advantages"] = batch.batch["token_level_scores"].clone()
    config = config_for("gae", f"algorithm.zero_advantages={zero_advantages}", f"trainer.default_local_dir={tmp_path}")
    trainer = AgentTrainer(config, validate_config(config))
    trainer.display, trainer.workers = SimpleNamespace(phase=lambda name: None), SimpleNamespace(actor=Recorder(), critic=Recorder())
    metrics: dict = {}
    trainer._update(batch, step=1, metrics=metrics)
    assert trainer.workers.critic.rows == [0, 0, 1, 1, 2, 2]
    assert trainer.workers.actor.rows == ([0, 0] if zero_advantages == "leave_out" else [0, 0, 1, 1, 2, 2])
    assert metrics["actor/no_signal"] == 0.0 and metrics["rollout/zero_advantage_share"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("estimator", ["grpo", "gae", "rae"])
@pytest.mark.parametrize("cut", [(True, True, True), (True, False, True)])
def test_a_step_whose_every_reply_is_masked_has_nothing_to_train(tmp_path, estimator, cut):
    """Every reply ran into its limit under ``overlong_replies=mask``, while rewards differ."""
    played = [trajectory(0, m, [(3, 2, reward)], False) for m, reward in enumerate((1.0, 0.0, 0.4))]
    for one, overlong in zip(played, cut, strict=True):
        one.turns[0].trained = not overlong
    config = config_for(estimator, "agent_proxy.overlong_replies=mask", f"trainer.default_local_dir={tmp_path}")
    batch, kept = AgentTrainer(config, validate_config(config))._kept_batch(played, {})
    if all(cut):
        assert batch is None and kept == set()
    else:
        assert kept == {0, 1, 2} and batch.batch["response_mask"].any(-1).tolist() == [False, True, False]
