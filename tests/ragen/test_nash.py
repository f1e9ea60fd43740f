"""Matrix games: equilibria against the shared data and nashpy, the generator, the env, fairness."""

import json
import re
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from ragen.env import make_env
from ragen.env.base import derived_rng
from ragen.env.nash_new import NashConfig
from ragen.env.nash_new.config import PAPER_GAMES, SIGN_FLIPPED
from ragen.env.nash_new.equilibria import solve, support_equilibria
from ragen.env.nash_new.rules import MatrixGame, generate_game, right_actions
from ragen.env.nash_new.wording import PRESENTATIONS, Telling

#: games where nashpy's support enumeration does not list every extreme equilibrium. All are
#: degenerate: the missing ones have supports of unequal size, or lie where the indifference
#: equations are singular. `any` therefore reads the vertices instead.
INCOMPLETE_SUPPORT_ENUMERATION = {
    "gift_weakly_dominated_game": "(row 2 and 3 mixed 3:1, column 1) has supports of sizes 2 and 1",
    "nashpy_degenerate_3x3": "three extreme equilibria mix two actions against one",
}


def is_equilibrium(row, column, x, y, tolerance=Fraction(1, 10**6)) -> bool:
    """The definition, in exact arithmetic: no pure action beats the mixture of either player."""
    x, y = ([Fraction(p).limit_denominator(10**5) for p in s] for s in (x, y))
    by_row = [sum(v * q for v, q in zip(line, y, strict=True)) for line in row]
    by_column = [sum(line[j] * p for line, p in zip(column, x, strict=True)) for j in range(len(y))]
    value_row = sum(p * v for p, v in zip(x, by_row, strict=True))
    value_column = sum(q * v for q, v in zip(y, by_column, strict=True))
    return max(by_row) - value_row <= tolerance and max(by_column) - value_column <= tolerance


def floats(pairs):
    return [tuple(tuple(round(float(Fraction(p)), 9) for p in side) for side in pair) for pair in pairs]


@pytest.mark.parametrize("file", ["gift_matrix_games.jsonl", "matrix_games.jsonl"])
def test_equilibria_agree_with_the_shared_data(gift_data, file):
    for line in (gift_data / "games" / file).read_text().splitlines():
        known = json.loads(line)
        solution = solve(*(tuple(map(tuple, known[side])) for side in "AB"))
        expected = floats(known["extreme_equilibria"])
        assert list(solution.extreme) == expected, known["name"]
        assert solution.degenerate == known["degenerate"], known["name"]
        complete = known["name"] not in INCOMPLETE_SUPPORT_ENUMERATION
        by_nashpy = support_equilibria(*(np.array(known[side]) for side in "AB"))
        assert (list(by_nashpy) == expected) is complete, known["name"]
        assert (complete or known["degenerate"]) and solution.listed == by_nashpy


def test_the_nine_games_are_the_shared_data(gift_data):
    rows = [json.loads(line) for line in (gift_data / "games/gift_matrix_games.jsonl").read_text().splitlines()]
    assert {r["name"].removeprefix("gift_"): MatrixGame(*(tuple(map(tuple, r[s])) for s in "AB")) for r in rows} == PAPER_GAMES
    assert tuple(r["name"].removeprefix("gift_") for r in rows[:7]) == SIGN_FLIPPED


@pytest.mark.parametrize("name", PAPER_GAMES)
@pytest.mark.parametrize("sign", [1, -1])
def test_every_listed_equilibrium_is_one_and_offsets_move_none(name, sign):
    game = MatrixGame(*PAPER_GAMES[name]).transformed(sign, 0)
    solution = solve(*game)
    assert solution.listed and solution.extreme
    for x, y in {*solution.listed, *solution.extreme}:
        assert is_equilibrium(*game, x, y)
    for offset in (100, -100):
        assert solve(*game.transformed(1, offset)) == solution
    by_nashpy = support_equilibria(*map(np.array, game))
    assert set(by_nashpy) <= {*solution.listed} and (solution.degenerate or by_nashpy == solution.extreme)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.data())
def test_vertex_enumeration_finds_true_equilibria_in_any_game(m, n, data):
    """Small payoffs make ties, hence degenerate games, frequent: the fallback must always find one,
    and miss no pure equilibrium."""
    cell = st.integers(-2, 2)
    row, column = (tuple(tuple(data.draw(cell) for _ in range(n)) for _ in range(m)) for _ in range(2))
    solution = solve(row, column)
    assert solution.extreme
    assert all(is_equilibrium(row, column, x, y) for x, y in {*solution.extreme, *solution.listed})
    pure = {
        (i, j)
        for i in range(m)
        for j in range(n)
        if row[i][j] == max(r[j] for r in row) and column[i][j] == max(column[i])
    }
    found = {(x.index(1.0), y.index(1.0)) for x, y in solution.extreme if 1.0 in x and 1.0 in y}
    assert found == pure
    by_nashpy = set(support_equilibria(np.array(row), np.array(column)))
    assert solution.degenerate or by_nashpy <= set(solution.extreme) and len(solution.extreme) % 2 == 1


