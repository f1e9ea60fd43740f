"""Collapse diagnostics on policies whose entropies are known in closed form."""

import math
import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragen.llm_agent.trajectory import Sample, Trajectory, Turn
from ragen.trainer.collapse_metrics import collapse_metrics, compute_collapse_metrics, cross_scores
from ragen.trainer.thoughts import Thought, all_thoughts, any_turns, first_turns

VOCAB = 7


def bigram(seed):
    """A policy that looks at the last token alone: log p(next | last), (V, V)."""
    return torch.log_softmax(
        torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2, -1
    )


def scorer(table, calls=None):
    def log_probs(ids, attention, scored):
        assert ids.shape == attention.shape and scored.shape == ids[:, 1:].shape
        assert not (scored & ~attention[:, 1:].bool()).any()
        if calls is not None:
            calls.append(ids.shape[0])
        return torch.where(scored, table[ids[:, :-1], ids[:, 1:]], torch.nan).nan_to_num(7.0)  # garbage where not asked for

    return log_probs


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 4), st.integers(1, 9))
def test_cross_scores(seed, reasonings, prompts, rows_per_call):
    rng = np.random.default_rng(seed)
    table = bigram(seed)
    xs = [rng.integers(VOCAB, size=rng.integers(1, 5)).tolist() for _ in range(prompts)]
    rs = [rng.integers(VOCAB, size=rng.integers(1, 6)).tolist() for _ in range(reasonings)]
    calls = []
    got = cross_scores(xs, rs, scorer(table, calls), rows_per_call=rows_per_call)
    want = [[sum(float(table[a, b]) for a, b in zip([x[-1], *r], r, strict=False)) for x in xs] for r in rs]
    np.testing.assert_allclose(got, want)
    assert max(calls) <= rows_per_call and sum(calls) == reasonings * prompts


def exact(conditional):
    """H(R|X), H(R), I(X;R) of p(r|x), (N, R), under uniform x, by summation."""
    marginal = conditional.mean(0)
    h_rx = -(conditional * np.log(conditional)).sum(1).mean()
    h_r = -(marginal * np.log(marginal)).sum()
    return h_rx, h_r, h_r - h_rx


def test_estimates_match_the_exact_information():
    """Replies drawn in exact proportion: the estimates are the entropies themselves."""
    counts = np.array([[6, 3, 1], [1, 4, 5]])  # of 10 replies to each of two prompts
    conditional = counts / 10
    own = np.repeat([0, 1], 10)
    replies = np.concatenate([np.repeat([0, 1, 2], row) for row in counts])
    scores = np.log(conditional[:, replies].T)
    got = collapse_metrics(scores, own, [1] * 20)
    h_rx, h_r, mi = exact(conditional)
    assert got["collapse/conditional_entropy_seq_est"] == pytest.approx(h_rx)
    assert got["collapse/reasoning_entropy_seq_est"] == pytest.approx(h_r)
    assert got["collapse/mi_seq_estimate"] == got["collapse/mi_estimate"] == pytest.approx(mi)
    # the likelier prompt is right for 6 of 10 replies of the first and 4 + 5 of the second
    assert got["collapse/retrieval_accuracy"] == pytest.approx(15 / 20)
    assert got["collapse/retrieval_chance_level"] == 0.5 and got["collapse/retrieval_above_chance"] == pytest.approx(0.25)


def test_the_two_collapses_are_told_apart():
    n = 8
    template = np.full((n, n), math.log(1 / 50))  # every prompt, the same broad distribution
    got = collapse_metrics(template, range(n), [1] * n)
    assert got["collapse/mi_seq_estimate"] == pytest.approx(0.0) and got["collapse/conditional_entropy_seq_est"] > 3
    determined = np.where(np.eye(n, dtype=bool), 0.0, -1e9)  # each prompt, one reply of its own
    got = collapse_metrics(determined, range(n), [1] * n)
    assert got["collapse/conditional_entropy_seq_est"] == 0.0
    assert got["collapse/mi_seq_estimate"] == pytest.approx(math.log(n)) == got["collapse/mi_upper_bound"]
    assert got["collapse/retrieval_accuracy"] == 1.0


def test_per_token_scores_divide_by_the_length():
    scores = np.array([[-2.0, -4.0], [-9.0, -3.0]])
    got = collapse_metrics(scores, [0, 1], [2, 3])
    assert got["collapse/conditional_entropy_est"] == pytest.approx((1.0 + 1.0) / 2)
    mixture = [math.log((math.exp(-1) + math.exp(-2)) / 2), math.log((math.exp(-3) + math.exp(-1)) / 2)]
    assert got["collapse/reasoning_entropy_est"] == pytest.approx(-np.mean(mixture))


