r"""The answer that a reply to a maths problem gives, by rules tried in turn (:data:`RULES`)."""

from __future__ import annotations

import re

from ragen.eval.reply_parts import Extracted, Rule, answer_block, boxed, first, squeezed, strict_text, without_thoughts

#: a minus sign belongs to a number where nothing that it could be subtracted from comes before: not in ``10-3``, ``n - 3``
_SIGN = r"(?:(?<![\w)\]}])(?<![\d)\]}] )[-+]|(?:(?<==)|(?<== ))- )?"
_DIGITS = r"(?:\d{1,3}(?:(?:,|\{,\}|\\,)\d{3})+(?!\d)|\d{1,3}(?: 000)+(?!\d)|\d+)"
_NUMBER = re.compile(rf"{_SIGN}(?:\\?[$€£] ?)?{_SIGN}(?<![A-Za-z_\d])(?:{_DIGITS}(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?(?:[/:]\d+)?")
_SEPARATORS = re.compile(r",|\{,\}|\\,|(?<=\d) (?=000)|[$€£\\]")
_NARROW_SPACE = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")
_MINUS = str.maketrans({"\u2212": "-", "\ufe63": "-", "\uff0d": "-"})
_DASH_AS_MINUS = re.compile(r"(?<![\w)\]}])(?<![\d)\]}] )[–‒](?=[\d.$\\])")

_HASHES = re.compile(r"(?:^|\n)#### ?([-+]?[$\\]?[\d.,/]+(?: ?[A-Za-z%°]+)?|\$[^$\n]+\$) ?\.?(?=\n|$)")
_STATED = re.compile(
    r"\b(?:answer|result|solution)\b(?:(?: (?:to|of|for|in)\b[^.:\n$=]{1,80}?)? (?:is|was|equals|would be|must be|should be|will be)\b ?:?|:| ?=)\s*",
    re.IGNORECASE,
)
_FILLERS = re.compile(r"(?:(?:therefore|thus|then|simply|approximately|about|given by|equal to|exactly),? ){0,2}", re.IGNORECASE)
_NO_VALUE = re.compile(r"(?:not|unknown|unclear|undefined here|that|to|in|as follows|when|correct|wrong|right)\b", re.IGNORECASE)
_MATHS_SIGN = re.compile(r"[\d\\^_=<>]|^\W*\w{1,2}\W*$")
_LEADS_TO_VALUE = re.compile(r"(?:\b(?:is|are|be|get|obtain|have|gives|equals|to)|[:=])\s*$")
_PURPOSE = re.compile(r"(?<=[a-z]) (?:to|of|per|in|for|among|each|from|with|at|on)\b")
_FORMULAS = (("\\[", "\\]"), ("\\(", "\\)"), ("$$", "$$"), ("$", "$"))
_SENTENCE_END = re.compile(r"[.!](?:\s|$)|\n")
_CLAUSE_END = re.compile(r",? (?:\(|because\b|since\b|as\b|which\b|but\b|not\b|so\b|i\.e\b)|, (?:not|because|since|as|which|so|where)\b")


def maths(reply: str, think: bool, usual: bool) -> Extracted:
    r"""Strict: the ``<answer>`` block of a reply that keeps the form, or (``usual``) the last ``\boxed{}``.
    Flexible: the first of :data:`RULES` that finds something. Typographic minus signs are read as ``-``."""
    reply = usual_signs(reply)
    text = without_thoughts(reply)
    strict = boxed(text) if usual else strict_text(reply, think)
    return Extracted(strict, *first(tuple(RULES.items()), squeezed(text)))


def number(text: str) -> str:
    """A number as GSM8K compares it, without thousands separators, currency or unit: the first after the last ``=``,
    the one that ``text`` begins with, or else its last. ``text`` itself where it holds no number."""
    text = usual_signs(text)
    _, equals, right = text.rpartition("=")
    found = _NUMBER.search(right) if equals else _NUMBER.match(text.lstrip(" *$(\\"))
    last = found[0] if found else _last_number(text)
    return _SEPARATORS.sub("", last or text).removeprefix("+").rstrip(".")


def vote(text: str | None) -> str | None:
    """What two samples must share to count as one answer: the text, spacing and case aside."""
    return None if text is None else re.sub(r"\s+|\\[!,;:]|\$", "", text).rstrip(".").casefold() or None


