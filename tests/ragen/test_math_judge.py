"""The maths judge: against labels made by hand, math-verify, pairs that sympy makes, and what a policy could try."""

import contextlib
import itertools
import json
import time
from fractions import Fraction

import pytest
import sympy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ragen.env.math_lv3to5.answer_compare import same_answer
from ragen.env.math_lv3to5.final_answer import final_statements
from ragen.env.math_lv3to5.judge import exact_verdict, judge, judge_many

#: (gold, prediction) of the shared cases -> (verdict by hand, why the file's `expected` is wrong or a matter of form).
#: Labelled from the 138 pairs, before `expected` and this judge's verdicts were looked at (an earlier judge's six
#: disagreements with `expected` had been seen).
CORRECTED = {
    ("$9$", "Answer $ \n 9 \n $"): (True, "the upstream case is about LaTeX on one line; the answer is 9"),
    ("$10/9$", "Answer $ \\frac{1}{2} \\$ = \\frac{10}{9} $"): (False, "states that 1/2 is 10/9"),
    ("$x = 11$", "$x = 5+5+1 = 7 =11$"): (False, "states that 7 is 11"),
    ("$x = 1/3$", "$x = 5+5+1 = 1/3 \\approx 11$"): (False, "states that 11 is 1/3"),
    ("$1/3$", "$x=1/3\\approx1.3$"): (False, "1/3 is not about 1.3"),
    ("$1 = \\zzz = x = 0$", "$0$"): (False, "the gold answer contradicts itself, so nothing is equal to it"),
    ("$z = 1 + 1 = 2$", "$z = 3+3 = 2$"): (False, "states that 3+3 is 2"),
    ("$(\\begin{pmatrix}\\frac{1}{3}\\\\ \\frac{1}{5} \\end{pmatrix})$", "$\\begin{pmatrix}0.33\\\\0.2 \\end{pmatrix}$"):
        (False, "0.33 is not 1/3; upstream rounds to two digits in this case"),
    ("$f(x)$", "$f(y)$"): (False, "x is not y; upstream switches the comparison of variables off in this case"),
    ("10, 4, -2", "4, 10, -2"): (True, "solutions have no order; upstream compares strings"),
    ("0.1, 4, 2", "4, .1, 2"): (True, "as above"),
}  # fmt: skip

#: right by the labels, and rejected
REJECTED = {
    ("1,22", "1.22"): "a gold answer 1,22 is the pair 1 and 22, as MATH writes pairs; a decimal comma is read in predictions only",
    ("2.74", "Soucis : 2,74 $ a.."): "'a' may be a variable",
    ("$\\\\boxed{35 cm} ++++++ \\\\boxed{4}$", "${35 cm,4}$"): "boxes with plus signs between are no listing here",
}


@pytest.fixture(scope="module")
def cases(gift_data):
    return [json.loads(line) for line in (gift_data / "math/answer_equivalence_cases.jsonl").read_text().splitlines()]


def says(gold: str, pred: str) -> bool:
    """The judge's verdict in this process (no pool, no limit); as in the worker, what sympy cannot do is not right."""
    if (quick := exact_verdict(gold, pred)) is not None:
        return quick
    with contextlib.suppress(Exception):
        return same_answer(gold, pred)
    return False


def test_no_false_accept_and_no_more_false_rejects_than_math_verify(cases):
    from math_verify import parse, verify

    assert len(cases) == 138 and set(CORRECTED) <= {(c["gold"], c["pred"]) for c in cases}
    labels = {(c["gold"], c["pred"]): CORRECTED.get((c["gold"], c["pred"]), (c["expected"],))[0] for c in cases}
    assert all(label != c["expected"] for c in cases if (label := CORRECTED.get((c["gold"], c["pred"]), (None,))[0]) is not None)
    ours = dict(zip(labels, judge_many(list(labels), timeout=20), strict=True))
    theirs = {pair: bool(verify(parse(pair[0]), parse(pair[1]))) for pair in labels}
    assert [pair for pair in labels if ours[pair] and not labels[pair]] == []
    rejected = {pair for pair in labels if labels[pair] and not ours[pair]}
    assert rejected == set(REJECTED)
    assert len(rejected) <= sum(labels[pair] and not theirs[pair] for pair in labels)


