"""The small games of the shelf: solvable, checked by Gymnasium, spread evenly."""

import ast
import contextlib
from collections import Counter
from fractions import Fraction

import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from ragen.env import make_env
from ragen.env.bandit.rules import Bandit, pull
from ragen.env.base import derived_rng
from ragen.env.connect_four import rules as c4
from ragen.env.countdown.rules import evaluate
from ragen.env.frozen_lake.rules import draw_map, shortest_path, slip
from ragen.env.mmlu.sample import SAMPLE
from ragen.env.sokoban.rules import DIRECTIONS, OPPOSITE, Room, draw_level, move, pull_back, solved

SOLO = ("bandit", "countdown", "frozen_lake", "sokoban", "mmlu", "nash_new")


@pytest.mark.parametrize("env_type", SOLO)
def test_gymnasium_checker(env_type):
    check_env(make_env(env_type), skip_render_check=True)


@pytest.mark.parametrize("env_type", (*SOLO, "connect_four", "tictactoe"))
def test_a_group_shares_one_prompt(env_type):
    first, second = make_env(env_type), make_env(env_type)
    for seed in range(100):
        first.reset(seed=seed), second.reset(seed=seed)
        assert first.trained_seats == second.trained_seats
        for seat in range(first.seats):
            assert (first.rules(seat), first.observe(seat)) == (second.rules(seat), second.observe(seat))


@pytest.mark.parametrize(
    ("env_type", "config"),
    [
        ("bandit", {"arms": 1}), ("bandit", {"gap": 0}), ("countdown", {"numbers": 9}), ("frozen_lake", {"size": 2}),
        ("frozen_lake", {"frozen": 0.1}), ("sokoban", {"boxes": 4}), ("sokoban", {"max_steps": 3}), ("connect_four", {"connect": 9}),
        ("connect_four", {"trained_seat": "third"}), ("mmlu", {"source": "web"}), ("mmlu", {"data_path": "x.jsonl"}),
    ],
)
def test_wrong_config_names_the_key(env_type, config):
    with pytest.raises(ValueError, match=next(iter(config))):
        make_env(env_type, config)


def evenly(counts, categories):
    return len(counts) == categories and chisquare(list(counts.values())).pvalue > 1e-4


@pytest.mark.parametrize(("env_type", "seats"), [("tictactoe", 2), ("connect_four", 2)])
def test_seats_are_spread_evenly_over_10000_seeds(env_type, seats):
    env, counts, tellings = make_env(env_type), Counter(), Counter()
    for seed in range(10_000):
        env.reset(seed=seed)
        counts[env.trained_seats] += 1
        tellings[env.rules(0)] += 1
    assert evenly(counts, seats)
    assert len(tellings) >= 4 and max(tellings.values()) < 3 * 10_000 / len(tellings) + 200


# -- bandit ------------------------------------------------------------------------------------------


def test_bandit_pays_at_its_chances_whatever_was_pulled_before():
    bandit = Bandit((0.2, 0.9), 5)
    for arm, chance in enumerate(bandit.chances):
        assert abs(sum(pull(bandit, arm, n) for n in range(2000)) / 2000 - chance) < 0.04
    env = make_env("bandit", {"pulls": 4})
    env.reset(seed=1)
    rewards = [env.act(0, str(env.bandit.best + 1)).reward for _ in range(4)]
    assert env.outcome()[0].success and rewards == [pull(env.bandit, env.bandit.best, n) / 4 for n in range(4)]


def test_bandit_best_lever_is_anywhere_and_clearly_best():
    env, places = make_env("bandit"), Counter()
    for seed in range(3000):
        env.reset(seed=seed)
        ranked = sorted(env.bandit.chances)
        assert ranked[-1] - ranked[-2] >= 0.3 - 1e-9 and ranked[0] >= 0 and ranked[-1] <= 1
        places[env.bandit.best] += 1
    assert evenly(places, 3)


# -- countdown ---------------------------------------------------------------------------------------


def test_countdown_is_solvable_and_pays_the_solution():
    for numbers in (3, 4, 5):
        env = make_env("countdown", {"numbers": numbers})
        for seed in range(150):
            env.reset(seed=seed)
            assert 1 <= env.target <= 100
            assert env.act(0, f"{env.solution} = {env.target}").reward == 1.0 and env.outcome()[0].success


