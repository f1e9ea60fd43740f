"""Word pairs: loading them, and whether a description says its own word.

The project's list is ``words.json``: rows ``{"words": [a, b]}``, some with
``"about": {a: [...], b: [...], "both": [...]}``, what can be said of either word or of both.
"""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from functools import cache, lru_cache
from pathlib import Path

logger = logging.getLogger(__name__)

OWN_LIST = Path(__file__).with_name("words.json")

#: plurals and past forms that no suffix rule gives
IRREGULAR = {
    "man": "men", "woman": "women", "policeman": "policemen", "fisherman": "fishermen", "child": "children",
    "mouse": "mice", "goose": "geese", "foot": "feet", "tooth": "teeth", "die": "dice", "ox": "oxen", "person": "people",
}  # fmt: skip

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


@lru_cache(maxsize=8192)
def tokens(text: str) -> tuple[str, ...]:
    """Lower-case words of ``text`` without accents and without a possessive 's."""
    folded = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text).casefold())
    plain = "".join(c for c in folded if not unicodedata.combining(c))
    return tuple(re.findall(r"[^\W_]+", re.sub(r"['’]s\b|['’]", "", plain)))


def spoken_key(word: str) -> str:
    """How a word sounds: its tokens in one string."""
    return "".join(tokens(word))


@lru_cache(maxsize=4096)
def inflections(word: str) -> frozenset[str]:
    """The word itself, its plural, third person, -ed, -ing and -er forms by spelling rule, and an
    irregular plural where the table has one. For compounds the last part is inflected."""
    parts = tokens(word)
    if not parts:
        return frozenset()
    head, last = "".join(parts[:-1]), parts[-1]
    forms = {last, last + "s", last + "es", last + "ed", last + "ing", last + "er", last + "ers"}
    if last.endswith("e"):
        forms |= {last + "d", last + "r", last + "rs", last[:-1] + "ing"}
    if last.endswith("y"):
        forms |= {last[:-1] + "ies", last[:-1] + "ied"}
    if last.endswith("f"):
        forms.add(last[:-1] + "ves")
    if last.endswith("fe"):
        forms.add(last[:-2] + "ves")
    if re.search(r"[^aeiou][aeiou][bdgklmnprtv]$", last):  # run -> running
        forms |= {last + last[-1] + end for end in ("ed", "ing", "er", "ers")}
    for single, plural in IRREGULAR.items():
        if last in (single, plural):
            forms |= {single, plural}
    if last.endswith("ies") and len(last) > 4:
        forms.add(last[:-3] + "y")
    elif last.endswith("s") and not last.endswith("ss") and len(last) > 3:
        forms.add(last[:-1])
    return frozenset(head + form for form in forms)


def says_word(text: str, word: str) -> bool:
    """Does ``text`` contain ``word``? The rule: case, accents and possessives do not count; an
    inflected form (:func:`inflections`) counts; the parts of a compound count when they stand side
    by side, hyphenated or not; a longer word that merely contains it (``pearl`` for ``pear``)
    does not. Scripts without spaces between words are searched as they stand."""
    key, said = spoken_key(word), tokens(text)
    if not key:
        return False
    if any(not c.isascii() for c in key):
        return key in "".join(said)
    forms = inflections(word)
    if forms.intersection(said):
        return True
    spans = len(tokens(word))
    if any("".join(said[i : i + spans]) in forms for i in range(len(said))):
        return True
    return any(spoken_key(joined) in forms for joined in re.findall(r"\w+(?:-\w+)+", text))
