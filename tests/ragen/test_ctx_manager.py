"""Trained tokens are the sampled tokens; the mask is true on those alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ragen_tokenizers import TOKENIZERS

from ragen.llm_agent.ctx_manager import ChatTokens, Conversation

LOOKALIKES = ["<|im_end|>", "<|im_start|>assistant\n", "</s>", "<|endoftext|>", "[INST]", "<think>", "<s>", "é漢🎲", " ", "\n\n"]
text = st.lists(st.one_of(st.sampled_from(LOOKALIKES), st.text(max_size=8)), max_size=5).map("".join)


def reply_ids(vocabulary: int):
    """Any ids at all: special ones and byte pieces that are no valid text included."""
    return st.lists(st.integers(0, vocabulary - 1), min_size=1, max_size=12)


@pytest.mark.parametrize("name", list(TOKENIZERS))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_sampled_ids_and_mask_survive_any_content(name, data):
    tokenizer = _cached(name)
    chat = ChatTokens(tokenizer, system_prompt="You're a helpful assistant. ")
    conversation = Conversation(chat)
    expected: list[tuple[list[int], list[float]]] = []
    for turn in range(data.draw(st.integers(1, 4))):
        before = list(conversation.samples[-1].ids) if conversation.samples else []
        prompt = list(conversation.prompt_for(data.draw(text)))
        assert prompt[: len(before)] == before  # append only: nothing that stood is ever changed
        ids = data.draw(reply_ids(len(tokenizer)))
        if data.draw(st.booleans()):
            ids = [*ids, chat.stop_ids[0]]
        logprobs = [-(turn + 1) - i / 100 for i in range(len(ids))]
        conversation.sampled(ids, logprobs, cut=False)
        expected.append((ids, logprobs))
    (sample,) = conversation.samples
    assert len(sample.ids) == len(sample.mask) == len(sample.logprobs)
    assert [i for i, m in zip(sample.ids, sample.mask, strict=True) if m] == [i for ids, _ in expected for i in ids]
    assert [p for p, m in zip(sample.logprobs, sample.mask, strict=True) if m] == [p for _, ps in expected for p in ps]
    for turn, (ids, _) in zip(sample.turns, expected, strict=True):
        assert sample.ids[turn.start : turn.end] == ids


_made = {}


def _cached(name):
    if name not in _made:
        _made[name] = TOKENIZERS[name]()
    return _made[name]


def test_ids_equal_the_template_where_text_round_trips(chatml):
    """Against transformers: a conversation whose replies are what the tokenizer makes of their text has
    exactly the ids of apply_chat_template."""
    chat = ChatTokens(chatml)
    conversation = Conversation(chat)
    messages = []
    for user, reply in (("Your move, X.", "<think>fox</think><answer>(1,1)</answer>"), ("(1,1)O (1,2)-\n", "the lazy dog"), ("x", "y")):
        messages.append({"role": "user", "content": user})
        prompt = conversation.prompt_for(user)
        assert prompt == chatml.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        conversation.sampled(chatml(reply, add_special_tokens=False)["input_ids"] + [chatml.eos_token_id], [0.0] * 99, cut=False)
        del conversation.samples[-1].logprobs[len(conversation.samples[-1].ids) :]
        messages.append({"role": "assistant", "content": reply})


def test_lookalikes_in_the_games_text_are_not_special_tokens(tokenizer):
    chat = ChatTokens(tokenizer)
    special = set(tokenizer.all_special_ids)
    plain = sum(i in special for i in chat.prompt([{"role": "user", "content": "abc"}]))
    tricky = "".join(tokenizer.all_special_tokens) + "abc" + tokenizer.eos_token
    assert sum(i in special for i in chat.prompt([{"role": "user", "content": tricky}])) == plain
    last = chat.stop_ids[0]
    assert sum(i in special for i in chat.continuation(tricky, last)) == sum(i in special for i in chat.continuation("abc", last))


def test_a_reply_cut_at_the_limit_is_closed_by_the_template_not_by_the_policy(chatml):
    conversation = Conversation(ChatTokens(chatml))
    conversation.prompt_for("x")
    ids = chatml("no end", add_special_tokens=False)["input_ids"]
    conversation.sampled(ids, [0.0] * len(ids), cut=True)
    conversation.prompt_for("y")
    sample = conversation.samples[0]
    end = sample.turns[0].end
    assert sample.ids[end] == chatml.eos_token_id and sample.mask[end] is False


def test_a_template_that_strips_thoughts_makes_each_turn_a_sample(strips_thoughts):
    chat = ChatTokens(strips_thoughts)
    assert not chat.append_only
    conversation = Conversation(chat)
    for k in range(3):
        prompt = conversation.prompt_for(f"turn {k}")
        assert "secret" not in strips_thoughts.decode(prompt)
        ids = strips_thoughts(f"<think>secret</think>reply {k}", add_special_tokens=False)["input_ids"] + [chat.stop_ids[0]]
        conversation.sampled(ids, [0.0] * len(ids), cut=False)
    assert len(conversation.samples) == 3
    for sample in conversation.samples:
        (turn,) = sample.turns
        assert [i for i, m in zip(sample.ids, sample.mask, strict=True) if m] == sample.ids[turn.start : turn.end]


def test_a_window_shows_the_last_turns_and_the_rules(chatml):
    conversation = Conversation(ChatTokens(chatml), window=1)
    shown = []
    for k in range(4):
        prompt = conversation.prompt_for(("RULES " if k == 0 else "") + f"turn {k}", rules="RULES " if k == 0 else "")
        shown.append(chatml.decode(prompt))
        conversation.sampled([chatml.eos_token_id], [0.0], cut=False)
    assert "turn 1" not in shown[3] and "turn 2" in shown[3] and "RULES" in shown[3] and shown[3].count("RULES") == 1


def test_a_tokenizer_without_a_chat_template_is_refused(chatml):
    template, chatml.chat_template = chatml.chat_template, None
    try:
        with pytest.raises(ValueError, match="no chat template"):
            ChatTokens(chatml)
    finally:
        chatml.chat_template = template
