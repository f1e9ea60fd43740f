"""Games of other libraries as an Env, and an Env as a game of other libraries."""

import copy
import itertools
import pickle
import random
import re
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from ragen.env import make_env
from ragen.env.adapters.to_gymnasium import GymnasiumGame
from ragen.env.conformance import check_env_contract
from ragen.players.base import SeatView
from ragen.players.scripted import make_scripted
from ragen.players.sync import opponents, reply_now

# -- OpenSpiel -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spiel():
    return pytest.importorskip("pyspiel", reason="open_spiel is not installed (pip install open_spiel)")


@pytest.mark.parametrize("game", ["tic_tac_toe", "kuhn_poker", "liars_dice", "matrix_rps", "goofspiel(num_cards=4,imp_info=True)", "connect_four", "2048"])
def test_open_spiel_keeps_the_contract(spiel, game):
    report = check_env_contract(lambda: make_env("open_spiel", {"game": game}), range(3), max_turns=60, must_vary=False)
    assert report.refused > 0 and (report.ended == 3 or game == "2048")


def test_open_spiel_tic_tac_toe_is_ours(spiel):
    """The same moves in OpenSpiel's game and in the project's: same legality, same results."""
    for seed in range(40):
        ours, theirs, rng = make_env("tictactoe", {"opening_moves": 0}), make_env("open_spiel"), random.Random(seed)
        ours.reset(seed=seed)
        theirs.reset(seed=seed)
        while ours.acting():
            assert ours.acting() == theirs.acting()
            (seat,) = ours.acting()
            cells = {re.sub(r"[xo]", "", m): m for m in theirs.legal(seat)}
            assert len(cells) == len(ours.legal(seat))
            row, column = map(int, re.findall(r"\d", rng.choice(ours.legal(seat))))
            assert ours.act(seat, f"({row},{column})").valid and theirs.act(seat, cells[f"({row - 1},{column - 1})"]).valid
        assert theirs.acting() == ()
        assert [(s.reward, s.success) for s in ours.outcome().seats] == [(s.reward, s.success) for s in theirs.outcome().seats]


def test_open_spiel_chance_follows_its_probabilities(spiel):
    dealt, env = {}, make_env("open_spiel", {"game": "kuhn_poker"})
    for seed in range(3000):
        env.reset(seed=seed)
        cards = tuple(env.state.history())
        dealt[cards] = dealt.get(cards, 0) + 1
    assert set(dealt) == set(itertools.permutations(range(3), 2)) and all(400 < n < 600 for n in dealt.values())


def test_open_spiel_hides_the_other_card(spiel):
    env = make_env("open_spiel", {"game": "kuhn_poker"})
    seen = {0: {}, 1: {}}
    for seed in range(60):
        env.reset(seed=seed)
        for seat in (0, 1):
            seen[seat].setdefault(env.state.history()[seat], set()).add(env.observe(seat))
    assert all(len(texts) == 1 for seat in seen.values() for texts in seat.values())  # one own card, one text


def test_open_spiel_simultaneous_moves_stay_hidden(spiel):
    env = make_env("open_spiel", {"game": "matrix_rps"})
    env.reset(seed=1)
    before = env.observe(1)
    assert env.acting() == (0, 1) and env.act(0, "rock").valid
    assert env.acting() == (1,) and env.observe(1) == before
    assert env.act(1, " Paper ").valid and env.acting() == ()
    assert [s.reward for s in env.outcome().seats] == [0.0, 1.0] and env.outcome()[1].success


def test_open_spiel_copies_apart(spiel):
    env = make_env("open_spiel")
    env.reset(seed=1)
    other = copy.deepcopy(env)
    other.act(0, other.legal(0)[0])
    assert env.acting() == (0,) and other.acting() == (1,) and pickle.loads(pickle.dumps(other)).acting() == (1,)


@pytest.mark.parametrize("config", [{"game": "no_such_game"}, {"trained_seat": 2}])
def test_open_spiel_bad_config(spiel, config):
    with pytest.raises(ValueError, match="no_such_game|trained_seat"):
        make_env("open_spiel", config)


# -- TextArena -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def textarena():
    return pytest.importorskip("textarena", reason="TextArena is not installed (pip install textarena)")


def cell_or_move(env, seat, rng):
    """A reply for the games below, read off what the seat is shown."""
    offered = re.findall(r"'(\[[^\]]*\])'", env.observe(seat))
    return rng.choice(offered) if offered else rng.choice(["[check]", "[bet]", "[call]", "[fold]"])


@pytest.mark.parametrize("game", ["TicTacToe-v0", "KuhnPoker-v0-short"])
def test_textarena_keeps_the_contract(textarena, game):
    report = check_env_contract(lambda: make_env("textarena", {"game": game}), range(3), replies=cell_or_move, max_turns=80)
    assert report.refused > 0 and report.ended >= 2