# -- which tokens are a thought -----------------------------------------------------------------

REPLY = "<think>look at b2</think><answer>b2</answer>"


def cut(text, places):
    """``text`` as tokens that end at ``places``."""
    ends = sorted({p for p in places if 0 < p < len(text)} | {len(text)})
    return [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def a_trajectory(*replies, between=("|",)):
    """Replies (lists of pieces) after a prompt of two tokens, and the pieces by id."""
    pieces, sample = ["P", "Q"], Sample(ids=[0, 1])
    for reply in replies:
        start = len(pieces)
        pieces += reply
        sample.turns.append(Turn(start, len(pieces), "".join(reply)))
        pieces += between
    sample.ids = list(range(len(pieces)))
    return Trajectory("A", 0, 0, 0, 0, 0, samples=[sample]), pieces.__getitem__


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, len(REPLY) - 1), max_size=20))
def test_a_thought_is_what_stands_between_the_tags_however_they_are_tokenized(places):
    pieces = cut(REPLY, places)
    ends = np.cumsum([len(piece) for piece in pieces])
    # the thought stands from 7 to 17; a token that holds a part of a tag is the tag's
    wanted = [piece for piece, end in zip(pieces, ends, strict=True) if end - len(piece) >= 7 and end <= 17]
    trajectory, decode = a_trajectory(pieces)
    [[thought]] = all_thoughts([trajectory], decode)
    assert (thought is None) == (not wanted)
    if thought is not None:
        assert [decode(token) for token in thought.tokens] == wanted
        assert thought.prompt == tuple(range(thought.tokens[0])) and thought.asked == (0, 1)


def test_turns_without_a_thought():
    whole = [REPLY[:7], REPLY[7:17], REPLY[17:]]
    trajectory, decode = a_trajectory(whole, ["<answer>b2</answer>"], ["<think>", "</think>"], ["<think>", "cut off"])
    first, none, empty, unfinished = all_thoughts([trajectory], decode)[0]
    assert first.prompt == (0, 1, 2) and first.tokens == (3,)
    assert none is None and empty is None
    assert decode(unfinished.tokens[0]) == "cut off" and unfinished.asked == tuple(range(11))


def thoughts_of(*turns):
    return [[None if t is None else Thought((t,), (t,), (t,)) for t in row] for row in turns]


def test_samples():
    rows = thoughts_of([1, 2], [None, 3], [4], [])
    assert [t.tokens[0] for t in first_turns(rows, 5, random.Random(0))] == [1, 4]
    assert len(first_turns(rows, 1, random.Random(0))) == 1
    # each trajectory is drawn as often as any other, each of its turns too
    counts = Counter(any_turns(rows, 1, random.Random(k))[0].tokens[0] for k in range(3000))
    assert [counts[k] / 3000 for k in (1, 2, 3, 4)] == pytest.approx([1 / 6, 1 / 6, 1 / 3, 1 / 3], abs=0.03)
    assert sorted(t.tokens[0] for t in any_turns(rows, 100, random.Random(0))) == [1, 2, 3, 4]  # each once
    assert any_turns(thoughts_of([None]), 5, random.Random(0)) == []


# -- a batch ------------------------------------------------------------------------------------


def test_from_thoughts():
    """A policy whose first token depends on the prompt's last token, then copies: all is retrievable."""
    table = torch.full((VOCAB, VOCAB), -20.0, dtype=torch.float64)
    table[range(VOCAB), range(VOCAB)] = 0.0
    thoughts = [Thought((5, g), (g, g), (5, g)) for g in (1, 2, 3) for _ in range(2)]
    got = compute_collapse_metrics(thoughts, scorer(table), prefix="sample")
    assert got["sample/retrieval_accuracy"] == 1.0 and got["sample/mi_seq_estimate"] == pytest.approx(math.log(3))
    assert got["sample/retrieval_chance_level"] == pytest.approx(1 / 3)
    assert compute_collapse_metrics(thoughts[:2], scorer(table)) == {}  # one prompt


def test_thoughts_asked_alike_share_a_prompt():
    """What was said before the thought (a blank, say) makes no prompt of its own."""
    table = bigram(3)
    asked = [Thought((5, 1), (2,), (5,)), Thought((5, 0, 1), (3,), (5,)), Thought((4, 1), (2,), (4,))]
    got = compute_collapse_metrics(asked, scorer(table))
    assert got["collapse/mi_upper_bound"] == pytest.approx(math.log(2))


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="need 2 or more"):
        collapse_metrics(np.zeros((2, 1)), [0, 0], [1, 1])
    with pytest.raises(ValueError, match="at least one token"):
        collapse_metrics(np.zeros((2, 2)), [0, 1], [1, 0])
