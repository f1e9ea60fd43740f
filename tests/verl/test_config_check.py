"""The three classes of keys, and the sentences for wrong values."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verl.utils.config_check import (
    Absent,
    ConfigError,
    KeyTable,
    Report,
    boolean,
    choice,
    either,
    integer,
    list_of,
    number,
    optional,
    text,
)

TABLE = KeyTable(
    {
        "actor.optim.lr": number(above=0),
        "actor.mini": integer(low=1),
        "actor.mode": choice("token-mean", "seq-mean"),
        "envs.*.env_type": text(),
        "steps": integer(low=1, also=(-1,)),
    },
    {"actor.n": Absent(1, "group size is elsewhere"), "data.files": Absent(None, "there are no files")},
)


def good():
    return {"actor": {"optim": {"lr": 1e-6}, "mini": 4, "mode": "token-mean"}, "envs": {"A": {"env_type": "x"}}, "steps": 3}


def problems(config):
    return TABLE.check(config).problems


def test_a_sound_configuration_passes_without_a_word():
    report = TABLE.check(good())
    assert report.problems == [] and report.warnings == []
    report.raise_if_wrong()


def test_wrong_value_names_key_value_and_what_would_be_right():
    config = good()
    config["actor"]["optim"]["lr"] = -1.0
    assert problems(config) == ["actor.optim.lr = -1.0: must be a number > 0"]


def test_unknown_key_names_the_nearest_beside_it_or_the_same_name_elsewhere():
    config = good()
    config["actor"]["optim"]["lrr"] = 1
    config["lr"] = 1
    config["actor"]["minni"] = 1
    found = problems(config)
    assert "actor.optim.lrr is not a key; did you mean actor.optim.lr?" in found
    assert "lr is not a key; did you mean actor.optim.lr?" in found
    assert "actor.minni is not a key; did you mean actor.mini?" in found


def test_absent_key_is_accepted_at_its_usual_value_with_a_warning_and_refused_otherwise():
    config = good()
    config["actor"]["n"] = 1
    report = TABLE.check(config)
    assert report.problems == [] and "group size is elsewhere" in report.warnings[0]
    config["actor"]["n"] = 8
    assert "actor.n = 8 is not implemented: group size is elsewhere" in problems(config)[0]


def test_missing_keys_sections_and_unset_values_are_named():
    config = good()
    del config["actor"]["optim"]
    config["steps"] = "???"
    found = problems(config)
    assert any(p.startswith("actor.optim is missing") for p in found)
    assert any(p.startswith("steps is not set") for p in found)
    config = good()
    config["actor"]["optim"] = 3
    assert problems(config) == ["actor.optim = 3: must be a section with the keys lr"]


def test_keys_under_a_star_are_checked_but_may_be_left_out():
    config = good()
    config["envs"] = {"A": {}, "B": {"env_type": ""}, "C": {"kind": "x"}}
    found = problems(config)
    assert len(found) == 2 and found[0].startswith("envs.B.env_type = ''") and found[1].startswith("envs.C.kind is not a key")


def test_all_problems_are_raised_at_once():
    with pytest.raises(ConfigError) as caught:
        Report(["a is wrong", "b is wrong"]).raise_if_wrong()
    assert caught.value.problems == ("a is wrong", "b is wrong") and "  - b is wrong" in str(caught.value)


def test_a_key_cannot_stand_in_both_tables():
    with pytest.raises(ValueError, match="both implemented and absent: a"):
        KeyTable({"a": text()}, {"a": Absent(1, "")})


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.floats(), st.integers(), st.booleans(), st.text(max_size=3), st.none(), st.lists(st.integers(), max_size=2)))
def test_fields_accept_exactly_what_they_say(value):
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    finite = real and value == value and abs(value) != float("inf")
    assert number(above=0, high=1).accepts(value) == (finite and 0 < value <= 1)
    whole = isinstance(value, int) and not isinstance(value, bool)
    assert integer(low=2, also=(-1,)).accepts(value) == (whole and (value >= 2 or value == -1))
    assert boolean().accepts(value) == (value is True or value is False)
    assert optional(integer()).accepts(value) == (whole or value is None)
    assert either(text(), boolean()).accepts(value) == ((isinstance(value, str) and value != "") or isinstance(value, bool))
    assert list_of(integer(), length=2).accepts(value) == (isinstance(value, list) and len(value) == 2)
