"""The strict reading of a reply: what the form says, as a grammar, and in time linear in the text."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragen.llm_agent.reply_format import parse_reply

BODY = r"((?:(?!</?think>|</?answer>).)*)"
FORM = {True: re.compile(rf"\s*<think>{BODY}</think>\s*<answer>{BODY}</answer>\s*", re.DOTALL), False: re.compile(rf"\s*<answer>{BODY}</answer>\s*", re.DOTALL)}
PIECES = ["<think>", "</think>", "<answer>", "</answer>", " ", "\n", "a", "<", "answer>", "</", "\x1c", "\u3000"]


@settings(max_examples=600, deadline=None)
@given(
    text=st.one_of(
        st.lists(st.sampled_from(PIECES), max_size=9).map("".join),
        st.builds("{}<think>{}</think>{}<answer>{}</answer>{}".format, *[st.lists(st.sampled_from(PIECES[4:] + ["</think>"]), max_size=2).map("".join)] * 5),
    ),
    think=st.booleans(),
)
def test_it_reads_what_the_grammar_does(text, think):
    match, found = FORM[think].fullmatch(text), parse_reply(text, think)
    assert found.ok == bool(match)
    if match:
        *thought, answer = (group.strip() for group in match.groups())
        assert (found.answer, found.thought) == (answer, thought[0] if thought else "")


@pytest.mark.parametrize("think", [True, False])
@pytest.mark.parametrize("unit", ["</think><answer>", "<answer>", "<think>", "</answer>", " ", "<think></think>"])
def test_hostile_length_costs_in_proportion(unit, think):
    def seconds(count: int) -> float:
        text, best = "<think>" + unit * count + "x", float("inf")
        for _ in range(3):
            started = time.process_time()
            parse_reply(text, think)
            best = min(best, time.process_time() - started)
        return best

    assert seconds(80_000) < 30 * max(seconds(10_000), 1e-4)  # eight times the text; a square would be 64
