"""Scripted players: they play legally, as well as they claim, and as a function of (seed, position)."""

import json
from collections import Counter

import pytest

from ragen.env import make_env
from ragen.env.connect_four import rules as c4
from ragen.env.terminal import play, play_in_terminal
from ragen.env.tictactoe import rules as ttt
from ragen.players.base import PlayerError, SeatView
from ragen.players.scripted import SCRIPTED, make_scripted


def view_of(env, env_type, seat, seed):
    return SeatView(env_type, seat, seed, env.rules(seat), env.observe(seat), "", env.public(seat), env.legal(seat))


def reply(player, view):
    """The reply without an event loop: a scripted player never waits."""
    try:
        player.reply(view).send(None)
    except StopIteration as done:
        return done.value
    pytest.fail(f"{player.name} waited for something")


def match(env_type, players, seed, config=None):
    """Play a whole game among scripted players; every reply must be legal."""
    env = make_env(env_type, config)
    env.reset(seed=seed)
    while env.acting():
        for seat in env.acting():
            verdict = env.act(seat, reply(players[seat], view_of(env, env_type, seat, seed)))
            assert verdict.valid
    return env.outcome()


def ttt_view(board, seed=0):
    mark = ttt.to_move(board)
    legal = tuple(map(ttt.cell_name, ttt.empty_cells(board)))
    return SeatView("tictactoe", "OX".index(mark), seed, "", "", "", (board, mark), legal)


def test_perfect_tictactoe_never_loses_and_keeps_the_value_everywhere():
    player, frontier, seen = make_scripted("tictactoe", "perfect"), [ttt.EMPTY_BOARD], set()
    while frontier:  # every position a perfect O can meet, whatever X does
        board = frontier.pop()
        if board in seen or ttt.is_over(board):
            continue
        seen.add(board)
        answer = reply(player, ttt_view(board))
        after = ttt.play(board, [ttt.cell_name(c) for c in range(9)].index(answer))
        assert ttt.value(after) == ttt.value(board) >= 0, board
        if ttt.winning_cells(board, "O"):
            assert ttt.winner(after) == "O"
        frontier += [ttt.play(after, c) for c in ttt.empty_cells(after)] if not ttt.is_over(after) else []


def test_perfect_moves_agree_with_the_shared_positions(gift_data):
    """The shared boards have x moving first; ours is O: the marks are swapped."""
    player, names = make_scripted("tictactoe", "perfect"), [ttt.cell_name(c) for c in range(9)]
    checked = 0
    for line in (gift_data / "games/tictactoe_positions.jsonl").read_text().splitlines():
        known = json.loads(line)
        if not known["terminal"]:
            board = known["board"].translate(str.maketrans("xo", "OX"))
            cell = names.index(reply(player, ttt_view(board)))
            assert cell in (known["immediate_wins"] or known["optimal_moves"])
            checked += 1
    assert checked > 200


def test_error_rate_is_the_share_of_random_moves():
    # after O in the centre, X must take a corner: a random X does with probability 1/2
    board = "....O...."
    for rate in (0.0, 0.3, 1.0):
        player = make_scripted("tictactoe", "error_rate", error_rate=rate)
        good = sum(reply(player, ttt_view(board, seed)) in ("(1,1)", "(1,3)", "(3,1)", "(3,3)") for seed in range(2000))
        assert abs(good / 2000 - (1 - rate / 2)) < 0.035
    with pytest.raises(ValueError, match="error_rate must be between"):
        make_scripted("tictactoe", "error_rate", error_rate=1.5)


def test_random_is_even():
    player = make_scripted("tictactoe", "random")
    counts = Counter(reply(player, ttt_view(ttt.EMPTY_BOARD, seed)) for seed in range(1800))
    assert len(counts) == 9 and max(counts.values()) < 270 and min(counts.values()) > 140


@pytest.mark.parametrize(
    ("env_type", "name"), [(e, n) for e in ("tictactoe", "connect_four", "nash_new") for n in SCRIPTED[e]]
)
def test_one_position_and_seed_meets_one_reply(env_type, name):
    """Two objects, as two workers would have, asked in different orders."""
    env, views = make_env(env_type), []
    for seed in range(30):
        env.reset(seed=seed)
        views.append(view_of(env, env_type, env.acting()[0], seed))
    first, second = make_scripted(env_type, name), make_scripted(env_type, name)
    assert [reply(first, v) for v in views] == [reply(second, v) for v in reversed(views)][::-1]