def test_countdown_refuses_what_is_no_expression_of_its_numbers():
    env = make_env("countdown")
    env.reset(seed=0)
    for text in ("", "abc", "__import__('os')", "1+", "(1", "9**9", str(env.target), "1/0", "+".join(map(str, env.numbers[:3]))):
        verdict = env.act(0, text)
        assert not verdict.valid and verdict.reward == -0.1, text
    wrong = "-".join(map(str, sorted(env.numbers)))
    verdict = env.act(0, wrong)
    assert verdict.valid and verdict.reward == 0.0 and env.acting() == ()
    partial = make_env("countdown", {"use_all": False})
    partial.reset(seed=0)
    assert partial.act(0, "-".join(map(str, partial.numbers[:2]))).valid


numbers = st.integers(1, 50).map(str)
expressions = st.recursive(
    numbers, lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*", "/", " + ", "*("]), inner).map(
        lambda t: f"{t[0]}*({t[2]})" if "(" in t[1] else f"({t[0]}{t[1]}{t[2]})" if len(t[1]) == 1 else f"{t[0]}{t[1]}{t[2]}"
    ), max_leaves=6,
)


def by_ast(node):
    """The value by Python's own grammar, in exact fractions."""
    if isinstance(node, ast.Constant):
        return Fraction(node.value)
    a, b = by_ast(node.left), by_ast(node.right)
    return {ast.Add: lambda: a + b, ast.Sub: lambda: a - b, ast.Mult: lambda: a * b, ast.Div: lambda: a / b}[type(node.op)]()


@settings(max_examples=150, deadline=None)
@given(expressions)
def test_countdown_parser_agrees_with_python(text):
    try:
        expected = by_ast(ast.parse(text, mode="eval").body)
    except ZeroDivisionError:
        with pytest.raises(ValueError, match="zero"):
            evaluate(text)
        return
    assert evaluate(text)[0] == expected


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=300))
def test_countdown_parser_raises_only_value_errors(text):
    with contextlib.suppress(ValueError):
        evaluate(text)


# -- frozen lake -------------------------------------------------------------------------------------


def test_every_lake_has_a_way_and_walking_it_wins():
    env = make_env("frozen_lake", {"size": 5, "frozen": 0.6, "max_steps": 30})
    for seed in range(200):
        env.reset(seed=seed)
        path = shortest_path(env.lake, env.at)
        for direction in path:
            verdict = env.act(0, direction.capitalize())
            assert verdict.valid and verdict.effective
        assert env.outcome()[0].success and verdict.reward == 1.0


def test_lake_holes_edges_and_time():
    env = make_env("frozen_lake", {"max_steps": 3})
    env.reset(seed=0)
    env.lake, env.at = ("..O", "...", "..G"), (0, 0)
    assert not env.act(0, "up").effective and env.acting() == (0,)
    env.act(0, "right"), env.act(0, "right")
    assert env.acting() == () and not env.outcome()[0].success and env.outcome()[0].metrics["fell"] == 1
    env.reset(seed=1)
    for _ in range(3):
        env.act(0, "left" if env.at[1] else "up")
        if not env.acting():
            break
    assert env.acting() == ()


def test_slips_go_to_the_sides_a_third_each():
    went = Counter(slip(derived_rng(n), "up") for n in range(3000))
    assert set(went) == {"up", "left", "right"} and evenly(went, 3)
    assert len({draw_map(derived_rng(s), 4, 0.8) for s in range(50)}) > 45


# -- sokoban -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "boxes", "scramble"), [(5, 1, 10), (6, 1, 15), (7, 2, 20), (8, 3, 25)])
def test_sokoban_levels_are_solved_by_their_solution(size, boxes, scramble):
    for seed in range(15):
        room, solution = draw_level(derived_rng("test", seed), size, boxes, 0.1, scramble)
        assert not solved(room) and len(solution) == scramble and len(room.boxes) == boxes
        for direction in solution:
            room = move(room, direction)
        assert solved(room)