def test_textarena_plays_the_games_own_course(textarena):
    """The same moves in TextArena itself give the same rewards."""
    for seed in range(15):
        env, theirs, rng = make_env("textarena"), textarena.make("TicTacToe-v0-raw"), random.Random(seed)
        env.reset(seed=seed)
        theirs.reset(num_players=2, seed=seed)
        done = False
        while not done:
            (seat,) = env.acting()
            move = cell_or_move(env, seat, rng)
            assert env.act(seat, move).valid
            done, _ = theirs.step(move)
        rewards, _ = theirs.close()
        result = env.outcome()
        assert env.acting() == () and [s.reward for s in result.seats] == [rewards[0], rewards[1]]
        assert [s.success for s in result.seats] == [rewards[s] == 1 for s in (0, 1)]


def test_textarena_refused_moves_can_be_tried_again(textarena):
    env = make_env("textarena")
    env.reset(seed=1)
    before = env.observe(0)
    for _ in range(5):  # TextArena itself ends the game at the second
        verdict = env.act(0, "[99]")
        assert not verdict.valid and "Must be between 0 and 8" in verdict.feedback
    assert env.observe(0) == before and env.act(0, "4").valid  # brackets are put around an answer


def test_textarena_shows_one_board_and_leaves_generators_alone(textarena):
    random.seed(5)
    np.random.seed(5)
    states = random.getstate(), np.random.get_state()[1].tolist()
    env = make_env("textarena")
    env.reset(seed=1)
    for move in ("[0]", "[1]", "[2]"):
        env.act(env.acting()[0], move)
    assert env.observe(1).count("Current Board") == 1 and "[Player 0]" in env.observe(1)
    assert "You are Player 1" in env.rules(1) and "You are Player 0" not in env.rules(1) + env.observe(1)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states


def test_textarena_bad_config(textarena):
    with pytest.raises(ValueError, match="no game 'Chezz'"):
        make_env("textarena", {"game": "Chezz"})
    with pytest.raises(ValueError, match="trained_seat"):
        make_env("textarena", {"trained_seat": 5})


# -- Gymnasium in ----------------------------------------------------------------------------------

LAKE = {"make": "FrozenLake-v1", "options": {"is_slippery": False}, "observation": "render", "actions": ["left", "down", "right", "up"]}


def test_gymnasium_env_keeps_the_contract():
    report = check_env_contract(lambda: make_env("gymnasium", LAKE), range(4), max_turns=30, must_vary=False)
    assert report.refused > 0


def test_gymnasium_env_is_the_env_itself():
    env, inner = make_env("gymnasium", LAKE), gymnasium.make("FrozenLake-v1", is_slippery=False)
    env.reset(seed=3)
    inner.reset(seed=3)
    assert env.observe(0) == "[S]FFF\nFHFH\nFFFH\nHFFG"
    for name in ("down", "DOWN", "right", "right", "down", "right"):
        reward = inner.step(["left", "down", "right", "up"].index(name.lower()))[1]
        assert env.act(0, name).reward == reward
    assert env.acting() == () and env.outcome()[0].success and reward == 1.0


def test_a_text_environment_is_played_in_text():
    env = make_env("gymnasium", {"make": "ragen.env.bandit:BanditEnv"})
    env.reset(seed=1)
    assert env.legal(0) is None and env.observe(0)
    check_env(env, skip_render_check=True)


@pytest.mark.parametrize("config", [{"observation": "eyes"}, {"actions": ["a", "A"]}, {"actions": ["a"]}, {"make": "CartPole-v1", "options": {}, "actions": ["x"]}])
def test_gymnasium_bad_config(config):
    with pytest.raises(ValueError, match="gymnasium: "):
        make_env("gymnasium", config)


# -- Gymnasium out ---------------------------------------------------------------------------------

BOARD = [{"type": "scripted", "name": "perfect"}]


@pytest.mark.parametrize(
    ("env_type", "config", "players"),
    [
        ("tictactoe", {}, BOARD),
        ("nash_new", {}, []),
        ("undercover", {}, [{"type": "scripted", "name": "speaker"}]),
        ("compose_new", {"base_env_list": [{"env_type": "nash_new"}, {"env_type": "tictactoe", "player_info": BOARD}]}, []),
    ],
)
def test_an_env_passes_gymnasiums_checker(env_type, config, players):
    game = GymnasiumGame(make_env(env_type, config), opponents(players, env_type), max_turn=30, render_mode="ansi")
    game.spec = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # text spaces and an unregistered env
        check_env(game, skip_render_check=True)


