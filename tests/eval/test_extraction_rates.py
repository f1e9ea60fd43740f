"""How often each extraction rule is right on labelled replies: at least as often as measured when it was written.

The floors are the counts of ``python -m scripts.extraction_table`` (docs/evaluation.md). A change of the rules may raise them, never lower.
"""

import pytest

from ragen.eval import extract_letter, extract_maths
from scripts import extraction_table as rates

#: rule -> (most replies read otherwise than labelled, least share of answers that it reads alone)
FLOORS = {
    "mistral": {"stated": (1, 1.0), "chosen": (0, 0.95)},
    "smollm2": {
        "letter alone": (0, 0.159), "stated": (2, 0.372), "called correct": (0, 0.021), "chosen": (0, 0.159), "letter and text": (0, 0.617),
        "letter with option": (0, 0.351), "option named": (0, 0.010),
    },
    "fresh": {"stated": (0, 0.346), "letter and text": (1, 0.692)},
    "written": {
        "letter alone": (0, 0.166), "option text": (0, 0.027), "boxed letter": (0, 0.083), "stated": (0, 0.5), "called correct": (0, 0.069),
        "chosen": (0, 0.097), "bold": (0, 0.111), "letter and text": (0, 0.291), "letter with option": (0, 0.125),
    },
    "maths smollm2": {"####": (0, 0.032), "stated": (0, 0.645), "closing formula": (2, 0.193), "last number": (20, 0.838)},
    "maths written": {
        "answer block": (0, 0.074), "boxed": (0, 0.149), "####": (0, 0.029), "stated": (1, 0.328), "closing formula": (0, 0.089), "last number": (0, 0.835),
    },
}  # fmt: skip
#: all rules in their order: (least precision, least recall)
TOGETHER = {
    "mistral": (0.994, 1.0), "smollm2": (0.979, 1.0), "fresh": (0.962, 1.0), "written": (1.0, 1.0), "maths smollm2": (0.584, 1.0), "maths written": (0.985, 1.0),
}  # fmt: skip


@pytest.fixture(scope="module")
def replies(gift_data):
    return {
        "mistral": rates.mistral(), "smollm2": rates.smollm2_choice(), "fresh": rates.smollm2_choice("choice_fresh"), "written": rates.written_choice(),
        "maths smollm2": rates.maths("smollm2"), "maths written": rates.maths("written"),
    }  # fmt: skip


@pytest.mark.parametrize("which, rule", [(which, rule) for which, rules in FLOORS.items() for rule in rules])
def test_each_rule_reads_what_people_read(replies, which, rule):
    read, alone = (rates.read_maths, rates.maths_alone) if "maths" in which else (rates.read_choice, rates.choice_alone)
    in_order, by_itself = rates.score(replies[which], read, rule), rates.score(replies[which], alone(rule))
    misread, recall = FLOORS[which][rule]
    assert in_order.decided - in_order.right <= misread
    assert by_itself.recall >= recall


@pytest.mark.parametrize("which", TOGETHER)
def test_all_rules_together(replies, which):
    told = rates.score(replies[which], rates.read_maths if "maths" in which else rates.read_choice)
    precision, recall = TOGETHER[which]
    assert told.precision >= precision and told.recall >= recall


def test_every_rule_is_measured():
    measured = {rule for rules in FLOORS.values() for rule in rules}
    assert measured == {*extract_letter.RULES, *extract_maths.RULES}


def test_labels_are_those_of_the_replies_in_the_data(replies):
    """210 real replies, each labelled once, and no label that is not on offer."""
    assert len(replies["mistral"]) == 210 and len(replies["smollm2"]) >= 100 and len(replies["written"]) >= 60
    for which in ("mistral", "smollm2", "written"):
        assert len({case.name for case in replies[which]}) == len(replies[which])
        assert all(answer in extract_letter.LETTERS[: len(case.options)] for case in replies[which] for answer in case.answers)


def test_a_miss_counts_against_the_rule_that_made_it(replies):
    """The table itself: labels turned by one letter leave nothing right."""
    turned = [
        rates.Case(c.name, c.reply, tuple("BCDEFGHIJA"["ABCDEFGHIJ".index(answer)] for answer in c.answers), c.options) for c in replies["mistral"]
    ]
    assert rates.score(turned, rates.read_choice).right == 0


def test_the_table_agrees_with_its_scores(replies):
    text = rates.table("t", replies["mistral"], rates.read_choice, rates.choice_alone, extract_letter.RULES)
    told = rates.score(replies["mistral"], rates.read_choice)
    assert f"| **all** | {told.decided} | {told.right} |" in text and "agrees with `pred`" in text
