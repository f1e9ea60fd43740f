"""Concept coverage by its stated rules and on real sentences; win-or-tie against the arithmetic."""

import json
from concurrent.futures import Future

import pytest
from fake_model import FunctionReplier

from ragen.eval.cli import Settings
from ragen.eval.commongen import CommonGenBenchmark, sentence
from ragen.eval.commongen_words import covered, forms
from ragen.eval.data import Rows
from ragen.eval.prompts import Template
from ragen.eval.questions import evaluate_questions
from ragen.eval.results import read_rows
from ragen.eval.win_or_tie import WinOrTie, read_verdict
from ragen.players.base import PlayerError


@pytest.mark.parametrize(
    "concept, said",
    [
        ("dog_N", "Dogs bark."), ("box_N", "two boxes"), ("city", "the cities"), ("leaf", "leaves fall"), ("knife", "knives"),
        ("child", "the children's game"), ("woman", "two women"), ("fireman", "firemen run"), ("watch", "she watches"),
        ("ride_V", "riding"), ("ride", "rode"), ("stop", "stopped"), ("stop", "stopping"), ("carry", "carried"), ("tie", "tying"),
        ("play", "played"), ("swim", "swam"), ("throw", "thrown"), ("sit", "a man sits"), ("look", "looking"),
        ("ball", "a foot-ball"),
    ],
)  # fmt: skip
def test_forms_that_count(concept, said):
    assert covered([concept], said) == [True]


@pytest.mark.parametrize(
    "concept, said",
    [
        ("swim", "the swimmer"),
        ("ear", "earphones"),
        ("dance", "a dancer"),
        ("wind", "a window"),
        ("art", "the cart"),
        ("run", ""),
    ],
)
def test_derivations_and_longer_words_do_not_count(concept, said):
    assert covered([concept], said) == [False]


def test_no_form_is_doubled_after_two_vowels():
    assert "looking" in forms("look") and "rainning" not in forms("rain") and "raining" in forms("rain")


def test_human_references_hold_their_concepts_and_not_those_of_others(gift_data):
    with (gift_data / "commongen" / "commongen_dev_refs.jsonl").open() as file:
        rows = [json.loads(line) for line in file]
    own = [ok for row in rows for a in row["human_annotations"] for ok in covered(row["concept_set"], a["ref"])]
    assert sum(own) / len(own) > 0.99
    foreign = [
        ok
        for row, other in zip(rows, rows[1:], strict=False)
        for concept in other["concept_set"] if concept not in row["concept_set"]
        for ok in covered([concept], row["human_annotations"][0]["ref"])
    ]  # fmt: skip
    assert sum(foreign) / len(foreign) < 0.03


@pytest.mark.parametrize(
    "reply, strict, flexible",
    [
        ("<think>x</think><answer>A dog runs.</answer>", "A dog runs.", "A dog runs."),
        ("A dog runs.\nI hope this helps.", None, "A dog runs."),
        ('Sentence: "A dog runs."', None, "A dog runs."),
        ("<answer></answer>", None, None),
        ("", None, None),
    ],
)
def test_sentence_of_a_reply(reply, strict, flexible):
    assert sentence(reply, True, False)[:2] == (strict, flexible)


@pytest.mark.parametrize(
    "text, verdict",
    [
        ("<answer>A</answer>", "A"), ("B", "B"), ("Tie.", "tie"), ("sentence b", "B"),
        ("<think>A</think>\n<answer> tie </answer>", "tie"),
        ("A or B", None), ("both", None), ("", None), ("A tie would be unfair; A", None),
    ],
)  # fmt: skip
def test_verdicts(text, verdict):
    assert read_verdict(text) == verdict


ROWS = [
    {"id": str(i), "concept_set": ["dog_N", "run_V"], "human_annotations": [{"ref": "A dog is running."}]} for i in range(200)
]
BARE = [{"id": f"bare {i}", "concept_set": ["dog_N", "run_V"], "human_annotations": []} for i in range(7)]


def judged(judge, tmp_path, rows=ROWS + BARE, reply="<think></think><answer>My dog runs.</answer>"):
    def ask(messages, seed):
        future = Future()
        try:
            future.set_result(judge(messages[0]["content"], seed))
        except PlayerError as error:
            future.set_exception(error)
        return future

    bench = CommonGenBenchmark(Rows(rows, {"hash": "made up"}), Template(), WinOrTie(ask, {"model": "fake"}))
    return evaluate_questions(bench, Settings(str(tmp_path)), FunctionReplier(lambda r: reply)), read_rows(
        tmp_path / "commongen.json"
    )


@pytest.mark.parametrize("said", ["A", "B"])
def test_a_judge_that_always_names_one_place_gives_the_share_of_that_place(said, tmp_path):
    result, rows = judged(lambda text, seed: f"<answer>{said}</answer>", tmp_path)
    places = [row["judged"]["model_is"] for row in rows if "judged" in row]
    assert len(places) == 200 and 70 < places.count("A") < 130  # swapped at random
    assert result["scores"]["win_or_tie"]["value"] == places.count(said) / 200
    assert result["counts"]["without_references"] == 7 and result["counts"]["unjudged"] == 0


def test_the_places_of_the_sentences_are_those_recorded(tmp_path):
    seen = []
    _, rows = judged(lambda text, seed: seen.append("A: My dog runs." in text) or "tie", tmp_path)
    assert seen == [row["judged"]["model_is"] == "A" for row in rows if "judged" in row]


def test_ties_count_and_nonsense_or_nothing_is_unjudged(tmp_path):
    assert judged(lambda *_: "tie", tmp_path / "tie")[0]["scores"]["win_or_tie"]["value"] == 1
    for name, text in (("nonsense", "purple"), ("nothing", "")):
        result, rows = judged(lambda *_, text=text: text, tmp_path / name)
        assert result["scores"]["win_or_tie"] == {"value": None, "low": None, "high": None, "n": 0}
        assert (result["counts"]["unjudged"], result["counts"]["judge_retries"]) == (200, 400)


def test_a_failing_judge_is_asked_again_then_unjudged_and_no_loss(tmp_path):
    calls = {}

    def judge(text, seed):
        calls[seed] = calls.get(seed, 0) + 1
        if len(calls) % 2:
            raise PlayerError("down")
        return "tie"

    result, rows = judged(judge, tmp_path / "flaky")
    assert result["counts"]["judged"] + result["counts"]["unjudged"] == 200
    assert result["scores"]["loss"]["value"] == 0 and result["counts"]["judge_retries"] > 0

    def never(text, seed):
        raise PlayerError("down")

    result, _ = judged(never, tmp_path / "dead", ROWS[:5])
    assert (result["counts"]["unjudged"], result["counts"]["judged"]) == (5, 0)


def test_a_model_without_a_sentence_loses_unasked(tmp_path):
    def judge(text, seed):
        raise AssertionError("nobody should be asked")

    result, _ = judged(judge, tmp_path, ROWS[:4], reply="")
    assert result["scores"]["win_or_tie"]["value"] == 0 and result["counts"]["invalid"] == 4
