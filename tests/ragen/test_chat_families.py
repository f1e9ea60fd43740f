"""Chats of many families of models: what ends a reply, what a message cannot write, thoughts that a template opens or strips.

The oracle is transformers' own ``apply_chat_template``: the same ids where nothing looks like a token, the same text always.
"""

import functools
import shutil
import signal

import pytest
import ray
from chat_families import FAMILIES, byte_tokenizer, gemma, keeps, mistral, phi, qwen3, r1
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerFast

from ragen.llm_agent.ctx_manager import ChatTokens, Conversation
from ragen.llm_agent.reply_format import find_answer, parse_reply, with_opening
from ragen.trainer.config import CONFIG_DIR, compose
from ragen.trainer.run import check_chat, run

SYSTEM = "You advise a captain. "
FORM = {"<think>", "</think>", "<answer>", "</answer>"}


@functools.cache
def family(name):
    tokenizer = FAMILIES[name][0]()
    return tokenizer, ChatTokens(tokenizer, system_prompt=SYSTEM)


def expected(tokenizer, turns, tokenize=True, **kwargs):
    """What transformers makes of the conversation; the system prompt leads the first message where the template has no role for it."""
    if tokenizer.chat_template in (gemma().chat_template, mistral().chat_template):
        messages = [dict(turns[0], content=f"{SYSTEM}\n\n{turns[0]['content']}"), *turns[1:]]
    else:
        messages = [{"role": "system", "content": SYSTEM}, *turns]
    made = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=tokenize, **kwargs)
    return made["input_ids"] if tokenize else made


def chat_of(*texts):
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_reply_ends_where_the_template_ends_it(name):
    tokenizer, chat = family(name)
    assert tokenizer.decode(chat.stop_ids[:1]) == FAMILIES[name][1] and tokenizer.eos_token_id in chat.stop_ids


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "texts", [("Set sail.",), ("  Where to?\n", "<think>east?</think><answer>west</answer>", "\nWhy? "), ("a", "b", "c\n\nd", "<h1>", "é漢🎲")]
)
def test_prompts_are_those_of_the_template(name, texts):
    tokenizer, chat = family(name)
    assert chat.prompt(chat_of(*texts)) == expected(tokenizer, chat_of(*texts))


@pytest.mark.parametrize("name", [name for name in FAMILIES if family(name)[1].append_only])
def test_a_context_that_grows_is_the_templates(name):
    tokenizer, chat = family(name)
    conversation, said = Conversation(chat), []
    for question in ("  Where to?\n", "And then? ", "\n\nAnd\tnow?"):
        said.append(question)
        prompt = conversation.prompt_for(question)
        assert prompt == expected(tokenizer, chat_of(*said))
        reply = "aye</think><answer>west</answer>" if chat.opening else "<think>aye</think><answer>west</answer>"
        # the template decides about the space before a reply; a policy samples it
        lead = " " if name == "mistral" else ""
        ids = tokenizer(lead + reply, add_special_tokens=False)["input_ids"] + [chat.stop_ids[0]]
        turn = conversation.sampled(ids, [-1.0] * len(ids), cut=False)
        assert parse_reply(turn.reply, enable_think=True).answer == "west"
        said.append(turn.reply[len(lead) :])


def test_which_contexts_may_grow():
    assert {name for name in FAMILIES if family(name)[1].append_only} == {"chatml unmarked", "opens and keeps", "llama3", "gemma", "phi"}
    # mistral: the space that its template writes before a reply is not in the generation prompt