def usual_signs(text: str) -> str:
    """Typographic minus signs as ``-``, thin and unbreakable spaces between thousands as commas."""
    return _NARROW_SPACE.sub(",", _DASH_AS_MINUS.sub("-", text.translate(_MINUS)))


# -- rules: text -> answer, None for nothing found ----------------------------------------------


def _block(text: str) -> str | None:
    """The answer block; of a block with a box or a sentence, what that says."""
    block = answer_block(text)
    return None if block is None else boxed(block) or _stated(block) or _formula(block) or block


def _hashes(text: str) -> str | None:
    """GSM8K's ``#### 18``. A Markdown heading (``#### Step 2``) is none."""
    found = _HASHES.findall(text)
    return found[-1].strip("$ ") if found else None


def _stated(text: str) -> str | None:
    """ "The answer is 18.", "**Answer:** 18", "the result is" before a formula of its own line. The last one counts."""
    text, found = text.replace("**", ""), None
    for m in _STATED.finditer(text):
        value = _value(text[m.end() : m.end() + 400])
        found = value if value is not None else found
    return found


def _closing_formula(text: str) -> str | None:
    r"""A reply that ends with a formula (``\[ ... \]``, "is $...$"): what it gives after its last ``=``."""
    text = text.rstrip(" \n.*")
    for opening, closing in _FORMULAS:
        if text.endswith(closing):
            start = text.rfind(opening, 0, len(text) - len(closing))
            inside = "" if start < 0 else text[start + len(opening) : len(text) - len(closing)].strip(" \n.$")
            if not inside or "\n\n" in inside or inside.count("{") != inside.count("}") or text.count("$") % 2:
                return None
            says = "=" in inside or opening in ("\\[", "$$") or _LEADS_TO_VALUE.search(text[max(0, start - 20) : start])
            return _right_side(inside) if says else None
    return None


def _last_number(text: str) -> str | None:
    last = None
    for last in _NUMBER.finditer(text):  # noqa: B007
        pass
    return last[0] if last else None


#: in the order in which they are tried
RULES: dict[str, Rule] = {
    "answer block": _block,
    "boxed": boxed,
    "####": _hashes,
    "stated": _stated,
    "closing formula": _closing_formula,
    "last number": _last_number,
}


# -- parts of claims ----------------------------------------------------------------------------


def _value(tail: str) -> str | None:
    """What a statement says: the formula that ``tail`` begins with, or its text up to the end of the clause."""
    tail = tail[_FILLERS.match(tail).end() :]
    formula = _formula(tail)
    if formula is not None:
        return formula
    said = _SENTENCE_END.split(tail, maxsplit=1)[0]
    if said.endswith("?") or "? " in said:
        return None
    said = _CLAUSE_END.split(said, maxsplit=1)[0].strip(" .*`")
    if re.match(r"[-+$]?\d", said):
        said = _PURPOSE.split(said, maxsplit=1)[0]  # "6 ways to choose 2 people"
    prose = re.match(r"[A-Za-z]{3}", said) and "=" not in said and said.count(" ") > 2
    if not said or prose or _NO_VALUE.match(said) or not (_MATHS_SIGN.search(said) or said.count(" ") < 2):
        return None
    return _right_side(said)


def _formula(tail: str) -> str | None:
    r"""The formula that ``tail`` begins with, without its ``\[ \]``, ``\( \)``, ``$ $``. A ``$`` before a number with no
    second one in its line is a currency."""
    tail = tail.lstrip()
    for opening, closing in _FORMULAS:
        if tail.startswith(opening):
            end = tail.find(closing, len(opening))
            inside = tail[len(opening) : end].strip(" \n.") if end >= 0 else ""
            return _right_side(inside) if inside and (opening != "$" or "\n" not in inside) else None
    return None


def _right_side(text: str) -> str:
    """``7`` of ``3 + 4 = 7`` and of ``n = 3 + 4 = 7``; ``x = 7`` and listings stay as they are."""
    left, equals, right = text.rpartition("=")
    if not equals or "," in text or not right.strip() or left.endswith((r"\neq", "<", ">", "!", ":")):
        return text
    return right.strip() if "=" in left or not re.fullmatch(r"\s*\w{1,3}\s*", left) else text
