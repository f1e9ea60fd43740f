"""Whether a description says its own word, in disguise too.

The rule. Case, accents, possessives, invisible characters and letters of other alphabets that look like Latin
ones make no difference. The word is said by itself, by one of its forms (:mod:`~ragen.env.undercover.inflections`),
by its parts side by side (``ice-cream``, ``foot ball``), and by its letters apart (``a p p l e``, ``a-p-p-l-e``,
``ap.ple``). A longer word that merely contains it does not say it (``pearl`` for pear), nor does a derived
one (``farmer`` for farm). Words of scripts without spaces between words are searched as they stand. Everything
takes time linear in the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache

from ragen.env.undercover.inflections import forms_of

_APOSTROPHES = dict.fromkeys(map(ord, "\u2018\u2019\u02bc\u00b4`\u2032\uff07"), "'")
#: blank or invisible, and no format characters (those are recognised by their category)
_FILLERS = frozenset("\u115f\u1160\u3164\uffa0")


def _alike(pairs: str) -> dict[int, str]:
    """``"xy ..."``: x looks like y."""
    return {ord(pair[0]): pair[1] for pair in pairs.split()}


#: Cyrillic and Greek letters, by case, and Latin ones from phonetics
_LOOKALIKES = _alike(
    "\u0410A \u0412B \u0415E \u0405S \u0406I \u0407I \u0408J \u041aK \u041cM \u041dH \u041eO \u0420P \u0421C \u0422T \u0423Y \u0425X \u04aeY \u04c0I \u051aQ \u051cW "
    "\u0430a \u0432b \u0435e \u0451e \u0455s \u0456i \u0457i \u0458j \u043ak \u043cm \u043dh \u043eo \u0440p \u0441c \u0442t \u0443y \u0445x \u04bbh \u04cfl \u0501d \u051bq \u051dw \u0475v \u04afy \u0433r \u043fn "
    "\u0391A \u0392B \u0395E \u0396Z \u0397H \u0399I \u039aK \u039cM \u039dN \u039fO \u03a1P \u03a4T \u03a5Y \u03a7X \u03f9C "
    "\u03b1a \u03b2b \u03b3y \u03b5e \u03b7n \u03b9i \u03bak \u03bdv \u03bfo \u03c1p \u03c4t \u03c5u \u03c7x \u03c9w \u03f2c \u03f3j "
    "\u0131i \u0251a \u0261g \u026ai \u0262g \u029ch \u029fl \u0274n \u0280r \u028fy \u1d00a \u0299b \u1d04c \u1d05d \u1d07e \ua730f \u1d0aj \u1d0bk \u1d0dm \u1d0fo \u1d18p \ua731s \u1d1bt \u1d1cu \u1d20v \u1d21w \u1d22z"
) | {0x1F1E6 + i: chr(97 + i) for i in range(26)}  # flags' letters

_TOKEN = re.compile(r"[^\W_]+")
_PART = re.compile(r"[^\W\d_]+|\d+")  # a figure parts words: apple1
_POSSESSIVE = re.compile(r"'s(?!\w)|'")
_HALF = 4  # letters of what is taken for half of a word split in two: "foot ball", but not "car pet" or "her ring"


@lru_cache(maxsize=8192)
def fold(text: str, *, latin: bool = False, gap: str = "") -> str:
    """``text`` in lower case without accents; ``gap`` in place of invisible characters; with ``latin``,
    letters that look like Latin ones as those."""
    if text.isascii():
        return text.translate(_APOSTROPHES).casefold()
    if latin:
        text = text.translate(_LOOKALIKES)  # before NFKC, which makes a sigma of a letter like c
    seen = "".join(gap if c in _FILLERS or unicodedata.category(c) == "Cf" else c for c in unicodedata.normalize("NFKC", text))
    apart = unicodedata.normalize("NFD", seen.translate(_APOSTROPHES).casefold())
    plain = "".join(c for c in apart if not _is_accent(c))
    plain = unicodedata.normalize("NFC", plain)
    return plain.translate(_LOOKALIKES) if latin else plain  # once more: an accent hid what a letter looks like


def _is_accent(c: str) -> bool:
    """Marks of any script over or under Latin, Greek and Cyrillic letters (not the vowels and voicings of others)."""
    return "\u0300" <= c <= "\u036f" or "\u1ab0" <= c <= "\u1aff" or "\u1dc0" <= c <= "\u1dff" or "\u20d0" <= c <= "\u20ff" or "\ufe00" <= c <= "\ufe2f"


@lru_cache(maxsize=8192)
def _words(folded: str) -> list[list[str]]:
    """The words of each stretch between white space: ``"ice-cream, please"`` -> ``[[ice, cream], [please]]``."""
    return [_PART.findall(chunk) for chunk in _POSSESSIVE.sub("", folded).split()]


def tokens(text: str) -> tuple[str, ...]:
    """Lower-case words of ``text`` without accents and without a possessive 's."""
    return tuple(_TOKEN.findall(_POSSESSIVE.sub("", fold(text))))


