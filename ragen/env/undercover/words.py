"""Word pairs: loading them, and what is known of the words. Whether a description says its own word
is :mod:`ragen.env.undercover.spoken`'s business.

The project's list is ``words.json``: rows ``{"words": [a, b]}``, some with
``"about": {a: [...], b: [...], "both": [...]}``, what can be said of either word or of both.
"""

from __future__ import annotations

import json
import logging
from functools import cache
from pathlib import Path

from ragen.env.undercover.spoken import spoken_key

logger = logging.getLogger(__name__)

OWN_LIST = Path(__file__).with_name("words.json")

Pair = tuple[str, str]


#: ``word_list`` value: the pairs of the own list whose words the scripted players can describe
DESCRIBED = "described"


@cache
def load_pairs(path: str | None = None) -> tuple[Pair, ...]:
    """The pairs of a list, in its order; ``None`` is the project's own, :data:`DESCRIBED` the part of
    it that scripted players know something about. Read once a process.

    Rows with an empty word or the same word twice are left out and counted in the log. Raises
    ``FileNotFoundError`` for a missing file and ``ValueError`` naming the row of a malformed one.
    """
    if path == DESCRIBED:
        return tuple(pair for pair in load_pairs() if pair[0].lower() in knowledge())
    file = Path(path) if path else OWN_LIST
    if not file.is_file():
        raise FileNotFoundError(f"undercover: word_list {str(file)!r} is no file; give a JSON list of [word, word] pairs or null for the own list")
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"undercover: word_list {str(file)!r} is not JSON ({error})") from error
    if not isinstance(rows, list):
        raise ValueError(f"undercover: word_list {str(file)!r} must be a JSON list of [word, word] pairs, got {type(rows).__name__}")
    pairs = [_pair(row, number, file) for number, row in enumerate(rows)]
    good = tuple((a, b) for a, b in pairs if a and b and spoken_key(a) != spoken_key(b))
    if len(good) < len(pairs):
        logger.warning("undercover: %s: %d of %d pairs left out (an empty word, or one word twice)", file.name, len(pairs) - len(good), len(pairs))
    if not good:
        raise ValueError(f"undercover: word_list {str(file)!r} holds no usable pair")
    return good


def _pair(row: object, number: int, file: Path) -> Pair:
    words = row.get("words") if isinstance(row, dict) else row
    if not isinstance(words, list) or len(words) != 2 or not all(isinstance(w, str) for w in words):
        raise ValueError(f"undercover: word_list {str(file)!r}, row {number}: expected [word, word], got {row!r:.80}")
    return " ".join(words[0].split()), " ".join(words[1].split())


@cache
def knowledge() -> dict[str, tuple[str, ...]]:
    """What the own list says of each word (lower case): its own phrases and those it shares. The
    pairs are dissolved, so that knowing a word does not tell its partner."""
    about: dict[str, tuple[str, ...]] = {}
    for row in json.loads(OWN_LIST.read_text(encoding="utf-8")):
        facts = row.get("about")
        if facts:
            for word in row["words"]:
                known = about.get(word.lower(), ())
                about[word.lower()] = known + tuple(f for f in (*facts[word], *facts["both"]) if f not in known)
    return about