def test_right_actions_of_known_games():
    chicken = MatrixGame(*PAPER_GAMES["game_of_chicken"])  # listed last: both swerve with 9/10
    assert right_actions(chicken, "row", "paper") == {1} and right_actions(chicken, "row", "any") == {0, 1}
    weak = MatrixGame(*PAPER_GAMES["weakly_dominated_game"])
    assert right_actions(weak, "row", "paper") == {2} and right_actions(weak, "row", "any") == {1, 2}
    sexes = MatrixGame(*PAPER_GAMES["battle_of_sex"])  # each mixes 2:1 towards its own favourite
    assert right_actions(sexes, "row", "paper") == {0} and right_actions(sexes, "column", "paper") == {1}


@pytest.mark.parametrize("size", [2, 3, 4])
def test_generated_games_have_the_planted_equilibrium(size):
    supports = Counter()
    for seed in range(25):
        planted = generate_game(derived_rng("test", seed), size)
        x, y = ([w / sum(weights) for w in weights] for weights in (planted.row_weights, planted.column_weights))
        assert is_equilibrium(*planted.game, x, y)
        pair = tuple(tuple(round(p, 9) for p in side) for side in (x, y))
        assert pair in solve(*planted.game).listed, "the known equilibrium is found"
        assert np.abs(planted.game).max() <= 20
        supports[sum(w > 0 for w in planted.row_weights)] += 1
    assert set(supports) == set(range(1, size + 1))


@pytest.mark.parametrize("name", PRESENTATIONS)
@pytest.mark.parametrize("role", ["row", "column"])
def test_every_presentation_tells_the_whole_game(name, role):
    """Payoffs made of distinct numbers can be told apart: all must stand in the text, and where a
    line or cell pairs two numbers, it is the right two in the right order."""
    rows, columns = 2, 3
    mine_shape = (rows, columns) if role == "row" else (columns, rows)
    mine = np.arange(201, 207).reshape(mine_shape).tolist()
    theirs = np.arange(301, 307).reshape(mine_shape).tolist()
    names = tuple("KLM")[: mine_shape[0]], tuple("XYZ")[: mine_shape[1]]
    text = PRESENTATIONS[name](Telling(role, mine, theirs, *names))
    numbers = re.findall(r"[23]0\d", text)
    assert sorted(numbers) == sorted(str(v) for m in (mine, theirs) for line in m for v in line)
    assert all(n in text for side in names for n in side)
    if name in ("two_tables", "arrays"):  # own payoffs first, then the other's, oriented row x column
        own = np.array(mine) if role == "row" else np.array(mine).T
        assert numbers[:6] == [str(v) for v in own.ravel()]
    else:
        assert all(int(b) == int(a) + 100 for a, b in zip(numbers[::2], numbers[1::2], strict=True))


def test_the_env_pays_and_refuses():
    env = make_env("nash_new", {"role": "row", "games": ["prison_dilemma"], "sign_flip": False, "labels": "letters"})
    env.reset(seed=3)
    before = env.observe(0)
    verdict = env.act(0, "Cooperate")
    assert not verdict.valid and not verdict.effective and verdict.reward == -0.1
    assert env.acting() == (0,) and env.observe(0) == before
    verdict = env.act(0, " Action b ")  # defect
    assert verdict.valid and verdict.reward == 1.0 and env.outcome()[0].success and env.acting() == ()
    env.reset(seed=3)
    assert env.act(0, "A").reward == 0.0 and not env.outcome()[0].success


@pytest.mark.parametrize(
    ("key", "value"),
    [("role", "rows"), ("equilibrium", "all"), ("games", ["chess"]), ("size", 9), ("presentations", []), ("offsets", [])],
)
def test_wrong_config_names_key_and_value(key, value):
    with pytest.raises(ValueError, match=key):
        NashConfig(**{key: value})


def spread_evenly(counts: Counter, categories: int) -> bool:
    assert len(counts) == categories
    return chisquare(list(counts.values())).pvalue > 1e-4


def test_fairness_over_10000_seeds():
    env = make_env("nash_new")
    drawn = []
    for seed in range(10_000):
        env.reset(seed=seed)
        drawn.append((env.role(0), env.game_name, env.offset, env.presentation, env.sign, env._names[0]))
    roles, games, offsets, presentations, _, _ = map(Counter, zip(*drawn, strict=True))
    assert spread_evenly(roles, 2)
    assert spread_evenly(games, 9)
    assert spread_evenly(offsets, 3)
    assert spread_evenly(presentations, len(PRESENTATIONS)) and len(PRESENTATIONS) >= 12
    assert spread_evenly(Counter((d[0], d[1]) for d in drawn), 18)
    assert spread_evenly(Counter((d[1], d[4]) for d in drawn if d[1] in SIGN_FLIPPED), 14)
    assert {d[4] for d in drawn if d[1] not in SIGN_FLIPPED} == {1}
    assert spread_evenly(Counter(d[5] for d in drawn), 2)


def test_a_group_shares_one_prompt_and_seeds_differ():
    first, second = make_env("nash_new"), make_env("nash_new")
    texts = set()
    for seed in range(200):
        first.reset(seed=seed), second.reset(seed=seed)
        assert first.rules(0) + first.observe(0) == second.rules(0) + second.observe(0)
        texts.add(first.observe(0))
    assert len(texts) > 180