def spoken_key(word: str) -> str:
    """How a word sounds: its tokens in one string."""
    return "".join(tokens(word))


def _parts(word: str) -> list[str]:
    return [part for chunk in _words(fold(word)) for part in chunk]


@lru_cache(maxsize=4096)
def inflections(word: str) -> frozenset[str]:
    """The word and its forms, each in one string. Of a compound the last part is inflected, or the first
    (``mothers-in-law``). Only English words have forms."""
    parts = _parts(word)
    if not parts:
        return frozenset()
    forms = {"".join(parts)}
    if all(part.isascii() for part in parts):
        forms |= {"".join((*parts[:-1], form)) for form in forms_of(parts[-1])}
        if len(parts) > 1:
            forms |= {"".join((form, *parts[1:])) for form in forms_of(parts[0])}
    return frozenset(forms)


def says_word(text: str, word: str) -> bool:
    """Does ``text`` say ``word``? By the rule above."""
    key = spoken_key(word)
    if not key:
        return False
    latin = any("a" <= c <= "z" for c in key)
    readings = dict.fromkeys(fold(text, latin=latin, gap=gap) for gap in ("", " "))  # invisible characters within a word, and between words
    return any(_says(_words(reading), word, key) for reading in readings)


def _says(chunks: list[list[str]], word: str, key: str) -> bool:
    said = [token for chunk in chunks for token in chunk]
    if any(_without_spaces(c) for c in key):
        return key in "".join(said)
    forms = inflections(word)
    if not forms.isdisjoint(said) or any(not forms.isdisjoint(_joined(chunk, forms)) for chunk in chunks if len(chunk) > 1):
        return True
    if not key.isascii() and len(key) > 2 and any(token.startswith(key) and len(token) <= len(key) + 2 for token in said):
        return True  # an alphabet whose grammar is not known: endings of up to two letters
    parts = len(_parts(word))
    if parts > 1 and any("".join(said[i : i + parts]) in forms for i in range(len(said))):
        return True
    if any(len(form) > 2 and form in run for run in _spelled(said) for form in forms):
        return True
    pairs = (a + b for a, b in zip(said, said[1:], strict=False) if min(len(a), len(b)) >= _HALF)
    return not forms.isdisjoint(pairs)


def _joined(chunk: list[str], forms: Iterable[str]) -> Iterator[str]:
    """Neighbours of one stretch put together, as far as a form is long."""
    longest = max(map(len, forms))
    for start, text in enumerate(chunk):
        place = start + 1
        while place < len(chunk) and len(text) < longest:
            text += chunk[place]
            place += 1
            yield text


def _spelled(said: list[str]) -> Iterator[str]:
    """Letters that stand one by one, put together."""
    run: list[str] = []
    for token in (*said, "--"):
        if len(token) == 1:
            run.append(token)
        else:
            if len(run) > 1:
                yield "".join(run)
            run = []


def _without_spaces(c: str) -> bool:
    """Letters of scripts that do not part words by spaces, or let particles grow onto them: all but these."""
    return c.isalpha() and not unicodedata.name(c, "").startswith(("LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN"))
