"""Tokenizers built here, of several kinds: what a conversation is must not depend on them."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
#: no line break after a reply, other markers
INST = (
    "{{ '<s>' }}{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] + '</s>' }}"
    "{% else %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% endif %}{% endfor %}"
)
#: like Qwen3's: thoughts of earlier replies are left out
STRIPS_THOUGHTS = (
    "{% for m in messages %}{% set c = m['content'] %}"
    "{% if m['role'] == 'assistant' and '</think>' in c %}{% set c = c.split('</think>')[-1] %}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + c + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_CORPUS = [
    "You are playing a game. Reply as <think>your thoughts</think><answer>your answer</answer>.",
    "(1,1)O (1,2)- (1,3)X\nYour move, X.", "user assistant system\n", "the quick brown fox jumps over the lazy dog",
] * 20  # fmt: skip


def bpe(template: str, special: list[str], eos: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return _wrap(tokenizer, template, special, eos)


def metaspace(template: str, special: list[str], eos: str) -> PreTrainedTokenizerFast:
    """Sentencepiece-like: a dummy space before text, byte fallback, NFKC: decoding does not give back the text."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    words = [*special, "<unk>", *(f"<0x{i:02X}>" for i in range(256))]
    tokenizer.train_from_iterator(_CORPUS, trainers.BpeTrainer(vocab_size=600, special_tokens=words, show_progress=False))
    return _wrap(tokenizer, template, special, eos)


def _wrap(tokenizer, template, special, eos):
    extra = [s for s in special if s != eos]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=eos, pad_token=special[0], additional_special_tokens=extra, clean_up_tokenization_spaces=False
    )
    fast.chat_template = template
    return fast


_IM = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TOKENIZERS = {
    "chatml-bpe": lambda: bpe(CHATML, _IM, "<|im_end|>"),
    "inst-bpe": lambda: bpe(INST, ["<s>", "</s>"], "</s>"),
    "chatml-metaspace": lambda: metaspace(CHATML, _IM, "<|im_end|>"),
}
