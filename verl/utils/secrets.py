"""Keys, tokens and passwords masked wherever a config or a log is shown."""

import logging
import os
import re
from collections.abc import Mapping
from typing import Any

MASK = "***"

# names whose value is a secret, number or not
_SECRET_NAME = re.compile(
    r"(?:^|[_\-.])(?:(?:api|access|secret|private|auth|encryption|signing|license|subscription|account|service)[_\-]?keys?"
    r"(?:[_\-]id)?|secrets?|passwords?|passwd|passphrase|credentials?|authorization|bearer)$",
    re.IGNORECASE,
)
# names whose value is a secret if it is text: `hf_token`, `key`; not `eos_token`, `max_tokens: 5`
_SECRET_TEXT_NAME = re.compile(r"(?:^|[_\-.])(?:tokens?|auth)$|^keys?$|_KEYS?$", re.IGNORECASE)
_TOKEN_OF_TEXT = re.compile(
    r"(?:^|_)(?:eos|bos|pad|unk|sep|cls|mask|stop|special|image|start|end)_tokens?$|^(?:max|min|num|new)_(?:\w+_)?tokens$",
    re.IGNORECASE,
)
_KEY_OF_DATA = re.compile(r"[a-z0-9]_keys?$")  # VeRL's prompt_key, reward_fn_key: a column's name
_LOOKS_RANDOM = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[A-Za-z0-9_\-./+=]{20,}")
_SECRET_TEXT = [
    re.compile(r"\b(?:sk|pk|rk)-[A-Za-z0-9_\-]{16,}"),  # OpenAI, DeepSeek, Anthropic
    re.compile(r"\bhf_[A-Za-z0-9]{16,}"),
    re.compile(r"\bgh[pousr]_[A-Za-z0-9]{20,}"),
    re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    re.compile(r"\bAIza[0-9A-Za-z_\-]{30,}"),
    re.compile(r"(?<=Bearer )[A-Za-z0-9._\-]{8,}", re.IGNORECASE),
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),  # user:password@host
    re.compile(
        r"(?<![A-Za-z])((?:[A-Za-z0-9]+[_\-])*(?:api[_\-]?key|secret|password|passwd|access[_\-]?token|auth[_\-]?token)"
        r"[\"']?\s*[:=]\s*[\"']?)[^\s\"',;}&]{4,}",
        re.IGNORECASE,
    ),
]


def is_secret_key(key: str, value: Any = "") -> bool:
    """Whether a config key or environment variable of this name holds a secret, given its value."""
    if _SECRET_NAME.search(key):
        return True
    if not isinstance(value, str) or _TOKEN_OF_TEXT.search(key):
        return False
    if _KEY_OF_DATA.search(key):
        return bool(_LOOKS_RANDOM.fullmatch(value))
    return bool(_SECRET_TEXT_NAME.search(key))


def mask_text(text: str) -> str:
    """`text` with everything that looks like a key, and every value of a secret environment variable, replaced by ***."""
    for name, value in os.environ.items():
        if len(value) >= 8 and is_secret_key(name, value):
            text = text.replace(value, MASK)
    for pattern in _SECRET_TEXT:
        text = pattern.sub(lambda match: (match.group(1) if match.lastindex else "") + MASK, text)
    return text


def mask_secrets(value: Any) -> Any:
    """A copy of nested dicts and lists (an OmegaConf config too) without secrets.

    A value under a secret's name becomes *** (None, "" and False stay: they say that there is none); all other text is
    searched for what looks like a key. Tuples become lists.
    """
    if _is_omegaconf(value):
        from omegaconf import OmegaConf

        value = OmegaConf.to_container(value, resolve=True)
    if isinstance(value, Mapping):
        return {key: _mask_item(str(key), item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [mask_secrets(item) for item in value]
    return mask_text(value) if isinstance(value, str) else value


def _mask_item(key: str, item: Any) -> Any:
    if isinstance(item, (list, tuple)):
        return [_mask_item(key, part) for part in item]
    if isinstance(item, Mapping) or _is_omegaconf(item) or item in (None, "", False):
        return mask_secrets(item)
    return MASK if is_secret_key(key, item) else mask_secrets(item)


def _is_omegaconf(value: Any) -> bool:
    return type(value).__module__.startswith("omegaconf.")


class MaskingFilter(logging.Filter):
    """Masks secrets in log records, tracebacks included. Add it to a handler: `handler.addFilter(MaskingFilter())`."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = mask_text(record.getMessage()), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = mask_text(record.exc_text)
        return True
