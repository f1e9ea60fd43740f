"""Every extraction rule, and the recorded letters of a real model's outputs."""

import json

import pytest

from ragen.eval import extract
from ragen.eval.extract import LETTERS

OPTIONS = ("Paris", "London", "a town in France", "none of these")
T = "<think>first A, then \\boxed{9}, the answer is B</think>"


@pytest.mark.parametrize(
    "reply, strict, flexible, rule",
    [
        (f"{T}<answer>C</answer>", "C", "C", "letter alone"),
        (f"{T}<answer>(c).</answer>", "C", "C", "letter alone"),
        (f"{T}<answer>B. London</answer>", None, "B", "letter and option"),
        (f"{T}<answer>London</answer>", None, "B", "option text"),
        (f"{T}<answer>the answer is D</answer>", None, "D", "said"),
        (f"{T}<answer>X</answer>", None, None, ""),
        (f"{T}<answer>E</answer>", None, None, ""),  # four options only
        (f"{T}<answer></answer> The answer is (A).", None, "A", "said"),
        ("The answer is (B). No, the answer is **D**.", None, "D", "said"),
        ("Answer: C", None, "C", "said"),
        ("correct choice: option A", None, "A", "said"),
        ("so we get \\boxed{\\text{B}}", None, "B", "boxed letter"),
        ("D", None, "D", "letter alone"),
        ("(B) London", None, "B", "letter and option"),
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
        ("The final answer is x = 5. That is it.", None, "x = 5", "said"),
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


#: question -> (recorded, ours): upstream takes the first statement, we take the last
DIFFERENT_LETTERS = {214: ("E", "F"), 11921: ("B", "E")}


def test_recorded_letters_of_a_real_model(gift_data):
    with (gift_data / "mmlu_pro" / "model_outputs_sample.jsonl").open() as file:
        rows = [json.loads(line) for line in file]
    options = [f"option {i} of nothing" for i in range(len(LETTERS))]
    ours = {row["question_id"]: extract.letter(row["generated_text"], options[: row["n_options"]])[0] for row in rows}
    different = {
        row["question_id"]: (row["pred"], ours[row["question_id"]]) for row in rows if row["pred"] != ours[row["question_id"]]
    }
    assert different == DIFFERENT_LETTERS
    assert len(different) / len(rows) <= 0.01
