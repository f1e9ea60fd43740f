"""Training by the reference's rules: keys for an invalid reply, the first move and a nest's pay."""

import dataclasses
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from test_compose import ALL, BOARD, MATH, NASH, answer, expert, nest, play
from test_nested_episode import TAGS, obedient
from toy_engine import ScriptedEngine

from ragen.env import env_config_class, make_env
from ragen.env.conformance import check_env_contract
from ragen.env.tictactoe import rules as ttt
from ragen.llm_agent.agent_proxy import AgentProxy
from ragen.llm_agent.ctx_manager import ChatTokens
from ragen.llm_agent.episode import EpisodeLimits, Sampling
from ragen.llm_agent.es_manager import deal_groups, deal_to_ranks, read_tags
from ragen.players.factory import PlayerFactory
from ragen.trainer.config import compose
from ragen.workers.playing import episode_limits

# -- an invalid reply ends the game ---------------------------------------------------------------


def played(tokenizer, tag, write, **limits):
    limits = EpisodeLimits(max_turn=10, max_model_len=16_000, **limits)
    proxy = AgentProxy([ScriptedEngine(write, 16_000)], ChatTokens(tokenizer), PlayerFactory(), limits)
    tags = read_tags(TAGS, "train")
    dealt = deal_groups(base_seed=3, phase="train", step=1, tags=tags, plays=[(tag, 6)], group_size=1)
    return proxy.play(deal_to_ranks(dealt, 1)[0], tags, Sampling((3, "train", 1), 64))


def second_time(tokenizer):
    """Obedient, but every second reply is off the form."""
    count = iter(range(10**6))
    return obedient(tokenizer, broken=lambda tail: next(count) % 2 == 1)


def test_an_invalid_reply_ends_the_episode_where_the_key_says_so(chatml):
    for t in played(chatml, "Board", obedient(chatml, broken=lambda tail: True), forfeit_on_invalid=True):
        assert t.status == "forfeit" and len(t.turns) == 1 and not t.success
        assert t.reward == pytest.approx(-0.1) and t.metrics["forfeit"] == 1.0 and t.metrics["unfinished"] == 0.0
    for t in played(chatml, "Board", obedient(chatml, broken=lambda tail: True)):
        assert t.status == "unfinished" and len(t.turns) == 10 and "forfeit" not in t.metrics
    good = played(chatml, "Board", obedient(chatml), forfeit_on_invalid=True)
    assert all(t.status == "finished" and t.metrics["forfeit"] == 0.0 for t in good)


def test_a_nest_ends_with_the_first_invalid_reply_of_any_sub_task(chatml):
    for t in played(chatml, "Nest", second_time(chatml), forfeit_on_invalid=True):
        assert t.status == "forfeit" and sum(not turn.valid for turn in t.turns) == 1 and not t.turns[-1].valid


def test_every_seat_of_a_vote_is_judged_before_the_game_ends(chatml):
    """Four seats of the policy vote at once; one reply is bad, the three others count all the same."""
    votes = iter(range(10**6))
    write = obedient(chatml, broken=lambda tail: tail.startswith("Vote") and next(votes) % 4 == 2)
    trajectories = played(chatml, "Alone", write, forfeit_on_invalid=True)
    for group in range(6):
        last = [t.turns[-1] for t in trajectories if t.group == group]
        assert len(last) == 4 and sum(turn.valid for turn in last) == 3 and all(turn.effective for turn in last if turn.valid)
        assert all(t.status == "forfeit" for t in trajectories if t.group == group)


@pytest.mark.parametrize("value", [True, False])
def test_the_key_of_the_config_reaches_the_episodes(value):
    config = compose("_0_laptop", [f"agent_proxy.forfeit_on_invalid={value}"])
    assert episode_limits(config, 512).forfeit_on_invalid is value
    assert compose("base").agent_proxy.forfeit_on_invalid is False


# -- the first move -------------------------------------------------------------------------------


def opened(seed, **config):
    env = make_env("tictactoe", config)
    env.reset(seed=seed)
    return env