def test_every_gold_answer_of_math_is_read_and_is_itself_in_other_spellings(gift_data):
    golds = [json.loads(line)["answer"] for line in (gift_data / "math/math500.jsonl").read_text().splitlines()]
    unread = [g for g in golds if not says(f"\\boxed{{{g}}}", f"The final answer is ${g}$.")]
    assert len(unread) <= 0.01 * len(golds), unread


# -- equal and unequal by construction ---------------------------------------------------------------

SMALL = st.integers(-30, 30)
FRACTIONS = st.fractions(min_value=-20, max_value=20, max_denominator=12)
WRAPPERS = ("{}", "${}$", "\\boxed{{{}}}", "\\({}\\)", "$x = {}$", "x={}", "The answer is ${}$.", "= {}", "\\left({}\\right)", "{} \\text{{ units}}")


def spellings(value: Fraction) -> list[str]:
    sign, a, b = "-" * (value < 0), abs(value.numerator), value.denominator
    found = [f"{sign}{a}/{b}", f"{sign}\\frac{{{a}}}{{{b}}}", f"\\frac{{{sign}{a}}}{{{b}}}", f"{sign}\\dfrac{{{3 * a}}}{{{3 * b}}}",
             f"\\frac{{{2 * a}}}{{{sign}{2 * b}}}", f"{sign}{a} \\cdot \\frac{{1}}{{{b}}}", f"1 + {sign}\\frac{{{a}}}{{{b}}} - 1".replace("+ -", "- ")]
    if b == 1:
        found += [f"{sign}{a}", f"{sign}{a}.0", f"{sign}{a}.", f"{sign}0{a}", f"\\sqrt{{{a * a}}}" if value >= 0 else f"-\\sqrt{{{a * a}}}"]
    elif a > b:
        found += [f"{sign}{a // b}\\frac{{{a % b}}}{{{b}}}", f"{sign}{a // b} {a % b}/{b}"]
    if 10**6 % b == 0:
        found += [f"{float(value):.6f}", f"{float(100 * value):.4f}\\%"]
    return found


@given(FRACTIONS, FRACTIONS, st.data())
@settings(max_examples=100, deadline=None)
def test_numbers_are_equal_in_every_spelling_and_to_no_other_number(a, b, data):
    gold = data.draw(st.sampled_from([f"{a.numerator}/{a.denominator}" if a.denominator > 1 else str(a.numerator), spellings(a)[1]]))
    wrapper = data.draw(st.sampled_from(WRAPPERS))
    right, wrong = (wrapper.format(data.draw(st.sampled_from(spellings(v)))) for v in (a, b))
    if "units" not in wrapper or "%" not in right:
        assert says(gold, right), (gold, right)
    if a != b and 100 * a != b and a != 100 * b:
        assert not says(gold, wrong), (gold, wrong)


@given(st.integers(1, 9), st.sampled_from([2, 3, 5, 6, 7]), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_radicals_and_multiples_of_pi(a, b, c):
    forms = [f"{a}\\sqrt{{{b}}}", f"\\sqrt{{{a * a * b}}}", f"\\frac{{{a * b}}}{{\\sqrt{{{b}}}}}", f"{a} \\cdot \\sqrt{b}", f"\\sqrt{{{b}}}*{a}"]
    for gold, pred in itertools.product(forms[:2], forms):
        assert says(gold, pred)
    for wrong in (str(a), f"\\sqrt{{{b}}}" if a > 1 else "1", f"{a}+\\sqrt{{{b}}}", f"{a}\\sqrt{{{b + 4}}}", f"{a}\\sqrt[3]{{{b}}}", f"{a * b**0.5:.2f}"):
        assert not says(forms[0], wrong) and not says(wrong, forms[0])
    assert says(f"\\frac{{{a}\\pi}}{{{c}}}", f"{a}\\pi / {c}") and not says(str(a), f"{a}\\pi") and not says(f"{a}\\pi", str(a))


FACTORS = st.sampled_from(["3", "7", "12", "0.4", "\\pi", "\\sqrt{6}", "\\frac{2}{7}", "\\frac{9}{3}", "2^{3}", "(1+4)"])


@given(FACTORS, FACTORS, st.sampled_from(["{0}({1})", "({0})({1})", "{0}\\left({1}\\right)", "{0}[{1}]", "({0}){1}", "{0} ({1})"]))
@settings(max_examples=100, deadline=None)
def test_what_is_next_to_a_bracket_is_multiplied(a, b, form):
    """Not added, as latex2sympy has it for numbers."""
    if form == "({0}){1}" and b[0] in "123456789(0":
        form = "({0})({1})"
    product = f"\\left({a}\\right) \\cdot \\left({b}\\right)"
    assert says(product, form.format(a, b))
    assert not says(f"{a}+{b}", form.format(a, b))
    assert not says("5", "2{3}") and not says("3", "{1}{2}")  # which are set as 23 and 12


X, Y = sympy.symbols("x y")
EXPRESSIONS = st.recursive(
    st.one_of(st.integers(-5, 5).map(sympy.Integer), st.sampled_from([X, Y])),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: p[0] + p[1]), st.tuples(inner, inner).map(lambda p: p[0] * p[1]),
        inner.map(lambda e: e**2), st.tuples(inner, st.integers(2, 5)).map(lambda p: p[0] / p[1]),
    ),
    max_leaves=6,
)  # fmt: skip


