"""API keys: read when a player needs them, used in turn, shown nowhere."""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path

#: names the file with keys; without it ``api-keys.json`` of the working directory is read
KEYS_FILE_VARIABLE = "GIFT_API_KEYS"
DEFAULT_KEYS_FILE = "api-keys.json"


class KeyRing:
    """The keys of one provider, dealt in turn. Its ``repr`` tells how many there are, no more."""

    def __init__(self, provider: str, keys: tuple[str, ...] = ()):
        self.provider = provider
        self._keys = keys
        self._turn = itertools.cycle(keys)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"KeyRing({self.provider}, {len(self._keys)} keys)"

    def __reduce__(self):
        raise TypeError("keys do not travel: each process reads its own")

    def headers(self) -> dict[str, str]:
        """The header of the next call; empty where no key is needed."""
        if not self._keys:
            return {}
        with self._lock:
            return {"Authorization": f"Bearer {next(self._turn)}"}

    def redact(self, text: str) -> str:
        """``text`` without any of the keys (a server may repeat one in its error)."""
        for key in self._keys:
            text = text.replace(key, "***")
        return text


def load_keys(provider: str, *, required: bool, environ: Mapping[str, str] = os.environ) -> KeyRing:
    """Keys of ``provider``: the variable ``PROVIDER_API_KEY`` (several separated by commas), else
    the entry of that name in the keys file, a string or a list of strings.

    Raises ``ValueError``, naming where a key is expected, if ``required`` and there is none or if
    the file is malformed; no message holds a key.
    """
    variable = f"{provider.upper().replace('-', '_')}_API_KEY"
    file = Path(environ.get(KEYS_FILE_VARIABLE) or DEFAULT_KEYS_FILE)
    keys = _split(environ.get(variable, "").split(","))
    if not keys and file.is_file():
        keys = _from_file(file, provider)
    if required and not keys:
        raise ValueError(f"no API key for {provider}: set {variable} or add {provider!r} to {file} ({{{provider!r}: [key, ...]}})")
    return KeyRing(provider, keys)


def _from_file(file: Path, provider: str) -> tuple[str, ...]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{file} is not JSON; expected {{provider: [key, ...]}}") from None
    found = content.get(provider, []) if isinstance(content, dict) else None
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list) or not all(isinstance(key, str) for key in found):
        raise ValueError(f"{file}: {provider!r} must be a key or a list of keys")
    return _split(found)


def _split(keys: list[str]) -> tuple[str, ...]:
    return tuple(key.strip() for key in keys if key.strip())
