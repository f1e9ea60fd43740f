"""Nests: order, turn limits, opponents, rewards by agent and by turn, difficulty weights."""

import itertools
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragen.env import make_env
from ragen.env.compose_new.config import PAPER_TURNS, ComposeConfig
from ragen.env.compose_new.rewards import combine, difficulty_weights
from ragen.env.conformance import check_env_contract
from ragen.players.base import SeatView
from ragen.players.scripted import DEFAULT_OPPONENT, make_scripted

MATH = {"env_type": "math_lv3to5", "env_config": {"source": "embedded"}}
NASH = {"env_type": "nash_new"}
BOARD = {"env_type": "tictactoe", "env_config": {"player_info": [{"type": "scripted", "name": "perfect"}]}}
SPY = {"env_type": "undercover", "env_config": {"word_list": "described", "player_info": [{"type": "scripted", "name": "speaker"}]}}
ALL = [MATH, NASH, BOARD, SPY]


def nest(tasks=ALL, **config):
    return make_env("compose_new", {"base_env_list": tasks, **config})


def answer(env, seat, seed, name=None):
    """A scripted player's answer in the sub-task being played."""
    view = SeatView(env.current_env_type, seat, seed, env.rules(seat), env.observe(seat), "", env.public(seat), env.legal(seat))
    try:
        make_scripted(env.current_env_type, name or DEFAULT_OPPONENT[env.current_env_type]).reply(view).send(None)
    except StopIteration as stop:
        return stop.value


def expert(env, seat, seed):
    return "0" if env.current_env_type == "math_lv3to5" else answer(env, seat, seed)


def play(env, seed, policy=expert):
    """A whole nest. Returns the sub-task and reward of each reply of agent 0."""
    env.reset(seed=seed)
    turns = []
    while acting := env.acting():
        moves = [policy(env, s, seed) if s in env.trained_seats else answer(env, s, seed) for s in acting]
        for seat, text in zip(acting, moves, strict=True):
            place, trained = env.current, seat in env.trained_seats
            if text is None:
                env.refused(seat)
                turns.append((place, 0.0))
            else:
                verdict = env.act(seat, text)
                if trained:
                    turns.append((place, verdict.reward))
    return turns


# -- order and turns -------------------------------------------------------------------------------


def test_sub_tasks_come_in_order_and_the_rules_change_with_them():
    env = nest()
    assert env.seats == 4
    env.reset(seed=3)
    seen = []
    while acting := env.acting():
        if not seen or seen[-1][0] != env.current_env_type:
            seen.append((env.current_env_type, env.rules(env.trained_seats[0]), env.player_info_now()))
        for seat in acting:
            env.act(seat, expert(env, seat, 3) if seat in env.trained_seats else answer(env, seat, 3))
    assert [name for name, _, _ in seen] == [t["env_type"] for t in ALL]
    assert len({rules for _, rules, _ in seen}) == 4 and [r.split("\n")[0] for _, r, _ in seen] == [f"Task {i} of 4." for i in (1, 2, 3, 4)]
    assert [p for _, _, p in seen] == [[], [], [{"type": "scripted", "name": "perfect"}], [{"type": "scripted", "name": "speaker"}]]


def test_two_games_alike_still_show_new_rules():
    env = nest([NASH, NASH])
    env.reset(seed=1)
    first, shown = env.rules(0), env.observe(0)
    env.act(0, env.legal(0)[0])
    assert env.rules(0) != first and env.observe(0) != shown and env.acting() == (0,)


def test_shuffled_orders_are_drawn_evenly_and_fixed_ones_stay():
    orders, fixed, env = Counter(), nest([NASH, BOARD, NASH]), nest([NASH, BOARD, NASH], order="shuffled")
    for seed in range(1200):
        env.reset(seed=seed)
        orders[tuple(env._order)] += 1
        if seed < 20:
            fixed.reset(seed=seed)
            assert fixed._order == [0, 1, 2]
            assert all(a.observe(0) == b.observe(0) for a, b in zip(env.envs, fixed.envs, strict=True))  # the games are the same
    assert set(orders) == set(itertools.permutations(range(3)))
    assert all(140 < n < 260 for n in orders.values())


def test_a_sub_task_that_runs_out_of_turns_is_closed_and_the_nest_goes_on():
    env = nest([BOARD, NASH], max_turns=[2, 1])
    env.reset(seed=4)
    while env.current_env_type == "tictactoe":
        (seat,) = env.acting()
        if seat in env.trained_seats:
            assert not env.act(seat, "nonsense").valid
        else:
            env.act(seat, answer(env, seat, 4))
    assert env.current_env_type == "nash_new" and env.acting() == (0,)
    env.refused(0)  # off the form: never reached act(), but it was the last turn
    assert env.acting() == ()
    result = env.outcome()[0]
    assert not result.success and result.reward == 0.0
    assert result.metrics["sub/0_tictactoe/unfinished"] == result.metrics["sub/1_nash_new/unfinished"] == 1.0