@given(EXPRESSIONS, EXPRESSIONS)
@settings(max_examples=40, deadline=None)
def test_polynomials_as_sympy_writes_them(first, second):
    forms = [first, sympy.expand(first), sympy.factor(first), sympy.together(first)]
    for form in forms[1:]:
        assert says(sympy.latex(first), sympy.latex(form)), (first, form)
    if sympy.expand(first - second) != 0:
        if first.free_symbols or second.free_symbols or 100 * first != second and first != 100 * second:
            assert not says(sympy.latex(first), sympy.latex(second)), (first, second)
        assert not says(sympy.latex(first), sympy.latex(first) + " + 1")


@given(SMALL, SMALL, st.sampled_from(["(", "["]), st.sampled_from([")", "]"]))
@settings(max_examples=30, deadline=None)
def test_an_interval_is_its_inequality_and_no_other_interval(a, b, left, right):
    a, b = sorted((a, b + 61))
    gold = f"{left}{a},{b}{right}"
    signs = ("<" if left == "(" else "\\le", "<" if right == ")" else "\\leq")
    for form in (f"\\left{left} {a}, {b} \\right{right}", f"x \\in {gold}", f"{a} {signs[0]} x {signs[1]} {b}"):
        assert says(gold, form), (gold, form)
    for other_left, other_right in itertools.product("([", ")]"):
        other = f"{other_left}{a}, {b}{other_right}"
        assert says(gold, other) == ((other_left, other_right) == (left, right))
    for wrong in (f"{left}{a},{b + 1}{right}", f"{left}{b},{a}{right}", f"{a}, {b}", f"\\{{{a},{b}\\}}", str(a), f"{a} {signs[0]} x", f"{gold} \\cup {gold}"):
        assert not says(gold, wrong), (gold, wrong)


@given(st.lists(SMALL, min_size=2, max_size=5, unique=True), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_a_listing_has_no_order_and_no_other_members_and_a_tuple_has_one(numbers, rng):
    shuffled = rng.sample(numbers, len(numbers))
    text = ", ".join(map(str, numbers))
    for form in (", ".join(map(str, shuffled)), "\\{" + ",".join(map(str, shuffled)) + "\\}", " or ".join(f"x = {n}" for n in shuffled)):
        assert says(text, form), (text, form)
        assert not any(says(str(n), form) for n in numbers)
    for wrong in (numbers[:-1], [*numbers, 99], [*numbers, numbers[0]], [99, *numbers[1:]]):
        assert not says(text, ", ".join(map(str, wrong)))
    assert says(f"({text})", f"({text})") and says(f"({text})", f"\\left( {text} \\right)")
    assert not says(f"({text})", text) and (shuffled == numbers or not says(f"({text})", f"({', '.join(map(str, shuffled))})"))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(-9, 9))
