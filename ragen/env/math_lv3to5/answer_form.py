"""What kind of thing an answer is: one value, a listing, a tuple, an interval, a relation, words.

The structure is read here, and only formulas without structure of their own (:class:`Value`) go to a computer algebra
system. So ``1, 2`` is two values and never the value 2, and what is not understood raises :class:`Unreadable`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from ragen.env.math_lv3to5.answer_latex import FUNCTIONS, GREEK, emit, split_sign_choice
from ragen.env.math_lv3to5.answer_tokens import DEGREE, PERCENT, SPACE, Token, Unreadable, tokens_of
from ragen.env.math_lv3to5.units import canonical_unit, is_known_unit


@dataclass(frozen=True)
class Value:
    """A formula, as the LaTeX that latex2sympy reads. ``unit``: in one spelling, empty for none. ``decimal``:
    the answer is a plain decimal number. ``letters``: the text where it is letters alone. ``approximate``: after ``≈``."""

    latex: str
    unit: str = ""
    percent: bool = False
    decimal: bool = False
    letters: str = ""
    approximate: bool = False


@dataclass(frozen=True)
class Words:
    """Letters alone, without case and spacing."""

    letters: str


@dataclass(frozen=True)
class Verbatim:
    """Digits that are compared as written: a number in another base, a ratio's or a clock's parts."""

    parts: tuple[str, ...]
    unit: str = ""


@dataclass(frozen=True)
class Listing:
    """Several answers. ``braces``: written as a set."""

    items: tuple[Form, ...]
    braces: bool = False


@dataclass(frozen=True)
class Brackets:
    """A tuple or an interval: ``ends`` are its brackets."""

    ends: str
    items: tuple[Form, ...]


@dataclass(frozen=True)
class Union:
    parts: tuple[Form, ...]


@dataclass(frozen=True)
class Chain:
    """``parts`` linked by ``signs`` (``=``, ``approx``, ``in``, ``<``, ``le``, ``>``, ``ge``, ``ne``). ``name``: the first
    part, if it names a quantity (``x``, ``f(2)``, ``|AB|``)."""

    parts: tuple[Form, ...]
    signs: tuple[str, ...]
    name: str = ""


Form = Value | Words | Verbatim | Listing | Brackets | Union | Chain

_SIGNS = ("=", "approx", "in", "<", "le", ">", "ge", "ne")
_OPEN, _CLOSE = {"(", "[", "{", "{{", "<<"}, {")", "]", "}", "}}", ">>"}
_QUANTITY = r"[A-Za-z]+(?:_(?:\w|\{[^{}]*\}))?(?:\([^()]*\))?"
#: x, x_{1}, f(2), P(X=1), (p,q), |AB|, S:T, AB/CD as \frac{AB}{CD}; not |x| or x/2, which are no names of what is asked
_NAME = re.compile(rf"{_QUANTITY}|\({_QUANTITY}(?:,{_QUANTITY})*\)|\|[A-Z]{{2,}}\||{_QUANTITY}(?::{_QUANTITY})+|#\{{[A-Z]{{2,}}\}}\{{[A-Z]{{2,}}\}}")
_IN_NAMES = {"frac": "#", "overline": "", "angle": "", "triangle": "", "vec": ""}
_DEEPEST = 12
_MOST_ITEMS = 100


def read(text: str) -> Form:
    """The form of ``text``. Raises :class:`Unreadable`."""
    return _read(tokens_of(text), 0)


def _read(tokens: Sequence[Token], depth: int) -> Form:
    tokens = _bare(tokens)
    if not tokens or depth > _DEEPEST:
        raise Unreadable("nothing there" if not tokens else "too deep")
    parts, separators = _split(tokens, lambda t: t.kind == "separator" or (t.kind == "symbol" and t.value in ",;"))
    if separators:
        return _listing(parts, depth)
    parts, signs = _split(tokens, lambda t: t.value in _SIGNS and t.kind in ("symbol", "command"))
    if signs:
        if any(not _bare(p) for p in parts):
            if len(parts) == 2 and signs == ["approx"] and not _bare(parts[0]):  # "about 8.24": the sign alone
                return approximately(_read(parts[1], depth + 1))
            if len(parts) == 2 and signs == ["="] and not _bare(parts[0]):
                return _read(parts[1], depth + 1)
            raise Unreadable("a relation without a side")
        name = _name(parts[0]) if set(signs) <= {"=", "approx", "in"} else ""
        rest = parts[1:] if name else parts
        forms = tuple(_read(p, depth + 1) for p in rest)
        if not name and isinstance(forms[0], Words):
            raise Unreadable("a sentence")
        return Chain(forms, tuple(signs), name)
    parts, unions = _split(tokens, lambda t: t == Token("command", "cup"))
    if unions:
        return Union(tuple(_read(p, depth + 1) for p in parts))
    return _bracketed(tokens, depth) or _words(tokens) or _verbatim(tokens) or _value(tokens, depth)


def approximately(form: Form) -> Form:
    return replace(form, approximate=True) if isinstance(form, Value) else form


def _listing(parts: list[list[Token]], depth: int) -> Form:
    items: list[Form] = []
    filled = [p for p in parts if _bare(p)]
    if len(filled) > _MOST_ITEMS:
        raise Unreadable("too many answers")
    for part in filled:
        item = _read(part, depth + 1)
        items += item.items if isinstance(item, Listing) and not item.braces else [item]
    return items[0] if len(items) == 1 else Listing(tuple(items))


def _bracketed(tokens: list[Token], depth: int) -> Form | None:
    """A tuple, an interval, a set, or what is in brackets around everything."""
    first, last = tokens[0].value, tokens[-1].value
    if first not in ("(", "[", "{", "{{") or not _encloses(tokens):
        return None
    inner = tokens[1:-1]
    parts, commas = _split(inner, lambda t: t.kind == "symbol" and t.value in ",;")
    if first in ("{", "{{"):
        if not commas:
            item = _read(inner, depth + 1)
            return Listing((item,), braces=True) if first == "{{" else item
        listing = _listing(parts, depth)
        return Listing(listing.items if isinstance(listing, Listing) else (listing,), braces=True)
    if not commas:
        return _read(inner, depth + 1) if first + last == "()" else None
    return Brackets(first + last, tuple(_read(p, depth + 1) for p in parts))


def _words(tokens: list[Token]) -> Words | None:
    kinds = {t.kind for t in tokens if t != SPACE and t.value not in "()."}
    letters = "".join(t.value for t in tokens if t.kind in ("text", "word"))
    if tokens == [Token("command", "emptyset")]:
        return Words("emptyset")
    if "text" in kinds and kinds <= {"text", "word"} or kinds == {"word"} and any(len(t.value) > 2 for t in tokens):
        plain = re.sub(r"[\s().]", "", letters).casefold()
        return Words(plain) if plain else None
    return None


def _verbatim(tokens: list[Token]) -> Verbatim | None:
    """``1204_9``, ``7:32``, ``8:30 p.m.``."""
    body, unit, _ = _without_unit(tokens)
    text = "".join(t.value for t in body if t != SPACE)
    if match := re.fullmatch(r"(\d+)_(?:(\d+)|\{(\d+)\})", text):
        return Verbatim((match[1].lstrip("0"), "_", match[2] or match[3]))
    if re.fullmatch(r"[^:]+(?::[^:]+)+", text) and all(t.kind in ("number", "space") or t.value in ":" for t in body):
        return Verbatim(tuple(text.replace(":", " : ").split()), unit)
    return None


def _value(tokens: list[Token], depth: int) -> Form:
    body, unit, percent = _without_unit(tokens)
    if not body:
        raise Unreadable("no value")
    if choices := split_sign_choice(body):
        return Listing(tuple(_value(choice, depth + 1) for choice in choices))
    plain = "".join(t.value for t in body if t != SPACE)
    letters = plain.casefold() if plain.isalpha() and all(t.kind in ("word", "space") for t in body) else ""
    return Value(emit(body), unit, percent, bool(re.fullmatch(r"-?\d*\.\d+", plain)), letters)


def _without_unit(tokens: Sequence[Token]) -> tuple[list[Token], str, bool]:
    """(value, unit, percent) of ``5 \\text{ cm}``, ``3 apples``, ``90^\\circ``, ``28\\%``."""
    body, percent = list(tokens), False
    words: list[str] = []
    while body:
        last = body[-1]
        if last == SPACE:
            pass
        elif last == PERCENT and not words and not percent:
            percent = True
        elif last == DEGREE and not words:
            words.append("degree")
        elif last.kind == "text" or last.kind == "word" and _is_unit(last.value, body[-2:-1]):
            words.append(last.value)
        elif (power := _power(body)) is not None:
            words.append(f"^{power[0]}")
            del body[len(body) - power[1] + 1 :]
        elif last.value == "/" and words or last.value == "." and words:
            words.append(last.value)
        else:
            break
        body.pop()
    if words == ["degree"] and any(t.kind == "command" and t.value in FUNCTIONS for t in body):
        raise Unreadable("a function of degrees without brackets")
    if not body or not words:
        return body, "", percent
    return body, canonical_unit(" ".join(reversed(words))), percent


def _is_unit(word: str, before: Sequence[Token]) -> bool:
    """Whether a word without ``\\text`` is a unit: a known one, or a longer word with space before it."""
    return is_known_unit(word) or len(word) > 3 and list(before) == [SPACE]


def _power(body: list[Token]) -> tuple[str, int] | None:
    """The exponent of a unit that ends ``body`` (``\\text{cm}^2``, ``^{2}``) and how many tokens it takes."""
    values = [t.value for t in body]
    for tail, taken in ((["^", values[-1]], 2), (["^", "{", values[-2] if len(body) > 1 else "", "}"], 4)):
        if values[-taken:] == tail and len(body) > taken + 1 and (power := tail[-1].replace("}", values[-2])) in ("2", "3"):
            unit = body[-taken - 1]
            if unit.kind == "text" or unit.kind == "word" and is_known_unit(unit.value):
                return power, taken
    return None


def _name(tokens: Sequence[Token]) -> str:
    """The text of a quantity's name, or an empty one."""
    known = {**_IN_NAMES, **{name: name for name in GREEK}}
    words = [t.kind == "word" for t in tokens]
    if any(words[i] and tokens[i + 1] == SPACE and words[i + 2] for i in range(len(tokens) - 2)):
        return ""  # a sentence
    text = "".join(t.value if t.kind != "command" else known.get(t.value, "?") for t in tokens if t != SPACE)
    return re.sub(r"[{}]", "", text) if len(text) < 100 and _NAME.fullmatch(text) else ""