def test_the_opponent_may_still_answer_the_last_turn():
    """As in the game alone: who is out of turns is stopped when it would have to reply again."""
    for seed in range(20):
        env = nest([BOARD, NASH], max_turns=[1, 1])
        env.reset(seed=seed)
        moved = 0
        while env.current == 0:
            (seat,) = env.acting()
            moved += seat in env.trained_seats
            env.act(seat, answer(env, seat, seed))
        assert moved == 1
        marks = env.envs[0].board
        assert env.envs[0].acting() in ((), env.envs[0].trained_seats), marks


def test_running_out_in_a_simultaneous_vote_lets_the_others_vote_first():
    env = nest([SPY, NASH])
    env.reset(seed=2)
    while env.env.describing:
        seat = env.acting()[0]
        env.act(seat, answer(env, seat, 2))
    trained, acting = env.trained_seats[0], env.acting()
    assert len(acting) == 4
    for seat in acting:  # everybody has looked; now all move
        env.refused(seat) if seat == trained else env.act(seat, env.legal(seat)[0])
    assert env.current_env_type == "nash_new" and env.envs[0].votes.keys() == set(range(4)) - {trained}


def test_paper_turns_and_overrides():
    tasks = ComposeConfig(base_env_list=tuple(ALL)).sub_tasks()
    assert [t.max_turn for t in tasks] == [1, 1, 5, 3] and sum(t.max_turn for t in tasks) == 10 == sum(PAPER_TURNS.values())
    assert ComposeConfig(base_env_list=({**NASH, "max_turn": 4},)).sub_tasks()[0].max_turn == 4
    assert ComposeConfig(base_env_list=(NASH, BOARD), max_turns=(2, None)).sub_tasks()[1].max_turn is None
    assert ComposeConfig(base_env_list=({"env_type": "bandit"},)).sub_tasks()[0].max_turn is None


# -- rewards ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["mean", "product", "min"])
def test_the_reward_is_that_of_the_games_played_alone(mode):
    """The same games, one at a time and with the same replies, give the sub-rewards."""
    for seed in range(25):
        env = nest([NASH, BOARD, SPY], reward_mode=mode)
        play(env, seed)
        alone = []
        for sub in env.envs:
            earned = sub._return if hasattr(sub, "_return") else 0.0
            alone.append(earned + sub.outcome()[sub.trained_seats[0]].reward)
        expected = {"mean": sum(alone) / 3, "min": min(alone), "product": alone[0] * alone[1] * alone[2]}[mode]
        result = env.outcome()[env.trained_seats[0]]
        assert result.reward == pytest.approx(expected)
        assert result.success == all(sub.outcome()[sub.trained_seats[0]].success for sub in env.envs)
        for i, sub in enumerate(env.envs):
            assert result.metrics[f"sub/{env.tasks[i].name}/success"] == float(sub.outcome()[sub.trained_seats[0]].success)


def test_both_right_is_success_one_right_is_not():
    env = nest([NASH, NASH])
    for right in itertools.product([True, False], repeat=2):
        env.reset(seed=11)
        for want in right:
            sub = env.env
            names = sub.legal(0)
            good = [n for i, n in enumerate(names) if (i in sub.right) == want]
            env.act(0, good[0])
        result = env.outcome()[0]
        assert result.success == all(right) and result.reward == sum(right) / 2 and result.turn_rewards == {}


def test_penalties_stay_on_the_turn_that_earned_them():
    env = nest([NASH, BOARD], max_turns=[3, 5], reward_mode="product")
    env.reset(seed=5)
    assert env.act(0, "nonsense").reward == -0.1
    assert env.act(0, env.legal(0)[0]).reward == 0.0  # a valid turn's reward is part of the nest's
    assert env.outcome()[0].reward == 0.0  # the second game has not been reached


def test_credit_by_sub_task_adds_up_and_lands_on_the_turn_that_ended_it():
    for seed in range(25):
        env = nest([NASH, BOARD, SPY], credit="subtask")
        turns = play(env, seed)
        result = env.outcome()[env.trained_seats[0]]
        assert sum(result.turn_rewards.values()) == pytest.approx(result.reward)
        last = {place: i for i, (place, _) in enumerate(turns)}
        alone = [(s._return if hasattr(s, "_return") else 0.0) + s.outcome()[s.trained_seats[0]].reward for s in env.envs]
        assert result.turn_rewards == pytest.approx({last[i]: alone[i] / 3 for i in range(3)})


def test_an_early_stop_keeps_what_was_won():
    env = nest([NASH, BOARD])
    env.reset(seed=6)
    names, right = env.legal(0), env.env.right
    env.act(0, names[min(right)])
    result = env.outcome()[env.trained_seats[0]]
    assert result.reward == 0.5 and not result.success
    assert result.metrics["sub/0_nash_new/success"] == 1.0


