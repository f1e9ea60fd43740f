"""Tic-tac-toe against facts computed elsewhere, and the fairness of its seeds."""

import itertools
import json
import time

import pytest

from ragen.env import make_env
from ragen.env.conformance import check_env_contract
from ragen.env.tictactoe import rules as ttt
from ragen.env.tictactoe.env import parse_move


def reachable() -> set[str]:
    boards, frontier = {ttt.EMPTY_BOARD}, [ttt.EMPTY_BOARD]
    while frontier:
        board = frontier.pop()
        if not ttt.is_over(board):
            for cell in ttt.empty_cells(board):
                after = ttt.play(board, cell)
                if after not in boards:
                    boards.add(after)
                    frontier.append(after)
    return boards


def test_state_space_and_value_are_the_known_ones():
    boards = reachable()
    assert len(boards) == 5478  # a textbook number
    assert sum(map(ttt.is_over, boards)) == 958
    assert ttt.value(ttt.EMPTY_BOARD) == 0


def test_values_and_best_moves_agree_with_the_shared_positions(gift_data):
    marks = str.maketrans("xo", "OX")  # there x moves first, here O does
    rows = [json.loads(line) for line in (gift_data / "games/tictactoe_positions.jsonl").open()]
    assert rows
    for row in rows:
        board = row["board"].translate(marks)
        assert ttt.value(board) == row["value_x"], row
        assert ttt.is_over(board) == row["terminal"], row
        if not row["terminal"]:
            assert list(ttt.best_cells(board)) == sorted(row["optimal_moves"]), row
            assert list(ttt.winning_cells(board, ttt.to_move(board))) == sorted(row["immediate_wins"]), row


@pytest.mark.parametrize(
    ("text", "cell"),
    [("(1,1)", 0), ("(3,3)", 8), (" ( 2 , 3 ) ", 5), ("2,3", 5), ("2 3", 5), ("(0,1)", None), ("(4,1)", None), ("(1,1) (2,2)", None),
     ("(11,1)", None), ("", None), ("centre", None), ("(-1,2)", None)],
)  # fmt: skip
def test_a_move_is_exactly_one_cell_of_the_board(text, cell):
    assert parse_move(text) == cell


def test_contract():
    check_env_contract(lambda: make_env("tictactoe", {}), seeds=range(12))


def test_wrong_move_costs_and_may_be_tried_again():
    env = make_env("tictactoe", {"opening_moves": 0})
    env.reset(seed=1)
    env.act(0, "(1,1)")
    verdict = env.act(1, "(1,1)")
    assert not verdict.valid and verdict.reward == pytest.approx(-0.1) and "taken" in verdict.feedback
    assert env.acting() == (1,)
    assert env.act(1, "(2,2)").valid
    with pytest.raises(ValueError, match="seat 1 cannot act"):
        env.act(1, "(3,3)")


@pytest.mark.parametrize(
    ("moves", "rewards", "successes", "metrics"),
    [
        ("0 3 1 4 2", (1.0, 0.0), (True, False), ({"draw": 0, "loss": 0}, {"draw": 0, "loss": 1})),
        ("0 1 2 4 3 5 7 6 8", (0.5, 0.5), (False, False), ({"draw": 1, "loss": 0}, {"draw": 1, "loss": 0})),
        ("0 3", (0.0, 0.0), (False, False), ({"draw": 0, "loss": 0}, {"draw": 0, "loss": 0})),  # stopped before its end
    ],
)
def test_outcome(moves, rewards, successes, metrics):
    env = make_env("tictactoe", {"opening_moves": 0})
    env.reset(seed=0)
    for cell in map(int, moves.split()):
        env.act(env.acting()[0], ttt.cell_name(cell))
    outcome = env.outcome()
    for seat in (0, 1):
        assert (outcome[seat].reward, outcome[seat].success) == (rewards[seat], successes[seat])
        assert outcome[seat].metrics == metrics[seat]


def test_seeds_spread_seats_openings_and_wordings_evenly():
    env = make_env("tictactoe", {})
    seats, openings, wordings = {0: 0, 1: 0}, {0: 0, 2: 0}, {}
    n = 4000
    for seed in range(n):
        env.reset(seed=seed)
        seats[env.trained_seats[0]] += 1
        openings[9 - env.board.count(".")] += 1
        text = env.rules(0).split(" Three")[0].split(" Whoever")[0].split(" The winner")[0].strip()
        wordings[text] = wordings.get(text, 0) + 1
        assert ttt.winner(env.board) is None
    for counts in (seats, openings, wordings):
        expected = n / len(counts)
        statistic = sum((c - expected) ** 2 / expected for c in counts.values())
        assert statistic < 25, counts  # chi-square with at most 5 degrees of freedom: p < 0.0002
    assert len(wordings) == 6


def test_validation_board_is_empty_and_both_seats_see_the_same_board():
    for seed, opening in itertools.product(range(20), (0, 1)):
        env = make_env("tictactoe", {"opening_moves": opening})
        env.reset(seed=seed)
        if opening == 0:
            assert env.board == ttt.EMPTY_BOARD
        assert env.public(0)[0] == env.public(1)[0]


def test_a_run_of_spaces_costs_in_proportion():
    def seconds(count: int) -> float:
        best = float("inf")
        for _ in range(3):
            started = time.process_time()
            assert parse_move("1" + " " * count + "x") is None
            best = min(best, time.process_time() - started)
        return best

    assert seconds(40_000) < 30 * max(seconds(5_000), 1e-4)  # eight times the text; a square would be 64
    assert parse_move("(2 ,\t3 )") == parse_move("2   3") == parse_move("2;3") == 5