@settings(max_examples=15, deadline=None)
def test_equations_up_to_a_factor_and_a_name_in_front(a, b, c):
    gold = f"{a}x + {b}y = {c}"
    for form in (f"{2 * a}x + {2 * b}y - {2 * c} = 0".replace("- -", "+ "), f"y = \\frac{{{c} - {a}x}}{{{b}}}", f"{c} = {b}y + {a}x"):
        assert says(gold, form), (gold, form)
    for wrong in (f"{a}x + {b}y = {c + 1}", f"{a}x + {b}y", f"{a}x - {b}y = {c}", str(c), f"x = {c}", f"{a}x + {b}y < {c}"):
        assert not says(gold, wrong), (gold, wrong)
    assert says(str(c), f"f(2) = {c}") and not says(str(c), f"x + {b} = {c}") and not says(str(c), f"x \\neq {c}") and not says(f"x = {c}", f"y = {c}")


# -- what a policy could try -------------------------------------------------------------------------

PIECES = ["0", "1", "2", "3", "10", " ", ",", ";", " or ", " and ", "=", "\\ne", "<", "\\approx", "\\pm", "\\boxed{", "}", "{", "$", "$$", "(", ")", "[",
          "]", "\\{", "\\}", "|", "x", "x=", "-", "+", "/", "^", "_", ":", ".", "\n", "\\frac", "\\sqrt", "\\text{", "\\cup", "\\quad", "\\\\", "&",
          "answer is ", "The final answer is ", " not ", " is ", "\\pi", "i", "\\cdot", "'", "?", "...", "**", "<|", "\\[", "\\]", "\\(", "cm", " apples "]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=14).map("".join))
@settings(max_examples=300, deadline=None)
@example("\\boxed{1} or \\boxed{2}")
@example("1 = 2 = 3")
@example("1\n2\n3")
def test_one_text_is_one_guess(text):
    assert sum(says(str(n), text) for n in (0, 1, 2, 3, 10)) <= 1, text


@given(st.lists(st.integers(1, 9), min_size=2, max_size=9, unique=True), st.sampled_from(
    [", ", " ", "; ", " or ", " and ", "\n", " = ", " \\text{ or } ", "$ $", " | ", " / ", " \\approx ", "\\quad ", "} \\boxed{", "}, \\boxed{", ". ", " : ", " \\to "]
))  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_a_listing_is_no_answer_to_a_single_value(numbers, separator):
    for start, end in (("", ""), ("$", "$"), ("\\boxed{", "}"), ("\\{", "\\}"), ("x = ", "")):
        if separator.startswith("}") and start != "\\boxed{":
            continue
        text = start + separator.join(map(str, numbers)) + end
        assert not any(says(str(n), text) for n in numbers), text


@pytest.mark.parametrize(
    ("gold", "pred"),
    [("7", "7y"), ("7", "7^{3}"), ("15", "15z^4"), ("9", "9\\sqrt{5}"), ("4", "4e"), ("6", "6'"), ("6", "6_7"), ("8", "x \\neq 8"), ("8", "not 8"),
     ("8", "x is not = 8"), ("7", "7 million"), ("7", "7 \\text{ dozen}"), ("7", "7 squared"), ("7", "3y=7"), ("7", "6=7"), ("7", "[0,9]"), ("7", "0<x<9"),
     ("7", "4 pens and 7 cups"), ("7", "7 or so"), ("7", "\\text{6 or 7}"), ("10^{-18}", "3\\cdot10^{-18}"), ("10^{120}", "10^{120}+1"), ("0", "10^{-30}"),
     ("\\sqrt{7}", "2.65"), ("\\pi", "\\frac{355}{113}"), ("1", "0.9999999"), ("2.5", "\\approx 2.4"), ("x", "|x|"), ("x", "\\sqrt{x^2}"), ("b", "B"),
     ("x>1", "z>1"), ("9:20", "18:40"), ("211_3", "211"), ("211_3", "211_4"), ("3\\text{ kg}", "3\\text{ g}"), ("45 \\text{ cents}", "45 dollars"),
     ("(4,9)", "(9,4)"), ("x=1,y=4", "x=4,y=1"), ("\\text{B}", "A, B, C"), ("\\text{even}", "even or odd"), ("g(x)", "g'(x)"), ("1-i", "1+i"),
     ("\\log 5", "\\ln 5"), ("7", "__import__('os')._exit(0)"), ("7", "7 if True else 8"), ("7", "Integer(7)"), ("0", "\\frac{0}{0}"), ("7", "\\infty")],
)  # fmt: skip
def test_not_that(gold, pred):
    assert not says(gold, pred)