@pytest.mark.parametrize("pairs", [0, 1])
def test_x_finds_one_o_more_on_the_board_and_o_finds_the_board_as_before(pairs):
    for seed in range(200):
        ours, theirs = (opened(seed, opening_moves=pairs, first_move=rule) for rule in ("player", "uniform"))
        assert ours.trained_seats == theirs.trained_seats
        assert [theirs.rules(s) for s in (0, 1)] == [ours.rules(s) for s in (0, 1)]  # nothing else of the seed changes
        if ours.trained_seats == (0,):
            assert theirs.board == ours.board
        else:
            new = [i for i in range(9) if theirs.board[i] != ours.board[i]]
            assert len(new) == 1 and theirs.board[new[0]] == "O" and theirs.acting() == (1,) and not ttt.is_over(theirs.board)


def test_the_first_move_is_uniform_over_the_free_cells():
    cells = Counter(opened(seed, opening_moves=0, trained_seat="second", first_move="uniform").board.index("O") for seed in range(1800))
    assert len(cells) == 9 and sum((n - 200) ** 2 / 200 for n in cells.values()) < 26.1  # 8 degrees of freedom, p = 0.001


def test_an_opening_in_which_the_drawn_move_could_win_is_refused():
    with pytest.raises(ValueError, match="first_move uniform needs opening_moves 0 or 1, got 2"):
        make_env("tictactoe", {"opening_moves": 2, "first_move": "uniform"})
    with pytest.raises(ValueError, match="first_move must be one of"):
        make_env("tictactoe", {"first_move": "random"})
    check_env_contract(lambda: make_env("tictactoe", {"first_move": "uniform"}), seeds=range(8))


# -- a nest's pay ---------------------------------------------------------------------------------


@given(st.integers(0, 400), st.lists(st.booleans(), min_size=4, max_size=4))
def test_a_nest_pays_after_every_sub_task_ended_or_not_at_all(seed, off_form):
    """Each sub-task is either played well or its turns are used up by replies off the form."""

    def policy(env, seat, seed):
        return None if off_form[env.current] else expert(env, seat, seed)

    ours, theirs = nest(ALL), nest(ALL, reward_when="all_ended")
    play(ours, seed, policy)
    play(theirs, seed, policy)
    paid, held = ours.outcome()[ours.trained_seats[0]], theirs.outcome()[theirs.trained_seats[0]]
    assert held.reward == (0.0 if any(off_form) else paid.reward)
    assert held.metrics == paid.metrics and held.success == paid.success


def test_a_nest_that_is_broken_off_pays_nothing_yet():
    for mode, expected in (("each_ended", 0.5), ("all_ended", 0.0)):
        env = nest([NASH, BOARD], reward_when=mode, credit="subtask")
        env.reset(seed=2)
        env.act(0, answer(env, 0, 2))  # the equilibrium: right
        result = env.outcome()[env.trained_seats[0]]
        assert result.reward == pytest.approx(expected) and sum(result.turn_rewards.values()) == pytest.approx(expected)


def test_the_rule_of_pay_is_one_of_two():
    with pytest.raises(ValueError, match="reward_when must be one of"):
        nest([MATH, NASH], reward_when="never")


# -- the page that names them ---------------------------------------------------------------------


def test_the_switches_that_the_fidelity_page_names_are_keys_of_their_games():
    page = (Path(__file__).resolve().parents[2] / "docs" / "fidelity.md").read_text(encoding="utf-8")
    named = [
        (game, *re.fullmatch(r"(\w+)(?:: (.+))?", span).groups())
        for spans, game in re.findall(r"((?:`[^`]+`(?:, )?)+) of `(\w+)`", page)
        for span in re.findall(r"`([^`]+)`", spans)
    ]
    assert {game for game, _, _ in named} == {"tictactoe", "undercover", "nash_new", "math_lv3to5"} and len(named) > 6
    for game, key, value in named:
        fields = {field.name: field.default for field in dataclasses.fields(env_config_class(game))}
        assert key in fields, (game, key)
        if value is not None:  # a switch changes something
            assert getattr(env_config_class(game)(**{key: yaml.safe_load(value)}), key) == yaml.safe_load(value) != fields[key]
    assert "`reward_when: all_ended` of the nest" in page and "`--protocol paper`" in page