def test_self_play_keeps_each_agents_own_account():
    """Agent 0 has the trained seat of each game, agent 1 the other, and their results are opposite."""
    board = {"env_type": "tictactoe", "player_info": [{"type": "policy"}]}
    for seed in range(12):
        env = nest([board, board], max_turns=[9, 9])
        env.reset(seed=seed)
        while acting := env.acting():
            for seat in acting:
                env.act(seat, answer(env, seat, seed, "random"))
        (trained,) = env.trained_seats
        for agent, seat in ((0, trained), (1, 1 - trained)):
            want = [sub.outcome()[sub.trained_seats[0] if agent == 0 else 1 - sub.trained_seats[0]] for sub in env.envs]
            assert env.outcome()[seat].reward == pytest.approx(sum(w.reward for w in want) / 2)
            assert env.outcome()[seat].success == all(w.success for w in want)


# -- difficulty ------------------------------------------------------------------------------------


def test_difficulty_weighs_successes_alone():
    env = nest([NASH, NASH], reward_improve=True)
    env.success_rates = {"0_nash_new": 0.75, "1_nash_new": 0.5}
    for right, expected in (((True, True), (0.5 + 1.0) / 2), ((True, False), 0.25), ((False, True), 0.5)):
        env.reset(seed=11)
        for want in right:
            names, good = env.legal(0), env.env.right
            env.act(0, next(n for i, n in enumerate(names) if (i in good) == want))
        assert env.outcome()[0].reward == pytest.approx(expected)
    plain = nest([NASH, NASH])
    plain.success_rates = {"0_nash_new": 0.75}
    plain.reset(seed=11)
    plain.act(0, plain.legal(0)[min(plain.env.right)])
    assert plain.outcome()[0].reward == 0.5  # without reward_improve the rates change nothing


@given(st.dictionaries(st.sampled_from("abc"), st.floats(0, 1)))
@settings(max_examples=60, deadline=None)
def test_weights_are_relative_to_the_hardest(rates):
    weights = difficulty_weights("abc", rates)
    assert max(weights.values()) == pytest.approx(1.0) and all(0 <= w <= 1 for w in weights.values())
    ranked = sorted("abc", key=lambda n: rates.get(n, 0.0))
    assert [weights[n] for n in ranked] == sorted(weights.values(), reverse=True)


def test_weights_without_history_or_difficulty():
    assert difficulty_weights("ab", {}) == {"a": 1.0, "b": 1.0} == difficulty_weights("ab", {"a": 1.0, "b": 1.0})
    assert combine([-1.0, -1.0], "product") == 0.0


# -- contract and config ---------------------------------------------------------------------------


def test_contract():
    def replies(env, seat, rng):
        if env.current_env_type == "undercover" and env.legal(seat) is None:
            return rng.choice(["It is nice.", "It is known to many.", ""])
        return rng.choice(env.legal(seat) or ("1", "2"))

    # turn limits high enough that a refused reply never ends a sub-task (that does change the state)
    report = check_env_contract(lambda: nest(max_turns=[40, 40, 40, 40]), range(3), replies=replies, max_turns=300)
    assert report.ended == 3
    report = check_env_contract(lambda: nest([NASH, BOARD], order="shuffled", max_turns=[40, 40]), range(4), replies=replies, must_end=True)
    assert report.ended == 4


def test_a_group_shares_its_prompts():
    for seed in range(10):
        texts = []
        for _ in range(2):
            env = nest()
            env.reset(seed=seed)
            texts.append([env.rules(s) + env.observe(s) for s in range(4)] + [sub.rules(0) + sub.observe(0) for sub in env.envs])
        assert texts[0] == texts[1]


def test_a_nest_within_a_nest():
    inner = {"env_type": "compose_new", "env_config": {"base_env_list": [NASH, BOARD]}}
    env = nest([inner, NASH])
    turns = play(env, 9)
    assert {place for place, _ in turns} == {0, 1} and env.acting() == ()
    name = "sub/0_compose_new/sub/1_tictactoe/success"
    assert name in env.outcome()[env.trained_seats[0]].metrics


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"base_env_list": []}, "base_env_list is empty"),
        ({"base_env_list": ["TicTacToe"]}, re.escape("base_env_list[0]")),
        ({"base_env_list": [{"env_typ": "nash_new"}]}, re.escape("base_env_list[0]")),
        ({"base_env_list": [{**NASH, "max_turns": 2}]}, "did you mean 'max_turn'"),
        ({"base_env_list": [{**NASH, "max_turn": 0}]}, "max_turn must be"),
        ({"base_env_list": [NASH], "max_turns": [1, 2]}, "max_turns has 2"),
        ({"base_env_list": [NASH], "reward_mode": "sum"}, "reward_mode"),
        ({"base_env_list": [NASH], "order": "random"}, "order"),
        ({"base_env_list": [NASH], "k": 0}, "k must be"),
        ({"base_env_list": [NASH], "credit": "subtask", "reward_mode": "min"}, "credit: subtask"),
        ({"base_env_list": [{"env_type": "nash_new", "env_config": {"sise": 3}}]}, "did you mean 'size'"),
        ({"base_env_list": [{"env_type": "nash"}]}, "unknown env_type 'nash'"),
    ],
)
def test_bad_nests_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        make_env("compose_new", config)