def test_gymnasium_game_is_the_game():
    """Stepping through Gymnasium and playing the Env by hand come to the same."""
    for seed in range(20):
        game, env = GymnasiumGame(make_env("tictactoe"), opponents(BOARD, "tictactoe")), make_env("tictactoe")
        rng, perfect, total = random.Random(seed), make_scripted("tictactoe", "perfect"), 0.0
        observation, info = game.reset(seed=seed)
        env.reset(seed=seed)
        moves = []
        done = False
        while not done:
            moves.append(rng.choice([*game.env.legal(game.seat), "(9,9)"]))
            observation, reward, done, truncated, info = game.step(moves[-1])
            assert not truncated
            total += reward
        expected = 0.0
        for move in moves:
            while env.acting() and env.acting() != env.trained_seats:
                (seat,) = env.acting()
                view = SeatView("tictactoe", seat, seed, env.rules(seat), env.observe(seat), "", env.public(seat), env.legal(seat))
                env.act(seat, reply_now(perfect, view))
            expected += env.act(env.trained_seats[0], move).reward
        while env.acting():
            (seat,) = env.acting()
            view = SeatView("tictactoe", seat, seed, env.rules(seat), env.observe(seat), "", env.public(seat), env.legal(seat))
            env.act(seat, reply_now(perfect, view))
        result = env.outcome()[env.trained_seats[0]]
        assert total == pytest.approx(expected + result.reward) and info["success"] == result.success


def test_gymnasium_game_needs_opponents_and_stops_at_its_limit():
    with pytest.raises(ValueError, match="reply="):
        GymnasiumGame(make_env("tictactoe"))
    game = GymnasiumGame(make_env("tictactoe"), opponents(BOARD, "tictactoe"), max_turn=2)
    game.reset(seed=1)
    assert game.step("no")[2:4] == (False, False) and game.step("no")[2:4] == (False, True)
    with pytest.raises(ValueError, match="reset"):
        game.step("(1,1)")
    stubborn = GymnasiumGame(make_env("tictactoe"), lambda env, seat, seed, attempt: "no")
    with pytest.raises(RuntimeError, match="no legal move in 3"):
        for seed in range(9):
            stubborn.reset(seed=seed)


# -- PettingZoo out --------------------------------------------------------------------------------


@pytest.mark.parametrize(("env_type", "config"), [("tictactoe", {}), ("connect_four", {}), ("undercover", {}), ("nash_new", {})])
def test_an_env_passes_pettingzoos_api_test(env_type, config):
    test = pytest.importorskip("pettingzoo.test", reason="PettingZoo is not installed (pip install pettingzoo)")
    from ragen.env.adapters.to_pettingzoo import PettingZooGame

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # text observations are no NumPy arrays
        test.api_test(PettingZooGame(make_env(env_type, config), max_turn=60), num_cycles=200, verbose_progress=False)
        test.seed_test(lambda: PettingZooGame(make_env(env_type, config), max_turn=60), num_cycles=20)


def test_pettingzoo_pays_every_seat():
    pytest.importorskip("pettingzoo", reason="PettingZoo is not installed (pip install pettingzoo)")
    from ragen.env.adapters.to_pettingzoo import PettingZooGame

    for seed in range(10):
        game, rng, paid = PettingZooGame(make_env("tictactoe")), random.Random(seed), {}
        game.reset(seed=seed)
        for agent in game.agent_iter():
            observation, reward, terminated, truncated, info = game.last()
            paid[agent] = paid.get(agent, 0.0) + reward
            game.step(None if terminated or truncated else rng.choice(game.env.legal(game.possible_agents.index(agent))))
        assert paid == {f"seat_{s}": result.reward for s, result in enumerate(game.env.outcome().seats)}


def test_pettingzoo_pays_the_seat_of_every_sub_task_of_a_nest():
    """An agent there is a seat: who has seat 1 in the first game has it in the second, whichever seats are trained."""
    pytest.importorskip("pettingzoo", reason="PettingZoo is not installed (pip install pettingzoo)")
    from ragen.env.adapters.to_pettingzoo import PettingZooGame

    tasks = [{"env_type": "tictactoe", "env_config": {"trained_seat": seat}, "max_turn": 9} for seat in ("first", "second")]
    for seed in range(10):
        game, rng, paid = PettingZooGame(make_env("compose_new", {"base_env_list": tasks})), random.Random(seed), {}
        game.reset(seed=seed)
        for agent in game.agent_iter():
            *_, reward, terminated, truncated, _ = game.last()
            paid[agent] = paid.get(agent, 0.0) + reward
            game.step(None if terminated or truncated else rng.choice(game.env.legal(game.possible_agents.index(agent))))
        boards = [env.outcome() for env in game.env.envs]
        assert paid == {f"seat_{s}": sum(board[s].reward for board in boards) / 2 for s in range(2)}


def test_opponents_names_a_seat_without_a_player():
    game = GymnasiumGame(make_env("tictactoe", {"trained_seat": "second", "opening_moves": 0}), opponents([], "tictactoe"))
    with pytest.raises(ValueError, match="seat 0 of tictactoe has no player"):
        game.reset(seed=0)
