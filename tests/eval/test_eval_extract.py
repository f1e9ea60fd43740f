"""Every extraction rule on replies made for it, what must hold for any reply, and the time that reading takes.

How often the rules are right on real replies: test_extraction_rates.py.
"""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragen.eval import extract
from ragen.eval.extract import LETTERS

OPTIONS = ("Paris", "London", "a town in France", "none of these")
T = "<think>first A, then \\boxed{9}, the answer is B</think>"


@pytest.mark.parametrize(
    "reply, strict, flexible, rule",
    [
        (f"{T}<answer>C</answer>", "C", "C", "letter alone"),
        (f"{T}<answer>(c).</answer>", "C", "C", "letter alone"),
        (f"{T}<answer>B. London</answer>", None, "B", "letter and text"),
        (f"{T}<answer>London</answer>", None, "B", "option text"),
        (f"{T}<answer>the answer is D</answer>", None, "D", "stated"),
        (f"{T}<answer>X</answer>", None, None, ""),
        (f"{T}<answer>E</answer>", None, None, ""),  # four options only
        (f"{T}<answer></answer> The answer is (A).", None, "A", "stated"),
        ("The answer is (B). No, the answer is **D**.", None, "D", "stated"),
        ("Answer: C", None, "C", "stated"),
        ("correct choice: option A", None, "A", "stated"),
        ("so we get \\boxed{\\text{B}}", None, "B", "boxed letter"),
        ("D", None, "D", "letter alone"),
        ("(B) London", None, "B", "letter and text"),
        ("The answer is Amsterdam", None, None, ""),  # A is the beginning of a word
        ("A. is what I would say at first, but who knows", None, None, ""),
        (T, None, None, ""),  # thoughts are not searched
        ("", None, None, ""),
    ],
)
def test_choice_rules(reply, strict, flexible, rule):
    found = extract.choice(reply, True, False, OPTIONS)
    assert (found.strict, found.flexible, found.rule) == (strict, flexible, rule)


def test_usual_form_of_choices_is_what_the_sentence_says():
    assert extract.choice("Because. The answer is (B).", True, True, OPTIONS).strict == "B"
    assert extract.choice("B", True, True, OPTIONS).strict == "B"
    assert extract.choice("London", True, True, OPTIONS)[:2] == (None, "B")


@pytest.mark.parametrize(
    "reply, strict, flexible, rule",
    [
        (f"{T}<answer>\\frac{{1}}{{2}}</answer>", "\\frac{1}{2}", "\\frac{1}{2}", "answer block"),
        (f"{T}<answer>It is \\boxed{{7}}.</answer>", "It is \\boxed{7}.", "7", "answer block"),
        ("so \\boxed{1}, or rather \\boxed{\\frac{a}{\\sqrt{b}}}", None, "\\frac{a}{\\sqrt{b}}", "boxed"),
        ("half \\boxed{1 and then nothing, but before \\boxed{3}", None, "3", "boxed"),
        ("work\n#### 1,234", None, "1,234", "####"),
        ("The final answer is x = 5. That is it.", None, "x = 5", "stated"),
        ("after 3 steps we have 14.5 apples", None, "14.5", "last number"),
        ("it costs $1,200", None, "$1,200", "last number"),
        (f"{T} I do not know", None, None, ""),
        ("<think>it may be 5", None, "5", "last number"),  # an unclosed thought drops nothing
        ("<answer>1</answer><answer>2</answer>", None, "2", "answer block"),  # off the form, and the last one counts
    ],
)
def test_maths_rules(reply, strict, flexible, rule):
    assert extract.maths(reply, True, False) == (strict, flexible, rule)


def test_usual_form_of_maths_is_the_box():
    assert extract.maths("thus \\boxed{2}", True, True)[:2] == ("2", "2")
    assert extract.maths("thus 2", True, True)[:2] == (None, "2")