def test_strength_is_in_order():
    def wins(mine, theirs, env_type, seat, games=40):
        players = [mine, theirs] if seat == 0 else [theirs, mine]
        return sum(match(env_type, players, seed, {"opening_moves": 0})[seat].success for seed in range(games))

    perfect, rand = make_scripted("tictactoe", "perfect"), make_scripted("tictactoe", "random")
    assert wins(perfect, rand, "tictactoe", 0) >= 34
    assert wins(rand, perfect, "tictactoe", 1) == 0
    greedy, rand = make_scripted("connect_four", "greedy"), make_scripted("connect_four", "random")
    assert wins(greedy, rand, "connect_four", 1) >= 36


def test_greedy_connect_four_wins_then_blocks():
    player = make_scripted("connect_four", "greedy")

    def answer(moves):
        board = c4.empty_board()
        for column in moves:
            board = c4.drop(board, column)
        mark = c4.to_move(board)
        return reply(player, SeatView("connect_four", 0, 0, "", "", "", (board, mark), tuple(str(c + 1) for c in c4.open_columns(board))))

    assert answer([0, 6, 0, 6, 0, 6]) == "1"  # both threaten; winning comes first
    assert answer([0, 6, 0, 5, 0]) == "1"  # X threatens in column 1


def test_equilibrium_player_is_always_right():
    for config in ({}, {"source": "generated", "size": 3}):
        env, player = make_env("nash_new", config), make_scripted("nash_new", "equilibrium")
        for seed in range(60):
            env.reset(seed=seed)
            env.act(0, reply(player, view_of(env, "nash_new", 0, seed)))
            assert env.outcome()[0].success


def test_unknown_names_and_options_are_named():
    with pytest.raises(ValueError, match="did you mean 'perfect'"):
        make_scripted("tictactoe", "prefect")
    with pytest.raises(ValueError, match="does not take"):
        make_scripted("tictactoe", "random", rate=3)
    free_text = SeatView("math_lv3to5", 0, 0, "", "2+2?")
    with pytest.raises(PlayerError, match="does not list"):
        reply(make_scripted("math_lv3to5", "random"), free_text)


# -- terminal ----------------------------------------------------------------------------------------


def test_a_person_can_play_in_the_terminal():
    answers, said = iter(["(9,9)", "(1,1)", "(2,2)", "(3,3)", *(f"({r},{c})" for r in "123" for c in "123") , *["(1,2)"] * 9]), []
    env = make_env("tictactoe", {"opening_moves": 0, "trained_seat": "second"})
    play(env, "tictactoe", 4, make_scripted("tictactoe", "perfect"), lambda prompt: next(answers), said.append)
    text = "\n".join(said)
    assert env.acting() == () and "The game is over." in text
    assert "Try again" in text and "(reward -0.1)" in text and "Seat 0 answers" in text
    assert text.count(env.rules(1).strip()) == 1


def test_simultaneous_answers_stay_secret_in_the_terminal():
    env, said = make_env("undercover"), []
    lines = iter(["It is kind.", "It is rather large."])

    def ask(prompt):
        votes = env.legal(env.trained_seats[0])
        if votes:
            said.append("-- vote --")
        return votes[0] if votes else next(lines)

    play(env, "undercover", 5, make_scripted("undercover", "speaker"), ask, said.append)
    assert env.acting() == () and "-- vote --" in said
    assert sum(line.startswith("Seat") for line in said) == 6, "two descriptions of three opponents, no votes"


def test_a_person_can_stop(capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda prompt: "quit")
    play_in_terminal("connect_four", ["--seed", "1", "--config", "opening_moves=0"])
    assert "Stopped." in capsys.readouterr().out
    with pytest.raises(SystemExit):
        play_in_terminal("connect_four", ["--opponent", "grandmaster"])
    assert "no scripted player 'grandmaster'" in capsys.readouterr().err