def _bare(tokens: Sequence[Token]) -> list[Token]:
    """Without space and sentence punctuation at the ends."""
    tokens = list(tokens)
    while tokens and (tokens[-1] == SPACE or tokens[-1].kind == "symbol" and tokens[-1].value == "."):
        tokens.pop()
    start = 0
    while start < len(tokens) and tokens[start] == SPACE:
        start += 1
    return tokens[start:]


def _split(tokens: Sequence[Token], is_separator) -> tuple[list[list[Token]], list[str]]:
    """Parts between separators outside all brackets, and those separators."""
    parts, found, depth = [[]], [], 0
    for token in tokens:
        depth += (token.value in _OPEN and token.kind == "symbol") - (token.value in _CLOSE and token.kind == "symbol")
        if depth == 0 and is_separator(token):
            parts.append([])
            found.append(token.value)
        else:
            parts[-1].append(token)
    return parts, found


def _encloses(tokens: Sequence[Token]) -> bool:
    """Whether the first token's bracket is closed by the last."""
    depth = 0
    for place, token in enumerate(tokens):
        if token.kind == "symbol":
            depth += (token.value in _OPEN) - (token.value in _CLOSE)
        if depth == 0:
            return place == len(tokens) - 1 and place > 0
    return False


def decimal_of(form: Form) -> Fraction | None:
    """``1000,99`` as the number with a decimal comma, where it can be one."""
    if isinstance(form, Listing) and len(form.items) == 2 and not form.braces:
        parts = [item.latex for item in form.items if isinstance(item, Value) and not item.unit and not item.percent]
        if len(parts) == 2 and re.fullmatch(r"-?\d+", parts[0]) and re.fullmatch(r"\d{1,2}", parts[1]):
            return Fraction(f"{parts[0]}.{parts[1]}")
    return None