def test_answer_without_thoughts_is_the_form_where_thinking_is_off():
    assert extract.maths("<answer>3</answer>", False, False).strict == "3"
    assert extract.maths("<answer>3</answer>", True, False).strict is None


@pytest.mark.parametrize(
    "text, number", [("$1,234.50", "1234.50"), ("18 dollars", "18"), ("-3.", "-3"), ("+7", "7"), ("1/2", "1/2")]
)
def test_numbers_as_gsm8k_compares_them(text, number):
    assert extract.number(text) == number



CITIES = ("Oslo", "Lima", "Rome", "Cairo")
#: how replies claim a letter, alone or with its text, and the rule that must find it
CLAIMS = (
    "The answer is {x}.", "So the correct answer is ({x}).", "**Answer:** {x}", "**Answer**: {x}", "Final Answer:\n\n{x}", "### Answer\n{x}",
    "Answer: **{x}. {text}**", "The best choice is therefore {x}) {text}.", "\\boxed{{\\text{{{x}. {text}}}}}", "$\\boxed{{\\mathrm{{{x}}}}}$",
    "It is not {y}, it is {x}.", "Option {x} is correct.", "I would go with ({x}).", "The answer is {text}.", '{{"answer": "{x}"}}', "answer: {low}", "答案：{wide}", "La respuesta es {x}.",
)  # fmt: skip
#: what may follow without changing the answer: other letters are mentioned, not claimed
AFTERWARDS = (
    "", "\nOption {y} is wrong too.", "\nChoice {y} would be {other}.", " ({y}) is in another country.", "\nThe others, {y} above all, are far off.",
    " Vitamin {y} has nothing to do with it.", "\nExplanation: Option {y} ({other}) lies elsewhere.",
)  # fmt: skip
BEFORE = ("", "Let me think about it.\n", "{y} is far from the sea. ", "{other} is large.\n\n", "At first I thought the answer is {y}. But no.\n")
places = st.integers(0, len(CITIES) - 1)


@given(st.sampled_from(BEFORE), st.sampled_from(CLAIMS), st.sampled_from(AFTERWARDS), places, places)
@settings(max_examples=400, deadline=None)
def test_a_claim_is_read_whatever_is_mentioned_around_it(before, claim, after, at, elsewhere):
    if at == elsewhere:
        return
    x, y = LETTERS[at], LETTERS[elsewhere]
    fields = {"x": x, "low": x.lower(), "wide": chr(ord(x) - ord("A") + ord("Ａ")), "y": y, "text": CITIES[at], "other": CITIES[elsewhere]}
    if "\\boxed" in claim or "{low}" in claim:
        after = after.replace(" ", "\n", 1) if after.startswith(" ") else after
    if "go with" in claim or "is correct" in claim or "it is" in claim:
        before = ""  # an earlier "the answer is" is the stronger claim
    reply = "".join(part.format(**fields) for part in (before, claim, after))
    assert extract.letter(reply, CITIES)[0] == x, reply


@pytest.mark.parametrize(
    "reply",
    [
        "The answer is A or C.", "Both (B) and (C) are possible, so the answer is (B) and (C).", "The answer is not D.", "The answer cannot be D.", "The answer is (K).",
        "A. Oslo\nB. Lima\nC. Rome\nD. Cairo", "The answer is a question of taste.", "Is the answer B?", "Plan B failed.", "The answer is Best.",
        "<answer>B or D</answer>", "Neither A nor B is correct.", "If we choose A, nothing changes.", "The answer is A for the first, (C) for the second.",
        "a) First the mass. b) Then the force.", "The answer is B-cells",
    ],
)  # fmt: skip
def test_no_letter_is_read_where_none_is_claimed(reply):
    assert extract.letter(reply, CITIES)[0] is None


