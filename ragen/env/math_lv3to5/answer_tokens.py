r"""A short answer (LaTeX or plain) cut into tokens, with spellings of the same thing made one.

``\dfrac`` and ``\frac``, ``2{,}500`` and ``2,500``, ``percent`` and ``\%``, ``≤`` and ``\le`` give the same tokens.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Unreadable(Exception):
    """The text is no answer this judge can read."""


class Token(NamedTuple):
    """``kind``: number, word (letters), text (what ``\\text{}`` held), command, symbol, space, separator (and, or),
    percent, degree. ``value``: as written, commands without the backslash."""

    kind: str
    value: str


SPACE, PERCENT, DEGREE = Token("space", " "), Token("percent", "%"), Token("degree", "°")
SEPARATOR = Token("separator", "and")

_LONGEST, _MOST_DIGITS, _DEEPEST = 1500, 400, 40
_UNICODE = {
    "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ", "π": r"\pi ", "θ": r"\theta ", "√": r"\sqrt ",
    "°": r"\degree ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∞": r"\infty ", "∪": r"\cup ",
    "∈": r"\in ", "∅": r"\emptyset ", "²": "^{2}", "³": "^{3}", "\u00a0": " ", "\u2009": " ", "\u202f": " ",
}  # fmt: skip
_TOKEN = re.compile(
    r"(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<word>[A-Za-z]+)|\\(?P<command>[A-Za-z]+)|(?P<nothing>\\!\s*)|(?P<spacing>\s+|\\[,;: ]|~(?!=))|\\(?P<escaped>.)"
    r"|(?P<operator>\*\*|<=|>=|!=|~=|==)|(?P<symbol>.)",
    re.DOTALL,
)
_SQUARED_UNIT = re.compile(r"(?<=\d)(\s?)([kcdm]?m|ft|in)([²³])")
_RECURRING = re.compile(r"(?<!\d)(\d{1,50})\.(\d{0,50})\\overline\{(\d{1,50})\}")
_RENAMED = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge", "neq": "ne",
    "lt": "<", "gt": ">", "sim": "approx", "lvert": "|", "rvert": "|", "vert": "|", "lbrace": "{{", "rbrace": "}}",
    "rangle": ")", "langle": "(", "lbrack": "[", "rbrack": "]", "varnothing": "emptyset", "colon": ":", "cdotp": "cdot",
    "dbinom": "binom", "tbinom": "binom", "land": "and", "lor": "or",
}  # fmt: skip
_WORDS = {"sqrt": "sqrt", "pi": "pi", "infinity": "infty", "inf": "infty", "sin": "sin", "cos": "cos", "tan": "tan", "log": "log", "ln": "ln"}
_WORDS |= {name: name for name in ("alpha", "beta", "gamma", "delta", "theta", "lambda", "mu", "rho", "sigma", "tau", "phi", "omega")}
_OPERATORS = {"**": "^", "<=": "le", ">=": "ge", "!=": "ne", "~=": "approx", "==": "="}
_DROPPED = {
    "left", "right", "displaystyle", "textstyle", "big", "Big", "bigg", "Bigg", "bigl", "bigr", "Bigl", "Bigr", "limits", "rm", "mathstrut",
}  # fmt: skip
_TEXTS = {"text", "textbf", "textit", "textrm", "textnormal", "mbox", "mathrm", "mathit", "operatorname", "mathbf", "boldsymbol", "bold", "hbox"}
_PERCENT = {"percent", "percentage", "pct"}
_ENVIRONMENTS = {"pmatrix", "bmatrix", "matrix"}


def tokens_of(text: str) -> list[Token]:
    """Raises :class:`Unreadable` for a text too long, too deep, unbalanced or with an environment not known."""
    if len(text) > _LONGEST:
        raise Unreadable("too long")
    text = _SQUARED_UNIT.sub(lambda m: f"{m[1]}\\text{{{m[2]}^{'2' if m[3] == '²' else '3'}}}", text)
    text = "".join(_UNICODE.get(c, c) for c in text)
    if "\\begin" not in text:
        text = re.sub(r"\\\\(?=[A-Za-z])", r"\\", text)
    text = _RECURRING.sub(_recurring, text)
    return _strip(_join_digits(_marked(_raw(text))))


def _recurring(match: re.Match) -> str:
    """``0.1\\overline{6}`` as the fraction 15/90."""
    whole, fixed, period = match.groups()
    top = int(whole + fixed + period) - int(whole + fixed)
    return f"\\frac{{{top}}}{{{'9' * len(period)}{'0' * len(fixed)}}}"


def _raw(text: str) -> list[Token]:
    found: list[Token] = []
    at, depth = 0, 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        kind, value = match.lastgroup, match[match.lastgroup]
        at = match.end()
        if kind == "number" and len(value) > _MOST_DIGITS:
            raise Unreadable("number too long")
        if kind == "nothing":
            continue
        if kind == "spacing":
            found.append(SPACE)
        elif kind == "escaped":
            if value in "()[]":
                found.append(SPACE)  # delimiters of a formula
            elif value in "{}":
                found.append(Token("symbol", value * 2))  # of a set
            elif value == "%":
                found.append(PERCENT)
            elif value == "\\":
                found.append(Token("symbol", "\\\\"))
            elif value != "$":
                raise Unreadable(f"\\{value}")
        elif kind == "operator":
            found.append(_named(_OPERATORS[value]))
        elif kind == "command":
            at = _command(value, text, at, found)
        elif kind == "word":
            found.append(_word(value))
        elif value == "%":
            found.append(PERCENT)
        elif value in "$€£¥" or value == '"':
            found.append(SPACE)
        else:
            depth += {"{": 1, "}": -1}.get(value, 0)
            if depth < 0 or depth > _DEEPEST:
                raise Unreadable("braces")
            found.append(Token(kind, value))
    if depth:
        raise Unreadable("braces")
    return found


def _named(name: str) -> Token:
    return Token("command" if name.isalpha() else "symbol", name)


def _word(value: str) -> Token:
    if value in ("and", "or"):
        return SEPARATOR
    if value in _PERCENT:
        return PERCENT
    return Token("command", _WORDS[value]) if value in _WORDS else Token("word", value)


def _command(name: str, text: str, at: int, found: list[Token]) -> int:
    name = _RENAMED.get(name, name)
    if name.startswith(("quad", "qquad")):
        rest = name[5:] if name.startswith("qquad") else name[4:]  # models write \\quadx for \\quad x
        found += [SPACE, Token("word", rest)] if rest else [SPACE]
    elif name in ("and", "or"):
        found.append(SEPARATOR)
    elif name == "degree" or name == "circ":
        found.append(DEGREE)
    elif name in _TEXTS:
        match = re.compile(r"\s*\{([^{}]*)\}").match(text, at)
        if not match:
            raise Unreadable(f"\\{name}")
        found += _text(name, match[1])
        return match.end()
    elif name in ("begin", "end"):
        match = re.compile(r"\{([a-z]+)\}").match(text, at)
        if not match or match[1] not in _ENVIRONMENTS:
            raise Unreadable(f"\\{name}")
        found.append(Token("symbol", "<<" if name == "begin" else ">>"))
        return match.end()
    elif name not in _DROPPED:
        found.append(_named(name))
    return at


def _text(command: str, content: str) -> list[Token]:
    plain = content.strip()
    if command.startswith(("math", "bold")) and len(plain) == 1:  # upright e is e; a bold letter is a vector
        if command in ("mathrm", "mathit"):
            return [Token("word", plain)]
        return [Token("command", "vec"), Token("symbol", "{"), Token("word", plain), Token("symbol", "}")]
    if plain.strip(",; ") in ("and", "or"):
        return [SEPARATOR]
    if plain in _PERCENT or plain == "%":
        return [PERCENT]
    if re.fullmatch(r"[\d\s.,:+*/()-]*", plain):
        return [SPACE, *_raw(plain), SPACE]
    if "," in plain or re.search(r"\b(?:and|or)\b", plain):
        parts = re.split(r"(,|\b(?:and|or)\b)", plain)
        return [Token("symbol", ",") if p == "," else SEPARATOR if p in ("and", "or") else Token("text", p.strip()) for p in parts if p.strip()]
    return [Token("text", plain)] if plain else [SPACE]


def _marked(tokens: list[Token]) -> list[Token]:
    """``^\\circ`` and ``^{\\circ}`` become one degree token."""
    found: list[Token] = []
    for token in tokens:
        found.append(token)
        values = [t.value for t in found[-4:]]
        if values == ["^", "{", "°", "}"]:
            found[-4:] = [DEGREE]
        elif values[-2:] == ["^", "°"]:
            found[-2:] = [DEGREE]
    return found


def _join_digits(tokens: list[Token]) -> list[Token]:
    """Thousands are joined: ``1,000``, ``1{,}000``, ``1 000`` (not ``10,00`` and not within brackets, where 1,000 is a pair)."""
    found: list[Token] = []
    at, depth = 0, 0
    while at < len(tokens):
        token = tokens[at]
        depth += {"(": 1, "[": 1, "{{": 1, ")": -1, "]": -1, "}}": -1}.get(token.value, 0)
        found.append(token)
        at += 1
        if token.kind != "number" or len(token.value) > 3 or not token.value.isdigit():
            continue
        joined = token.value
        while (step := _thousands(tokens, at, depth)) is not None:
            at = step
            joined += tokens[at - 1].value
        if joined != token.value:
            found[-1] = Token("number", joined)
    return found


def _thousands(tokens: list[Token], at: int, depth: int) -> int | None:
    """Where the group of three digits that continues a number at ``at`` ends; ``None`` if there is none."""
    if tokens[at : at + 2] == [SPACE, Token("symbol", "{")]:
        at += 1  # 14 {, }916
    values = [t.value for t in tokens[at : at + 5]]
    if values[:2] == ["{", ","] and "}" in values[2:4]:
        skip = values.index("}") + 1
        braced = True
    elif values[:1] == [","] and (depth == 0) or values[:1] == [" "]:
        skip, braced = 1, False
    else:
        return None
    at += skip
    if braced and at < len(tokens) and tokens[at] == SPACE:
        at += 1
    if at < len(tokens) and tokens[at].kind == "number" and re.fullmatch(r"\d{3}(?:\.\d+)?", tokens[at].value):
        return at + 1
    return None


def _strip(tokens: list[Token]) -> list[Token]:
    """Without space at the ends and doubled space."""
    found: list[Token] = []
    for token in tokens:
        if token != SPACE or (found and found[-1] != SPACE):
            found.append(token)
    while found and (found[-1] == SPACE or found[-1].value in (".", ",", ";") and found[-1].kind == "symbol"):
        found.pop()
    return found
