"""Tokens of a formula as the LaTeX that latex2sympy reads as meant.

latex2sympy drops primes and the base of a number, adds numbers that follow each other, and reads ``5cm`` as a product.
Nothing of that kind gets there: a formula with anything but what is known here raises :class:`Unreadable`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from ragen.env.math_lv3to5.answer_tokens import SPACE, Token, Unreadable

GREEK = set(
    "alpha beta delta epsilon varepsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau phi varphi chi psi omega "
    "Delta Theta Lambda Xi Sigma Phi Psi Omega".split()
)
FUNCTIONS = set("sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp".split())
_PLAIN = GREEK | FUNCTIONS | {"pi", "infty", "cdot", "times", "div", "sum", "prod", "lfloor", "rfloor", "lceil", "rceil"}
_ACCENTS = {"overline", "vec", "hat", "bar"}
_SYMBOLS = set("+-*/!|")
_DEEPEST = 40


def emit(tokens: Sequence[Token]) -> str:
    """LaTeX of a formula without structure of its own (no comma, no relation). Raises :class:`Unreadable`."""
    return _Emitter(_with_mixed_number(list(tokens))).all()


def split_sign_choice(tokens: Sequence[Token]) -> tuple[list[Token], list[Token]] | None:
    r"""The two readings of ``\pm`` (``\mp`` the other way round), ``None`` without one."""
    if not any(t.kind == "command" and t.value in ("pm", "mp") for t in tokens):
        return None
    signs = {"pm": "+-", "mp": "-+"}
    return tuple(
        [Token("symbol", signs[t.value][way]) if t.kind == "command" and t.value in signs else t for t in tokens] for way in (0, 1)
    )


def _with_mixed_number(tokens: list[Token]) -> list[Token]:
    """``1 1/2`` as ``1 \\frac{1}{2}``."""
    kinds = "".join({"number": "n", "space": " "}.get(t.kind, t.value) for t in tokens)
    if re.fullmatch(r"-?n n/n", kinds):
        opening, closing = Token("symbol", "{"), Token("symbol", "}")
        return [*tokens[:-4], Token("command", "frac"), opening, tokens[-3], closing, opening, tokens[-1], closing]
    return tokens


class _Emitter:
    """Reads ``tokens`` left to right; ``at`` is the next one."""

    def __init__(self, tokens: list[Token]):
        self.tokens, self.at, self.depth = tokens, 0, 0

    def all(self) -> str:
        text = self._run(until=None)
        if self.at < len(self.tokens):
            raise Unreadable("a brace too many")
        return text

    def _run(self, until: str | None) -> str:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise Unreadable("too deep")
        out: list[str] = []
        ends_in_value = ends_in_number = False  # what came last, spaces apart
        while self.at < len(self.tokens) and self._peek().value != until:
            token = self._next()
            if token == SPACE:
                continue
            number = token.kind == "number"
            if number and ends_in_value:
                raise Unreadable("a number after a value")  # 2 3, x^{2}3, \frac{1}{2}3
            if token == Token("symbol", "{") and ends_in_value and self._peek().kind == "number":
                raise Unreadable("a number after a value")  # 2{3} is set as 23
            fraction = token == Token("command", "frac")
            bracket = token.kind == "symbol" and token.value in "([{"
            if (bracket or fraction) and out and _is_factor(out[-1]) or bracket and ends_in_number:
                out.append(r"\cdot")  # 2(3) and (2)\frac{1}{3} would be sums, \pi(2) a function's value
            if fraction:
                out.append(self._fraction(out, ends_in_number))
            else:
                out.append(self._one(token))
            ends_in_number = number
            applied = token.kind == "command" and token.value in FUNCTIONS | {"sum", "prod"}
            closed = token.kind in ("number", "word") or token.value in GREEK | {"pi"} or out[-1].endswith(("}", ")", "!"))
            ends_in_value = closed and not applied
        self.depth -= 1
        return " ".join(out)

    def _one(self, token: Token) -> str:
        kind, value = token
        if kind == "number":
            return _number(value) if "." in value else str(int(value))
        if kind == "word":
            if len(value) > 2:
                raise Unreadable(f"a word: {value}")
            return self._letters(value)
        if kind == "symbol":
            if value == "{":
                return "(" + self._group() + ")"
            if value == "^":
                return "^{" + self._argument(whole_number=True) + "}"
            if value == "_":
                return "_{" + self._subscript() + "}"
            if value == "<<":
                return self._matrix()
            if value in "([":
                closing = {"(": ")", "[": "]"}[value]
                inner = self._run(until=closing)
                self._expect(closing)
                return f"({inner})"
            if value in _SYMBOLS:
                return {"*": r"\cdot"}.get(value, value)
        if kind == "command":
            if value in ("sum", "prod"):
                return "\\" + value + self._limits()
            if value in FUNCTIONS:
                return "\\" + value + self._function_marks()
            if value in _PLAIN:
                return "\\" + value
            if value in _ACCENTS:
                return f"\\{value}{{{self._argument()}}}"
            if value == "sqrt":
                return self._root()
            if value == "binom":
                return f"\\binom{{{self._argument()}}}{{{self._argument()}}}"
            if value in ("gamma", "Gamma"):  # Euler's constant and a function to latex2sympy
                return "y_{" + value + "}"
        if kind == "degree" and self.depth > 1:  # in the brackets of a function; elsewhere it is a unit
            return r"\cdot \frac{\pi}{180}"
        raise Unreadable(f"{kind} {value}")

    def _letters(self, value: str) -> str:
        last = f"{value[-1]}_{{{self._subscript()}}}" if self._follows("_") else value[-1]
        return " ".join([*value[:-1], last])

    def _function_marks(self) -> str:
        marks = ""
        while self.at < len(self.tokens) and self._peek().value in ("_", "^"):
            mark = self._next().value
            marks += mark + "{" + self._argument(whole_number=True) + "}"
        return marks

    def _limits(self) -> str:
        marks = ""
        while self.at < len(self.tokens) and self._peek().value in ("_", "^"):
            mark = self._next().value
            if self._follows("{"):
                inner, equals = self._group_tokens(), Token("symbol", "=")
                cut = inner.index(equals) if equals in inner else -1
                sides = [inner[:cut], inner[cut + 1 :]] if cut >= 0 else [inner]
                marks += mark + "{" + "=".join(map(emit, sides)) + "}"
            else:
                marks += mark + "{" + self._argument() + "}"
        return marks

    def _fraction(self, out: list[str], after_number: bool) -> str:
        top, bottom = self._argument(two_digits=True), self._argument()
        text = f"\\frac{{{top}}}{{{bottom}}}"
        if after_number:
            if re.fullmatch(r"\d+", top) and re.fullmatch(r"\d+", bottom) and re.fullmatch(r"\d+", out[-1]):
                if int(top) >= int(bottom):
                    raise Unreadable("a number after a value")
                return self._mixed(out, text)
            return r"\cdot " + text
        return text

    def _mixed(self, out: list[str], fraction: str) -> str:
        if any(part not in ("-", "+") for part in out[:-1]):
            raise Unreadable("a mixed number in a formula")
        return f"({out.pop()}+{fraction})"

    def _root(self) -> str:
        index = ""
        if self._follows("["):
            index = "[" + self._run(until="]") + "]"
            self._expect("]")
        if self.at < len(self.tokens) and self._peek().value == "(":  # sqrt(2)
            self.at += 1
            inner = self._run(until=")")
            self._expect(")")
            return f"\\sqrt{index}{{{inner}}}"
        return f"\\sqrt{index}{{{self._argument()}}}"

    def _matrix(self) -> str:
        rows: list[list[str]] = [[]]
        cell: list[Token] = []
        while True:
            token = self._next()
            if token.value in ("<<", ">>", "&", "\\\\"):
                if token.value == "<<":
                    raise Unreadable("a matrix in a matrix")
                if token.value == ">>" and not any(t != SPACE for t in cell) and not rows[-1] and len(rows) > 1:
                    rows.pop()
                else:
                    rows[-1].append(emit(cell))
                cell = []
                if token.value == "\\\\":
                    rows.append([])
                if token.value == ">>":
                    break
            else:
                cell.append(token)
        return r"\begin{pmatrix}" + r" \\ ".join(" & ".join(row) for row in rows) + r"\end{pmatrix}"

    def _argument(self, whole_number: bool = False, two_digits: bool = False) -> str:
        r"""What follows ``\frac``, ``\sqrt``, ``^``: a group, or one digit, letter or command as TeX takes it
        (``whole_number``: all digits of a number; ``two_digits``: the 3 of 34, and the 4 is left for the next)."""
        while self._peek() == SPACE:
            self.at += 1
        token = self._next()
        if token.value == "{" and token.kind == "symbol":
            return self._group()
        if token.value == "(" and whole_number:
            inner = self._run(until=")")
            self._expect(")")
            return inner
        if token.value == "-" and whole_number:
            return "-" + self._argument(whole_number)
        if token.kind == "number" and not whole_number and len(token.value) > 1:
            if not two_digits or len(token.value) > 2 or not token.value.isdigit():
                raise Unreadable(f"which digits belong to the command before {token.value}")
            self.tokens[self.at - 1 : self.at] = [Token("number", token.value[0]), Token("number", token.value[1])]
            return token.value[0]
        if token.kind == "word" and len(token.value) > 1:
            self.tokens[self.at - 1 : self.at] = [Token("word", token.value[0]), Token("word", token.value[1:])]
            return token.value[0]
        if token.kind in ("number", "word") or token.value in GREEK | {"pi", "infty", "sqrt", "frac"} and token.kind == "command":
            return self._fraction([], False) if token.value == "frac" else self._one(token)
        raise Unreadable(f"no argument: {token.value}")

    def _subscript(self) -> str:
        if self._follows("{"):
            inner = []
            while (token := self._next()).value != "}":
                inner.append(token)
        else:
            inner = [self._next()]
        if any(t.kind not in ("number", "word", "text", "space") and t.value not in "+-" for t in inner):
            raise Unreadable("a subscript")
        return re.sub(r"[^A-Za-z0-9+-]", "", "".join(t.value for t in inner))

    def _group_tokens(self) -> list[Token]:
        start, depth = self.at, 1
        while depth:
            depth += {"{": 1, "}": -1}.get(self._next().value, 0)
        return self.tokens[start : self.at - 1]

    def _group(self) -> str:
        inner = self._run(until="}")
        self._expect("}")
        if not inner:
            raise Unreadable("an empty group")
        return inner

    def _follows(self, value: str) -> bool:
        if self.at < len(self.tokens) and self.tokens[self.at].value == value:
            self.at += 1
            return True
        return False

    def _expect(self, value: str) -> None:
        if not self._follows(value):
            raise Unreadable(f"no {value}")

    def _peek(self) -> Token:
        if self.at >= len(self.tokens):
            raise Unreadable("ends too early")
        return self.tokens[self.at]

    def _next(self) -> Token:
        token = self._peek()
        self.at += 1
        return token


def _is_factor(text: str) -> bool:
    """Whether a bracket behind ``text`` multiplies it: not behind a letter or an inverse (f(2), f^{-1}(2))."""
    return text == r"\pi" or text.endswith(")") or text.startswith((r"\frac", r"\sqrt", r"\binom", "^{")) and text != "^{-1}"


def _number(decimal: str) -> str:
    """A decimal as the fraction that it is: 0.75 is exactly 3/4."""
    value = Fraction(decimal if not decimal.startswith(".") else "0" + decimal)
    return str(value) if value.denominator == 1 else f"(\\frac{{{value.numerator}}}{{{value.denominator}}})"
