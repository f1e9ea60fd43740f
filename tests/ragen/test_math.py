"""Mathematics: the judge against the upstream graders' cases, the data, the embedded set, the env."""

import os
import re
import subprocess
import threading
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
import sympy
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from ragen.env import make_env
from ragen.env.base import derived_rng
from ragen.env.math_lv3to5 import MathConfig
from ragen.env.math_lv3to5 import judge as judging
from ragen.env.math_lv3to5.data import find_parquet, load_problems
from ragen.env.math_lv3to5.judge import exact_verdict, judge, judge_many
from ragen.env.math_lv3to5.rules import LEVELS, Exercise, draw, draw_from_split, solve, split_of


def test_verdicts_that_reward_hacking_would_like():
    wrong = [("6", "1,2,3,4,5,6"), ("6", "6 or 7"), ("67", "6 7"), ("\\frac{11}{2}", "1 1/2"), ("6", "\\boxed{5} \\boxed{6}"),
             ("(1,2)", "(2,1)"), ("\\frac{1}{3}", "0.33"), ("5", ""), ("2", "__import__('os')"), ("5", "no " * 600)]
    right = [("\\text{east}", "East"), ("\\frac{3}{4}", "0.75"), ("1,2", "2,1"), ("4", "x=4"), ("\\$18.90", "18.9"),
             ("1000", "1,000"), ("36^\\circ", "36"), ("5", "$\\boxed{5}$."), ("\\frac{1}{2}", "-3/-6")]
    verdicts = judge_many(wrong + right, timeout=20)
    assert [pair for pair, verdict in zip(wrong, verdicts, strict=False) if verdict] == []
    assert [pair for pair, verdict in zip(right, verdicts[len(wrong):], strict=False) if not verdict] == []


def test_a_hostile_answer_is_stopped_off_the_main_thread_and_the_pool_lives_on():
    judge("x+1", "1+x", 20)  # so that starting a process is not what is timed
    undecided, seen = judging._pool().undecided, {}

    def play():
        start = time.monotonic()
        seen["verdict"] = judge("4", "9^{9^{9^{9}}}", timeout=0.5)
        seen["seconds"] = time.monotonic() - start

    thread = threading.Thread(target=play)
    thread.start(), thread.join()
    assert seen["verdict"] is False and seen["seconds"] < 15, "half a second of CPU time, also on a busy machine"
    assert judging._pool().undecided == undecided + 1
    assert judge("2(x+1)", "2x+2", 20)


def test_a_worker_that_dies_costs_one_answer():
    pool = judging.JudgePool()
    try:
        assert pool.compare("x+1", "1+x", 20)
        pool._idle[0].process.kill()
        assert pool.compare("x+1", "1+x", 20) is False and pool.undecided == 1
        assert pool.compare("x+1", "1+x", 20)
    finally:
        pool.close()


@given(st.integers(-99, 99), st.integers(1, 99), st.integers(-99, 99), st.integers(1, 99))
@settings(max_examples=200, deadline=None)
def test_whole_numbers_and_fractions_need_no_process(a, b, c, d):
    for gold, pred in ((f"{a}/{b}", f"{c}/{d}"), (f"\\frac{{{a}}}{{{b}}}", f"${c}/{d}$"), (str(a), f"\\boxed{{{c}}}")):
        left, right = (Fraction(a), Fraction(c)) if gold == str(a) else (Fraction(a, b), Fraction(c, d))
        assert exact_verdict(gold, pred) is (left == right)
    assert exact_verdict("x+1", "1+x") is None


# -- data ------------------------------------------------------------------------------------------


def test_parquet_is_read_once_and_empty_answers_are_counted(gift_data, monkeypatch):
    import pyarrow.parquet as parquet

    reads = []
    real = parquet.read_table
    monkeypatch.setattr(parquet, "read_table", lambda path, **kw: (reads.append(path), real(path, **kw))[1])
    load_problems.cache_clear()
    config = {"data_path": str(gift_data / "math/simplelr_qwen_level3to5")}
    for seed in range(5):
        env = make_env("math_lv3to5", config)
        env.reset(seed=seed)
        assert env.problem.question in env.observe(0) and env.problem.level in (3, 4, 5)
    assert len(reads) == 1
    loaded = load_problems(find_parquet(config["data_path"], "train"))
    assert (len(loaded.problems), loaded.left_out) == (8521, 2)
    assert Counter(p.level for p in loaded.problems).keys() == {3, 4, 5}
    assert len(load_problems(find_parquet(config["data_path"], "test")).problems) == 250


def test_levels_filter_the_parquet(gift_data):
    env = make_env("math_lv3to5", {"data_path": str(gift_data / "math/simplelr_qwen_level3to5"), "levels": [4]})
    for seed in range(20):
        env.reset(seed=seed)
        assert env.problem.level == 4
    absent = make_env("math_lv3to5", {"data_path": str(gift_data / "math/simplelr_qwen_level3to5"), "levels": [1]})
    with pytest.raises(ValueError, match="levels .* pick no problem"):
        absent.reset(seed=0)


def test_the_right_answer_of_a_real_problem_is_paid(gift_data):
    env = make_env("math_lv3to5", {"data_path": str(gift_data / "math/simplelr_qwen_level3to5"), "split": "test"})
    for seed in range(10):
        env.reset(seed=seed)
        assert env.act(0, f"\\boxed{{{env.problem.answer}}}").reward == 1.0
        assert env.outcome()[0].success