@pytest.mark.parametrize(
    ("gold", "pred"),
    [("\\frac{7}{5}", "1.4"), ("60\\%", "60"), ("60\\%", "0.6"), ("23{,}400", "23,400"), ("23400", "23 400"), ("2.75", "2,75"), ("8\\text{ m}^2", "8 square meters"),
     ("\\text{West}", "west"), ("\\text{(D)}", "D"), ("64^\\circ", "64 degrees"), ("\\$7.20", "7.2"), ("0.\\overline{27}", "\\frac{3}{11}"), ("3 \\pm i", "3+i, 3-i"),
     ("x \\ge 4", "[4,\\infty)"), ("(-\\infty,1)\\cup(2,\\infty)", "x<1 \\text{ or } x>2"), ("2i-1", "-1+2i"), ("\\cos^2 t", "1-\\sin^2 t"), ("\\frac 57", "5/7"),
     ("\\begin{pmatrix} 2 \\\\ 5 \\end{pmatrix}", "\\begin{bmatrix}2\\\\5\\end{bmatrix}"), ("-4", "−4"), ("5\\pi", "5π"), ("\\frac{1}{6}", "0.1666667"),
     ("(x,y) = (1,4)", "(1,4)"), ("21", "\\boxed{20} is wrong, so \\boxed{21}"), ("21", "Final Answer: the number of ways is 21."), ("y = 3x", "3x")],
)  # fmt: skip
def test_but_that(gold, pred):
    assert says(gold, pred)


# -- cost ----------------------------------------------------------------------------------------------

FAMILIES = {
    "dollars": lambda n: "$" * n + "x5", "spaces": lambda n: "1" + " " * n + "5x", "open boxes": lambda n: "\\boxed{" * (n // 7),
    "boxes": lambda n: "\\boxed{5}" * (n // 9), "box and space": lambda n: "\\boxed" + " " * n, "braces": lambda n: "{" * (n // 2) + "5" + "}" * (n // 2),
    "brackets": lambda n: "(" * (n // 2) + "5" + ")" * (n // 2), "fractions": lambda n: "\\frac{" * (n // 6), "digits": lambda n: "1" * n,
    "thousands": lambda n: "1,111" * (n // 5), "final answer": lambda n: "final answer is " * (n // 16), "is": lambda n: " is" * (n // 3) + " 5",
    "not": lambda n: "not " * (n // 4) + "is 5", "lines": lambda n: "5\n" * (n // 2), "formulas": lambda n: "$5$ and " * (n // 8),
    "backslashes": lambda n: "\\" * n, "bars": lambda n: "|" * n, "sentences": lambda n: "a. " * (n // 3) + "5", "words": lambda n: "ab " * (n // 3),
    "texts": lambda n: "\\text{a}" * (n // 8), "thats": lambda n: " that " * (n // 6) + "is 5", "asterisks": lambda n: "*" * n,
}  # fmt: skip


def _seconds(function, text: str) -> float:
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        function(text)
        best = min(best, time.process_time() - start)
        if best > 1:
            break
    return best


@pytest.mark.parametrize("family", FAMILIES)
def test_cost_grows_no_faster_than_the_answer(family):
    """Four times the text, about four times the time: in the caller's process, and for finding the answer in the text."""
    make = FAMILIES[family]
    for function, n in ((lambda text: exact_verdict("5", text), 400), (lambda text: list(final_statements(text)), 4_000)):
        for size in (n, 4 * n):
            assert _seconds(function, make(4 * size)) <= 8 * max(_seconds(function, make(size)), 1e-3), (family, size)


def test_a_formula_as_long_as_one_may_be_is_read_within_the_limit():
    """Whatever passes the door: read, refused, or stopped, in about its CPU time."""
    for family, make in FAMILIES.items():
        start = time.monotonic()
        assert judge("x+7", make(1_400), timeout=2.0) is False, family
        assert judge("x+7", make(30_000), timeout=2.0) is False, family
        assert time.monotonic() - start < 60, family
