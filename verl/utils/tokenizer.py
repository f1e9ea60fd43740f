"""Tokenizers of Hugging Face folders, ready for batching."""

import logging

from transformers import AutoTokenizer, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def hf_tokenizer(name_or_path: str, correct_pad_token: bool = True, **kwargs) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder (VeRL's name). `correct_pad_token`: without a pad token, the end token pads."""
    tokenizer = AutoTokenizer.from_pretrained(name_or_path, **kwargs)
    if correct_pad_token:
        set_pad_token_id(tokenizer)
    return tokenizer


def set_pad_token_id(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let the end token pad where a tokenizer has no pad token."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
        logger.info("the tokenizer has no pad token: its end token %r pads", tokenizer.eos_token)