def test_missing_data_says_what_to_set(monkeypatch, tmp_path):
    monkeypatch.delenv("GIFT_DATA", raising=False)
    with pytest.raises(ValueError, match="data_path.*GIFT_DATA.*embedded"):
        make_env("math_lv3to5")
    with pytest.raises(ValueError, match="train.parquet"):
        make_env("math_lv3to5", {"data_path": str(tmp_path)})


@pytest.mark.parametrize(("key", "value"), [("source", "web"), ("split", "dev"), ("levels", [6]), ("judge_timeout", 0)])
def test_wrong_config_names_the_key(key, value):
    with pytest.raises(ValueError, match=key):
        MathConfig(**{key: value})


# -- embedded --------------------------------------------------------------------------------------


def by_sympy(exercise: Exercise) -> Fraction:
    x, y = sympy.symbols("x y")
    n = exercise.numbers
    if exercise.kind in ("sum", "product"):
        return Fraction(n[0] + n[1]) if exercise.kind == "sum" else Fraction(n[0] * n[1] + n[2])
    if exercise.kind == "linear":
        (found,) = sympy.solve(n[0] * x + n[1] - n[2], x)
    elif exercise.kind == "both_sides":
        (found,) = sympy.solve(n[0] * x + n[1] - n[2] * x - n[3], x)
    else:
        found = sympy.solve([n[0] * x + n[1] * y - n[2], n[3] * x + n[4] * y - n[5]], [x, y])[x]
    return Fraction(int(found.p), int(found.q))


@pytest.mark.parametrize("level", LEVELS)
def test_embedded_answers_agree_with_sympy(level):
    for seed in range(12):
        exercise = draw(derived_rng("test", seed), level)
        assert exercise.level == level and solve(exercise) == by_sympy(exercise)


def test_the_words_say_what_the_numbers_say():
    """The text alone is enough: read back from it, by sympy, the answer is the same."""
    env = make_env("math_lv3to5", {"source": "embedded"})
    for seed in range(80):
        env.reset(seed=seed)
        text = re.sub(r"(\d)([xy])", r"\1*\2", env.problem.question)
        side = r"-?(?:(?:\d+\*)?[xy]|\d+)(?: [-+] (?:(?:\d+\*)?[xy]|\d+))?"
        equations = re.findall(rf"(?<![a-z]){side} = {side}", text)
        if env.problem.level <= 2:
            found = sympy.sympify(re.search(r"\d[-+* \d]+\d", text)[0])
        else:
            sides = [e.split("=") for e in equations]
            solved = sympy.solve([sympy.sympify(a) - sympy.sympify(b) for a, b in sides], dict=True)[0]
            found = solved[sympy.Symbol("x")]
        assert found == sympy.Rational(env.problem.answer), env.problem


def test_splits_share_no_exercise():
    drawn = {
        split: {draw_from_split(derived_rng(split, s), 1 + s % 5, split)[:2] for s in range(500)} for split in ("train", "test")
    }
    assert not drawn["train"] & drawn["test"]
    share = sum(split_of(draw(derived_rng(s), 1 + s % 5)) == "test" for s in range(2000)) / 2000
    assert 0.15 < share < 0.25


def test_embedded_env_pays_exactly_and_starts_no_process(monkeypatch):
    monkeypatch.setattr(judging, "_pool", lambda: pytest.fail("the embedded set needs no process"))
    env = make_env("math_lv3to5", {"source": "embedded", "levels": [3, 4]})
    for seed in range(50):
        env.reset(seed=seed)
        assert env.act(0, " ").reward == -0.1 and env.acting() == (0,)
        verdict = env.act(0, env.problem.answer)
        assert verdict.reward == 1.0 and env.acting() == () and env.outcome()[0].success
        env.reset(seed=seed)
        assert env.act(0, str(Fraction(env.problem.answer) + 1)).reward == 0.0 and not env.outcome()[0].success


def test_gymnasium_checker_and_fairness():
    env = make_env("math_lv3to5", {"source": "embedded"})
    check_env(env, skip_render_check=True)
    other, levels, tails = make_env("math_lv3to5", {"source": "embedded"}), Counter(), Counter()
    for seed in range(10_000):
        text = env.reset(seed=seed)[0]
        levels[env.problem.level] += 1
        tails[text.rsplit("\n", 1)[1]] += 1
        if seed < 200:
            assert other.reset(seed=seed)[0] == text
    assert len(levels) == 5 and chisquare(list(levels.values())).pvalue > 1e-4
    assert len(tails) == 4 and chisquare(list(tails.values())).pvalue > 1e-4


def test_workers_end_with_their_parent():
    """A worker whose parent is killed reads the end of its input and leaves."""
    code = (
        "from ragen.env.math_lv3to5.judge import judge, _pool; judge('x+1', '1+x', 60);"
        "print(_pool()._idle[0].process.pid, flush=True); import os; os.kill(os.getpid(), 9)"
    )
    import sys

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    pid = int(done.stdout)
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return  # ended, not yet reaped by whoever adopted it
        time.sleep(0.1)
    pytest.fail(f"worker {pid} outlived its parent")
