"""Tokenizers, loaded without running anybody's code unless asked."""

import logging
import os

from transformers import AutoProcessor, AutoTokenizer, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def set_pad_token_id(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer without a padding token its end-of-text token for it (padding is masked everywhere)."""
    if tokenizer.pad_token_id is not None:
        return
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"{tokenizer.name_or_path}: the tokenizer has neither pad_token nor eos_token; name one in tokenizer_config.json"
        )
    tokenizer.pad_token = tokenizer.eos_token
    logger.info("%s: pad_token is not set, eos_token %r pads", tokenizer.name_or_path, tokenizer.eos_token)


def hf_tokenizer(
    name_or_path: str, correct_pad_token: bool = True, trust_remote_code: bool = False, **kwargs
) -> PreTrainedTokenizerBase:
    """The tokenizer of a local folder or of a model on the hub.

    Args:
        correct_pad_token: give it a padding token where it has none.
        trust_remote_code: run the tokenizer's own Python code, if it has any.

    Raises:
        FileNotFoundError: a folder that does not exist or holds no tokenizer.
        ValueError: it cannot be loaded (code of its own without trust_remote_code, ...), or has no token to pad with.
    """
    path = os.path.expanduser(str(name_or_path))
    if os.path.isdir(path):
        if not any(name.startswith(("tokenizer", "vocab", "spiece")) for name in os.listdir(path)):
            raise FileNotFoundError(
                f"{path} holds no tokenizer (tokenizer.json, tokenizer_config.json, ...): copy them from the original model"
            )
    elif path.startswith((".", os.sep)) or path.count("/") > 1:
        raise FileNotFoundError(f"tokenizer: there is no folder {path}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code, **kwargs)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the tokenizer of {path} cannot be loaded: {str(error).strip().splitlines()[0]}. Give an existing model folder or "
            "a name of the Hugging Face hub; one with code of its own needs trust_remote_code=true"
        ) from error
    if correct_pad_token:
        set_pad_token_id(tokenizer)
    return tokenizer


def hf_processor(name_or_path: str, trust_remote_code: bool = False, **kwargs):
    """The processor of a multimodal model, None for a model of text alone."""
    try:
        processor = AutoProcessor.from_pretrained(
            os.path.expanduser(str(name_or_path)), trust_remote_code=trust_remote_code, **kwargs
        )
    except (OSError, ValueError, KeyError):
        return None
    return processor if "Processor" in type(processor).__name__ else None