@given(st.text(st.sampled_from("ABDZabx ().,:*\n$\\{}[]<>=?/-_'\"answeris答案"), max_size=80))
@settings(max_examples=300, deadline=None)
def test_any_text_gives_an_offered_letter_or_none(text):
    for usual in (False, True):
        found = extract.choice(text, True, usual, CITIES)
        assert {found.strict, found.flexible} <= {*LETTERS[: len(CITIES)], None}


@pytest.mark.parametrize(
    "reply, answer",
    [
        ("The answer is:\n\\[\n\\frac{5}{8}\n\\]", "\\frac{5}{8}"), ("Hence the result is\n$$ 6\\sqrt{7}. $$", "6\\sqrt{7}"),
        ("**Answer:** $19$", "19"), ("The answer to this is 31.", "31"), ("It would be 12\u22125", "5"), ("The change is \u22128", "-8"),
        ("The change is \u20138.", "-8"), ("We get 20-6", "6"), ("20 - 6 = - 14", "- 14"), ("from 1990-1995", "1995"), ("y=-6", "-6"),
        ("x2 and H3O have no answer", None), ("#### Step 4\nso 9", "9"), ("#### 1,230", "1,230"), ("It is 3:7", "3:7"), ("about .75", ".75"),
        ("The answer is 8, not 3.", "8"), ("The answer is 8 (since 5 + 3 = 8).", "8"), ("The answer is 5 * 9 = 45.", "45"), ("The answer is x = 4.", "x = 4"),
        ("The answer is 9. Is the result 7? No.", "9"), ("\\boxed{4}, \\boxed{-4}", "4, -4"), ("\\boxed{\\boxed{6}}", "6"), ("put it within \\boxed{}. So 6", "6"),
        ("It has 21\u202f000 seats", "21,000"), ("<answer>The answer is 14.</answer>", "14"), ("so that \\[ 2 + 9 = 11. \\]", "11"),
    ],
)  # fmt: skip
def test_maths_as_models_write_it(reply, answer):
    assert extract.maths(reply, True, False).flexible == answer


@given(st.integers(-9999, 9999), st.sampled_from(["{}", "The answer is {}.", "\\boxed{{{}}}", "so x = {}", "#### {}", "<answer>{}</answer>", "\\[ {} \\]"]))
def test_a_number_is_read_with_its_sign_however_the_minus_is_written(value, form):
    for minus in ("-", "\u2212"):
        found = extract.maths(form.format(str(value).replace("-", minus)), True, False).flexible
        assert extract.number(found) == str(value)


@pytest.mark.parametrize(
    "text, number", [("5 * 9 = 45 ways to seat 2", "45"), ("18 dollars a day for 7 days", "18"), ("30,000 people in 4 towns", "30000"),
                     ("\u22124", "-4"), ("I have 3, so 8", "8"), ("12\\,500", "12500")],
)  # fmt: skip
def test_the_number_of_a_sentence(text, number):
    assert extract.number(text) == number


#: fragments that make a careless pattern try every pair of places
REPEATED = (
    " ", "\n", "answer ", "answer is ", "answer: ", "the answer is (A) ", "A. ", "A is correct ", "choose A ", "**", "**A**", "\\boxed{", "\\boxed{}", "{", "}",
    "$", "\\[", "#### 1\n", "1", "1,", "1,111", "1 000", "=", "a = ", "A and ", "(A) for x, ", "- A. Correct\n", "<answer>", "answer to ", "答案",
)  # fmt: skip


@pytest.mark.parametrize("fragment", REPEATED)
def test_a_reply_is_read_in_linear_time(fragment):
    """Twenty thousand characters within two seconds of CPU time: 0.4 s was the most measured, quadratic time takes longer."""
    body = fragment * (20_000 // len(fragment))
    for reply in (body, "answer is" + body + "x", "1" + body + "5x"):
        started = time.process_time()
        extract.letter(reply, CITIES)
        extract.maths(reply, False, True)
        extract.number(reply)
        assert time.process_time() - started < 2
