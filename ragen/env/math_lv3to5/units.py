"""Units in one spelling: ``\\text{ sq. cm}`` and ``cm^2``. Words that change a value are no units."""

from __future__ import annotations

import re

from ragen.env.math_lv3to5.answer_tokens import Unreadable

_SAME = {
    "mm": "millimeter millimetre", "cm": "centimeter centimetre", "m": "meter metre", "km": "kilometer kilometre",
    "in": "inch inche", "ft": "foot feet", "yd": "yard", "mi": "mile", "s": "second sec", "min": "minute", "h": "hour hr",
    "d": "day", "wk": "week", "yr": "year", "g": "gram gm", "kg": "kilogram", "lb": "pound", "oz": "ounce", "l": "liter litre",
    "ml": "milliliter millilitre", "gal": "gallon", "deg": "degree", "rad": "radian", "$": "dollar usd", "c": "cent", "mph": "",
    "pm": "p.m", "am": "a.m", "kph": "kmh",
}  # fmt: skip
_CANONICAL = {word: unit for unit, words in _SAME.items() for word in [*words.split(), unit]}
_POWERS = {"square": "^2", "sq": "^2", "squared": "^2", "cubic": "^3", "cu": "^3", "cubed": "^3", "^2": "^2", "^3": "^3"}
#: "5 million" is not 5
_CHANGES = frozenset(
    "not no none non never neither nor hundred thousand million billion trillion dozen half third quarter pi root over plus minus times "
    "divided more less least most than about approximately around roughly almost nearly under above below between to through factorial "
    "and or but if is are was equals except without with choose mod modulo base power infinity undefined one two three four five six seven "
    "eight nine ten zero negative positive percent".split()
)
_MOST_WORDS = 12


def is_known_unit(word: str) -> bool:
    """Whether ``word`` is a unit even without ``\\text`` around it (one letter is a variable)."""
    word = word.casefold()
    return len(word) > 1 and (word in _CANONICAL or word.removesuffix("s") in _CANONICAL)


def canonical_unit(text: str) -> str:
    """One spelling of a unit, or the words themselves where it is not a known one. Raises :class:`Unreadable` for
    words that say something else than what is counted."""
    words = [w for w in (w.strip(".") for w in re.findall(r"\^\d|[A-Za-z.]+", text.casefold())) if w]
    changes = any(w in _CHANGES or w.removesuffix("s") in _CHANGES for w in words)
    names = [_CANONICAL.get(w) or _CANONICAL.get(w.removesuffix("s")) or w for w in words if w not in _POWERS]
    if re.search(r"[^A-Za-z\s.,/^23'-]", text) or len(words) > _MOST_WORDS or changes or not names:
        raise Unreadable(f"no unit: {text}")
    return " ".join(names) + "".join(_POWERS[w] for w in words if w in _POWERS)


def units_differ(first: str, second: str) -> bool:
    """Whether both are known units and not the same."""
    return first != second and all(u.split("^")[0] in _SAME for u in (first, second))
