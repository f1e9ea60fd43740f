"""Countdown without words: drawing a solvable puzzle, and reading an expression safely."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

_TOKEN = re.compile(r"\s*(?:(\d{1,9})|([-+*/()×÷]))")
_SAME = {"×": "*", "÷": "/"}
MAX_CHARS = 200


def draw_puzzle(rng: random.Random, count: int, largest: int, max_target: int) -> tuple[tuple[int, ...], int, str]:
    """Numbers, a target and an expression that reaches it with every number used once.

    Two values are merged by a random operation until one is left: what is left is the target, so the
    puzzle is solvable by construction.
    """
    while True:
        numbers = tuple(rng.randint(1, largest) for _ in range(count))
        pool = [(Fraction(n), str(n)) for n in numbers]
        while len(pool) > 1:
            (a, left), (b, right) = (pool.pop(rng.randrange(len(pool))) for _ in range(2))
            operation = rng.choice([op for op in "+-*/" if op != "/" or (b != 0 and (a / b).denominator == 1)])
            pool.append((_apply(operation, a, b), f"({left} {operation} {right})"))
        value, expression = pool[0]
        if value.denominator == 1 and 1 <= value <= max_target and value not in numbers:
            return numbers, int(value), expression[1:-1]


def evaluate(text: str) -> tuple[Fraction, list[int]]:
    """Value of an expression in ``+ - * /`` and parentheses, and the numbers in it.

    Raises ``ValueError`` for anything else (a division by zero too), saying what.
    """
    if len(text) > MAX_CHARS:
        raise ValueError(f"the expression is longer than {MAX_CHARS} characters")
    parser = _Parser(_tokens(text))
    value = parser.sum()
    if parser.next is not None:
        raise ValueError(f"unexpected {parser.next!r}")
    return value, parser.numbers


def uses(numbers: Sequence[int], available: Sequence[int], use_all: bool) -> bool:
    """Whether ``numbers`` are among ``available``, each as often as it is there (or exactly, if
    ``use_all``)."""
    used, there = Counter(numbers), Counter(available)
    return used == there if use_all else used <= there


def _tokens(text: str) -> list[str]:
    tokens, at, text = [], 0, text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if not match:
            raise ValueError(f"unexpected {text[at:].strip()[:1]!r}")
        tokens.append(match[1] or _SAME.get(match[2], match[2]))
        at = match.end()
    return tokens


def _apply(operation: str, a: Fraction, b: Fraction) -> Fraction:
    if operation == "/":
        if b == 0:
            raise ValueError("division by zero")
        return a / b
    return a + b if operation == "+" else a - b if operation == "-" else a * b


class _Parser:
    """Recursive descent: sum := product (+- product)*, product := atom (*/ atom)*."""

    def __init__(self, tokens: list[str]):
        self._rest, self.numbers = tokens[::-1], []

    @property
    def next(self) -> str | None:
        return self._rest[-1] if self._rest else None

    def sum(self) -> Fraction:
        value = self.product()
        while self.next in ("+", "-"):
            value = _apply(self._rest.pop(), value, self.product())
        return value

    def product(self) -> Fraction:
        value = self.atom()
        while self.next in ("*", "/"):
            value = _apply(self._rest.pop(), value, self.atom())
        return value

    def atom(self) -> Fraction:
        token = self._rest.pop() if self._rest else None
        if token == "(":
            value = self.sum()
            if self.next != ")":
                raise ValueError("a parenthesis is not closed")
            self._rest.pop()
            return value
        if token is None or not token.isdigit():
            raise ValueError(f"a number was expected, not {token!r}" if token else "the expression is incomplete")
        self.numbers.append(int(token))
        return Fraction(int(token))