def test_sokoban_env_pays_the_solution():
    env = make_env("sokoban")
    for seed in range(40):
        env.reset(seed=seed)
        steps = iter(env.solution)
        while env.acting():
            verdict = env.act(0, next(steps).capitalize())
        assert env.outcome()[0].success and verdict.reward == 1.0


def test_sokoban_pushes_and_never_pulls():
    room = Room(("######", "#....#", "######"), ((1, 3),), ((1, 2),), (1, 1))
    assert solved(move(room, "right")) and move(room, "right").player == (1, 2)
    assert move(move(room, "right"), "left").boxes == ((1, 3),)
    blocked = room._replace(boxes=((1, 2), (1, 3)))
    assert move(blocked, "right") == blocked and move(room, "up") == room


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(DIRECTIONS)), st.booleans())
def test_a_step_undoes_a_step_back(seed, direction, pull):
    room, _ = draw_level(derived_rng(seed % 50), 6, 2, 0.1, 12)
    back = pull_back(room, direction, pull)
    if back is not None:
        assert move(back, OPPOSITE[direction]) == room


# -- connect four ------------------------------------------------------------------------------------


def brute_force_winner(board):
    rows = [board.cells[r * board.columns : (r + 1) * board.columns] for r in range(board.rows)]
    cell = lambda r, c: rows[r][c] if 0 <= r < board.rows and 0 <= c < board.columns else "."
    for r in range(board.rows):
        for c in range(board.columns):
            for dr, dc in ((0, 1), (1, 0), (1, 1), (1, -1)):
                marks = {cell(r + dr * k, c + dc * k) for k in range(board.connect)}
                if len(marks) == 1 and marks != {"."}:
                    return marks.pop()
    return None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(6, 7, 4), (4, 5, 3), (5, 5, 4)]))
def test_connect_four_rules_agree_with_brute_force(seed, shape):
    rng, board, last = derived_rng(seed), c4.empty_board(*shape), None
    while not c4.is_over(board):
        last = c4.to_move(board)
        board = c4.drop(board, rng.choice(c4.open_columns(board)))
        assert c4.winner(board) == brute_force_winner(board)
    assert "." not in board.cells or c4.winner(board) == last


def test_connect_four_rewards_both_seats():
    env = make_env("connect_four", {"opening_moves": 0})
    env.reset(seed=0)
    for column in "1212121":
        env.act(env.acting()[0], column)
    outcome = env.outcome()
    assert env.acting() == () and outcome[0].success and outcome[0].reward == 1.0
    assert not outcome[1].success and outcome[1].reward == 0.0 and outcome[1].metrics == {"draw": 0.0, "loss": 1.0}


# -- mmlu --------------------------------------------------------------------------------------------


def test_mmlu_pays_the_right_choice_wherever_it_stands():
    env, places = make_env("mmlu"), Counter()
    for seed in range(2000):
        env.reset(seed=seed)
        place = env.order.index(env.question.answer)
        places[place] += 1
        letter = "ABCD"[place]
        assert f"{letter}. {env.question.choices[env.question.answer]}\n" in env.observe(0)
        assert env.act(0, letter if seed % 2 else f"({letter.lower()})").reward == 1.0
    assert evenly(places, 4)


def test_mmlu_embedded_sample_is_sound():
    assert len({row[0] for row in SAMPLE}) == len(SAMPLE) == 40
    assert all(len(set(row[1])) == 4 and 0 <= row[2] < 4 for row in SAMPLE)
    assert evenly(Counter(row[2] for row in SAMPLE), 4)


def test_mmlu_reads_the_published_files(gift_data, tmp_path):
    for file in ("mmlu/mmlu_dev.jsonl", "mmlu_pro/mmlu_pro_test_sample.jsonl"):
        env = make_env("mmlu", {"source": "file", "data_path": str(gift_data / file), "shuffle_choices": False})
        for seed in range(10):
            env.reset(seed=seed)
            assert env.act(0, "ABCDEFGHIJ"[env.question.answer]).reward == 1.0
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"question": "?", "choices": ["a", "b"], "answer": 7}\n')
    with pytest.raises(ValueError, match="line 1"):
        make_env("mmlu", {"source": "file", "data_path": str(broken)}).reset(seed=0)