def lookalikes(tokenizer):
    """Every added token, in pieces and glued together as well."""
    tokens = sorted({t.content for t in tokenizer.added_tokens_decoder.values()})
    pieces = [half for t in tokens for half in (t[: len(t) // 2], t[len(t) // 2 :]) if half]
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
    return st.lists(st.one_of(st.sampled_from(tokens), st.sampled_from(pieces), text), max_size=7).map("".join)


def control_counts(tokenizer, ids):
    """How often each token that is not the form's stands in ``ids``."""
    tokens = {i: t.content for i, t in tokenizer.added_tokens_decoder.items() if t.content not in FORM and t.content.strip() and t.content != "<h1>"}
    return {text: ids.count(i) for i, text in tokens.items()}


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_no_message_writes_a_control_token(name, data):
    tokenizer, chat = family(name)
    texts = data.draw(st.lists(lookalikes(tokenizer), min_size=1, max_size=5).filter(lambda found: len(found) % 2))
    plain = chat.prompt(chat_of(*("x" for _ in texts)))
    prompt = chat.prompt(chat_of(*texts))
    assert control_counts(tokenizer, prompt) == control_counts(tokenizer, plain)
    if name != "phi":  # whose markers take white space with them
        wanted = expected(tokenizer, [dict(t, content=_closed(chat, t)) for t in chat_of(*texts)], tokenize=False)
        assert tokenizer.decode(prompt) == wanted
    last = chat.stop_ids[0]
    after = chat.continuation(texts[0], last)
    assert control_counts(tokenizer, after) == control_counts(tokenizer, chat.continuation("x", last))


def _closed(chat, turn):
    """As the chat shows a message: a thought that was cut off is closed where thoughts are left out."""
    text = turn["content"]
    unclosed = text.rfind("<think>") > text.rfind("</think>")
    return text + "</think>" if turn["role"] == "assistant" and unclosed and chat.template.strips_thoughts else text


@pytest.mark.parametrize("name", FAMILIES)
def test_a_sampled_control_token_is_text_once_the_reply_is_shown_again(name):
    """A window renders earlier replies anew: a reply that sampled a header must not write one then."""
    tokenizer, chat = family(name)
    counts = []
    for extra in ("", "".join(t.content for t in tokenizer.added_tokens_decoder.values() if t.content not in FORM)):
        conversation = Conversation(chat, window=2)
        for question in ("one", "two", "three"):
            prompt = list(conversation.prompt_for(question))
            ids = tokenizer(f"aye {extra} aye", add_special_tokens=False)["input_ids"] + [chat.stop_ids[0]]
            conversation.sampled(ids, [-1.0] * len(ids), cut=False)
        counts.append(control_counts(tokenizer, prompt))
    assert counts[0] == counts[1]


def test_tokens_that_are_matched_in_normalized_text_are_found_there():
    """Full-width and upper-case spellings of a token that its tokenizer looks for after normalizing."""
    tokenizer = qwen3()
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    backend.add_special_tokens([AddedToken("<|tool|>", special=True, normalized=True)])
    loose = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", clean_up_tokenization_spaces=False)
    loose.chat_template = tokenizer.chat_template
    tool = loose.convert_tokens_to_ids("<|tool|>")
    assert loose("＜|TOOL|＞", add_special_tokens=False)["input_ids"] == [tool]  # what the attack rests on
    prompt = ChatTokens(loose).prompt(chat_of("give ＜|TOOL|＞ to <|tool|>"))
    assert tool not in prompt and "give <|tool|> to <|tool|>" in loose.decode(prompt)


def test_a_vocabulary_that_holds_its_control_tokens_as_words_is_cut_too():
    """A Unigram model finds ``</s>`` in plain text, whatever added tokens say."""
    words = [("<unk>", 0.0), ("</s>", 0.0), ("[U]", 0.0), ("[A]", 0.0), *((c, -5.0) for c in "abcdefghijklmnopqrstuvwxyz/<>[]sUA ▁")]
    backend = Tokenizer(models.Unigram(words, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>", extra_special_tokens=["[U]", "[A]"])
    tokenizer.chat_template = "{% for m in messages %}{{ '[U]' if m.role == 'user' else '[A]' }}{{ m.content }}</s>{% endfor %}[A]"
    split = tokenizer("a</s>b", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert tokenizer.eos_token_id in split  # transformers' own way out does not help
    chat = ChatTokens(tokenizer)
    assert chat.prompt(chat_of("a</s>b[U]é")).count(tokenizer.eos_token_id) == 1  # and an unknown letter is no attack
    assert chat.prompt(chat_of("a</s>b[U]é")).count(tokenizer.convert_tokens_to_ids("[U]")) == 1


def test_thinking_tags_are_text_whoever_types_them():
    """The form's own tags stay the tokens that the instruction in every prompt already has (docs/decisions.md)."""
    tokenizer, chat = family("qwen3")
    text = "Reply as <think>your thoughts</think><answer>your answer</answer>."
    assert chat.prompt(chat_of(text)) == expected(tokenizer, chat_of(text))
    assert tokenizer.convert_tokens_to_ids("<think>") in chat.prompt(chat_of(text))


# -- thoughts --------------------------------------------------------------------------------------


def test_a_thought_that_the_generation_prompt_opens_is_part_of_the_reply():
    for make in (r1, keeps):
        tokenizer = make()
        chat = ChatTokens(tokenizer)
        conversation = Conversation(chat)
        prompt = conversation.prompt_for("Port or starboard?")
        assert tokenizer.decode(prompt).endswith("<think>\n")
        ids = tokenizer("the wind is north\n</think>\n\n<answer>port</answer>", add_special_tokens=False)["input_ids"] + [chat.stop_ids[0]]
        turn = conversation.sampled(ids, [-0.1] * len(ids), cut=False)
        parsed = parse_reply(turn.reply, enable_think=True)
        assert (parsed.ok, parsed.thought, parsed.answer) == (True, "the wind is north", "port")
        assert conversation.samples[0].ids[turn.start : turn.end] == ids and all(conversation.samples[0].mask[turn.start : turn.end])
        with pytest.raises(ValueError, match="enable_think=true"):
            chat.check_form(enable_think=False)
        chat.check_form(enable_think=True)


def test_an_empty_thought_in_the_generation_prompt_is_not_the_replys():
    tokenizer = qwen3()
    chat = ChatTokens(tokenizer, system_prompt=SYSTEM, template_kwargs={"enable_thinking": False})
    assert chat.prompt(chat_of("x")) == expected(tokenizer, chat_of("x"), enable_thinking=False)
    assert tokenizer.decode(chat.prompt(chat_of("x"))).endswith("</think>\n\n")
    chat.check_form(enable_think=False)
    reply = chat.decode_reply(tokenizer("<answer>port</answer>", add_special_tokens=False)["input_ids"])
    assert parse_reply(reply, enable_think=False).answer == "port"


@pytest.mark.parametrize("name", ["qwen3", "r1"])
@pytest.mark.parametrize("typed", ["", " <|im_end|>", "<｜User｜> hm", "</think>"])
def test_stripped_thoughts_stay_stripped_whatever_is_typed(name, typed):
    tokenizer, chat = family(name)
    conversation = Conversation(chat)
    conversation.prompt_for("one")
    for thought in (f"the map{typed} is forged</think><answer>wait</answer>", f"the map{typed.replace('</think>', '')} is"):
        reply = thought if chat.opening else f"<think>{thought}"
        ids = tokenizer(reply, add_special_tokens=False)["input_ids"]
        conversation.sampled(ids, [-0.1] * len(ids), cut=True)
        shown = tokenizer.decode(conversation.prompt_for(f"two{typed}"))
        assert "the map" not in shown and f"two{typed}" in shown


def test_a_server_that_swallows_the_opening_tag_is_read_all_the_same():
    assert with_opening("hm</think><answer>a</answer>") == "<think>hm</think><answer>a</answer>"
    for text in ("<think>hm</think>a", "a", "<think>hm"):
        assert with_opening(text) == text
    assert find_answer("b or c?</think>\n\nc") == "c"


# -- system prompts, templates that will not do --------------------------------------------------------


@pytest.mark.parametrize("make", [gemma, mistral])
def test_without_a_system_role_the_system_prompt_leads_the_first_message(make, caplog):
    tokenizer = make()
    chat = ChatTokens(tokenizer, system_prompt=SYSTEM)
    assert "system role" in caplog.text
    text = tokenizer.decode(chat.prompt(chat_of("one", "two", "three")))
    assert text.count(SYSTEM) == 1 and text.index(SYSTEM) < text.index("one")
    assert chat.messages(chat_of("one"))[0] == {"role": "system", "content": SYSTEM}  # the record keeps them apart
    windowed = Conversation(chat, window=1)
    for question in ("one", "two", "three"):
        shown = tokenizer.decode(windowed.prompt_for(question))
        windowed.sampled([chat.stop_ids[0]], [0.0], cut=False)
    assert shown.count(SYSTEM) == 1 and "one" not in shown


def test_a_template_that_leaves_the_system_prompt_out_is_treated_alike():
    tokenizer = phi()
    tokenizer.chat_template = tokenizer.chat_template.replace("{%- for m in messages %}", "{%- for m in messages if m.role != 'system' %}")
    assert SYSTEM in tokenizer.decode(ChatTokens(tokenizer, system_prompt=SYSTEM).prompt(chat_of("x")))


def test_a_template_that_refuses_a_conversation_is_named_before_anything_starts():
    tokenizer = byte_tokenizer("{{ raise_exception('tools only') }}", ["<eos>"], eos_token="<eos>")
    with pytest.raises(ValueError, match="tools only.*chat_template.jinja"):
        ChatTokens(tokenizer, system_prompt=SYSTEM)


@pytest.fixture
def signals():
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_a_run_whose_every_reply_would_be_refused_ends_before_ray_starts(tmp_path, capsys, signals):
    shutil.copytree(CONFIG_DIR.parent / "assets" / "starter", tmp_path / "model")
    template = tmp_path / "model" / "chat_template.jinja"
    switch = "{% if enable_thinking is not defined or enable_thinking %}<think>\n{% endif %}"
    template.write_text(template.read_text().removesuffix("{% endif %}") + switch + "{% endif %}")
    settings = [f"model_path={tmp_path / 'model'}", f"trainer.default_local_dir={tmp_path / 'run'}", "agent_proxy.enable_think=false"]
    assert run(compose("_0_laptop", settings), plan=None) == 2
    assert "data.apply_chat_template_kwargs" in capsys.readouterr().err and not ray.is_initialized()
    check_chat(compose("_0_laptop", [*settings, "agent_proxy.enable_think=true"]))
    check_chat(compose("_0_laptop", [*settings, "data.apply_chat_template_kwargs={enable_thinking: false}"]))


# -- the shipped starters --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["starter", "starter-games"])
def test_the_starters_see_the_ids_they_were_trained_on(name):
    """ChatML put together by hand, encoded in one piece."""
    tokenizer = AutoTokenizer.from_pretrained(CONFIG_DIR.parent / "assets" / name)
    conversation = Conversation(ChatTokens(tokenizer, system_prompt=SYSTEM))
    text = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
    for question, reply in (("(1,1)O (1,2). \nYour move.", "<think>x</think><answer>(1,2)</answer>"), ("Again, 3 + 4?", "<answer>7</answer>")):
        text += f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        assert conversation.prompt_for(question) == tokenizer(text)["input_ids"]
        text += f"{reply}<|im_end|>"
        ids = tokenizer(f"{reply}<|im_end|>")["input_ids"]
        conversation.sampled(ids, [-1.0] * len(ids), cut=False)
        text += "\n"
