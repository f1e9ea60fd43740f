"""VeRL's own configuration against ours: every key of `verl.trainer.main_ppo` is implemented, or absent with a reason.

``verl_0_9_1_keys.json``: the keys of VeRL 0.9.1's FSDP configuration (its `ppo_trainer.yaml` composed by Hydra and resolved) and their
defaults, made from the published wheel.
"""

import json
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ragen.trainer.config_keys import ABSENT, IMPLEMENTED, key_table
from verl.utils.config_check import Absent, Field, KeyTable
from verl.utils.verl_keys import IMPLEMENTED as VERL_IMPLEMENTED
from verl.utils.verl_keys_absent import ABSENT as VERL_ABSENT

DEFAULTS = json.loads((Path(__file__).parent / "verl_0_9_1_keys.json").read_text())
TABLE = key_table()
#: VeRL's null stands for what only its data files or the model could say, "???" for a choice that it leaves to the user
REFUSED = {
    "trainer.total_training_steps": "a whole number",
    "actor_rollout_ref.rollout.max_model_len": "a whole number",
    "actor_rollout_ref.rollout.name": "is not set",
}


def entry(key):
    """What the table has for a key."""
    node = TABLE._tree
    for part in key.split("."):
        if not isinstance(node, dict):
            return None
        node = node.get(part, node.get("*"))
    return node


def nested(key, value):
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def verdict(key, value, table=TABLE):
    """Problems and warnings that speak of this key (a lone key leaves all others missing)."""
    report = table.check(nested(key, value))
    return [p for p in report.problems if p.startswith(key + " ")], report.warnings


@pytest.mark.parametrize("key", DEFAULTS)
def test_every_key_is_known_and_at_verls_default_accepted(key):
    assert isinstance(entry(key), (Field, Absent)), f"{key} is neither implemented nor absent"
    problems, warnings = verdict(key, DEFAULTS[key])
    if key in REFUSED:
        assert REFUSED[key] in problems[0]
    elif isinstance(entry(key), Absent):
        assert problems == [] and f"has no effect here: {entry(key).reason}" in warnings[0]
    else:
        assert problems == [] == warnings


@pytest.mark.parametrize("key", sorted(k for k in DEFAULTS if isinstance(entry(k), Absent)))
def test_another_value_of_an_absent_key_is_refused_with_the_reason(key):
    problems, _ = verdict(key, "a value of mine")
    assert "is not implemented" in problems[0] and entry(key).reason in problems[0]


def test_most_are_there_and_none_is_made_up():
    """The table holds VeRL's keys, not a catch-all: a key of no version is refused as unknown, in absent sections too."""
    assert len(DEFAULTS) > 900
    for section in {key.rpartition(".")[0] for key in DEFAULTS} - {""}:
        if isinstance(entry(section), dict) and "*" not in entry(section):
            problems, _ = verdict(f"{section}.a_key_of_mine", 1)
            assert any("is not a key" in problem for problem in problems), section


#: two names that VeRL has for one thing, or one name that it has in two places for the same thing
SAME = {
    ("clip_grad", "grad_clip"), ("grad_clip", "clip_grad"),
    ("capture-range", "capture-range-end"), ("capture-range-end", "capture-range"),  # parts of one setting, neither implemented
}  # fmt: skip


@pytest.mark.parametrize("key", [key for key in DEFAULTS if not key.endswith("_target_")])
def test_no_hint_names_a_key_of_another_meaning(key):
    """A key that VeRL may add tomorrow: with each of today's taken out of the table in turn, what is suggested instead?"""
    without = KeyTable(
        {k: v for k, v in {**VERL_IMPLEMENTED, **IMPLEMENTED}.items() if k != key},
        {k: v for k, v in {**VERL_ABSENT, **ABSENT}.items() if k != key},
    )
    for problem in verdict(key, DEFAULTS[key] if DEFAULTS[key] != {} else 1, without)[0]:
        hint = problem.partition("did you mean ")[2].rstrip("?")
        mine, its = key.rpartition(".")[2], hint.rpartition(".")[2]
        assert not hint or mine == its or (mine, its) in SAME, f"{key}: {hint}"


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([k for k in sorted(VERL_IMPLEMENTED) if any(len(word) > 5 for word in k.rpartition(".")[2].split("_"))]), st.data())
def test_a_slip_of_the_keyboard_is_put_right(key, data):
    """One letter left out of a long word, or two exchanged: the hint is that name (beside it or in a like section), or another
    name as near. (Of a short word too little is left to tell `lb` from `ub`.)"""
    section, _, leaf = key.rpartition(".")
    word = data.draw(st.sampled_from([w for w in leaf.split("_") if len(w) > 5]))
    at = data.draw(st.integers(1, len(word) - 2))
    slip = word[:at] + (word[at + 1 :] if data.draw(st.booleans()) else word[at + 1] + word[at] + word[at + 2 :])
    assume(slip != word and slip not in TABLE._words)
    typed = leaf.replace(word, slip, 1)
    (problem,) = verdict(f"{section}.{typed}", 1)[0]
    hint = problem.partition("did you mean ")[2].rstrip("?")
    assert hint, typed
    assert near(typed, hint.rpartition(".")[2]) <= near(typed, leaf), (typed, hint)


def near(one, other):
    """Edit distance (Levenshtein)."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row, before = [i, *row[1:]], row
        for j, b in enumerate(other, 1):
            row[j] = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
    return row[-1]
