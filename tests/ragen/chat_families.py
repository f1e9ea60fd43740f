"""Tokenizers that are put together as those of model families are: which tokens they keep where, and what their chat
templates do (written here, after what each family's template does). Text is bytes, so decoding gives back the text."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AddedToken, PreTrainedTokenizerFast

_THINK = ["<think>", "</think>"]

#: thoughts of replies before the last question are left out; enable_thinking=false writes an empty thought
QWEN3 = """\
{%- set place = namespace(question=-1) %}
{%- for m in messages %}{%- if m.role == 'user' %}{%- set place.question = loop.index0 %}{%- endif %}{%- endfor %}
{%- for m in messages %}
{%- set said = m.content %}
{%- if m.role == 'assistant' and '</think>' in said and loop.index0 < place.question %}
{%- set said = said.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{{- '<|im_start|>' + m.role + '\\n' + said + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""

#: opens every reply's thought; no white space between messages; earlier thoughts are left out
R1 = """\
{{- bos_token }}
{%- for m in messages if m.role == 'system' %}{{- m.content }}{%- endfor %}
{%- for m in messages %}
{%- if m.role == 'user' %}{{- '<｜User｜>' + m.content }}
{%- elif m.role == 'assistant' %}{{- '<｜Assistant｜>' + m.content.split('</think>')[-1] + eos_token }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<｜Assistant｜><think>\\n' }}{%- endif %}"""

#: opens every reply's thought and keeps what was thought
KEEPS = """\
{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"""

#: trims messages; headers around roles
LLAMA3 = """\
{{- bos_token }}
{%- for m in messages %}
{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""

#: no system role; trims; the reply's role has another name
GEMMA = """\
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}{{- raise_exception('System role not supported') }}{%- endif %}
{%- for m in messages %}
{%- set role = 'model' if m['role'] == 'assistant' else m['role'] %}
{{- '<start_of_turn>' + role + '\\n' + m['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"""

#: white space after a marker belongs to the marker
PHI = """\
{%- for m in messages %}{{- '<|' + m['role'] + '|>\\n' + m['content'] + '<|end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- else %}{{- eos_token }}{%- endif %}"""

#: roles must alternate, which leaves no place for a system message; a reply ends in the tokenizer's own end
MISTRAL = """\
{{- bos_token }}
{%- for m in messages %}
{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{- raise_exception('roles must alternate user/assistant') }}{%- endif %}
{%- if m['role'] == 'user' %}{{- '[INST] ' + m['content'] + '[/INST]' }}{%- else %}{{- ' ' + m['content'] + eos_token }}{%- endif %}
{%- endfor %}"""


def byte_tokenizer(template, special=(), plain=(), rstrip=False, **named):
    """``special``, ``plain``: added tokens by their mark; ``named``: the special-tokens map."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False, rstrip=rstrip) for t in special])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in plain])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **named)
    fast.chat_template = template
    return fast


def qwen3():
    return byte_tokenizer(QWEN3, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], _THINK, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def plain_chatml():
    """``<|im_start|>`` an added token that nobody marked special."""
    return byte_tokenizer(KEEPS.replace("<think>\\n", ""), ["<|endoftext|>"], ["<|im_start|>", "<|im_end|>", *_THINK], eos_token="<|endoftext|>")


def keeps():
    return byte_tokenizer(KEEPS, ["<|im_start|>", "<|im_end|>"], _THINK, eos_token="<|im_end|>")


def r1():
    named = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}
    return byte_tokenizer(R1, list(named.values()), ["<｜User｜>", "<｜Assistant｜>", *_THINK], **named)


def llama3():
    headers = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>"]
    return byte_tokenizer(LLAMA3, ["<|begin_of_text|>", "<|end_of_text|>", *headers], bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>")


def gemma():
    turns = ["<start_of_turn>", "<end_of_turn>"]
    return byte_tokenizer(GEMMA, ["<pad>", "<eos>", "<bos>", *turns], ["\n\n", "<h1>"], bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")


def phi():
    marks = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    return byte_tokenizer(PHI, ["<|endoftext|>", *marks], rstrip=True, eos_token="<|endoftext|>")


def mistral():
    return byte_tokenizer(MISTRAL, ["<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]"], bos_token="<s>", eos_token="</s>")


#: family -> (tokenizer, the token that ends a reply)
FAMILIES = {
    "qwen3": (qwen3, "<|im_end|>"), "chatml unmarked": (plain_chatml, "<|im_end|>"), "opens and keeps": (keeps, "<|im_end|>"),
    "r1": (r1, "<｜end▁of▁sentence｜>"), "llama3": (llama3, "<|eot_id|>"), "gemma": (gemma, "<end_of_turn>"), "phi": (phi, "<|end|>"),
    "mistral": (mistral, "</s>"),
}  # fmt: skip
