"""The words of the mathematics task; the seed picks among them."""

from __future__ import annotations

import random

from ragen.env.math_lv3to5.rules import Exercise

#: {left} = {right} is an equation, {value} an arithmetic expression
_TELLINGS = {
    "value": (
        "What is {value}?",
        "Compute {value}.",
        "Find the value of {value}.",
        "How much is {value}?",
    ),
    "equation": (
        "Solve {equation} for x.",
        "Find x if {equation}.",
        "What is x when {equation}?",
        "The number x satisfies {equation}. What is x?",
    ),
    "system": (
        "Find x if {equation} and {second}.",
        "Two numbers x and y satisfy {equation} and {second}. What is x?",
        "Solve the system {equation}, {second} and give x.",
        "What is x when {equation} and also {second}?",
    ),
}

INSTRUCTIONS = (
    "Give the final answer only.",
    "Answer with the result, without units or explanation.",
    "State the final result as your answer.",
    "Your answer must be the final result alone.",
)


def with_instruction(rng: random.Random, question: str) -> str:
    return f"{question}\n{rng.choice(INSTRUCTIONS)}"


def tell(rng: random.Random, exercise: Exercise) -> str:
    """The exercise in words."""
    n = exercise.numbers
    if exercise.kind == "sum":
        return rng.choice(_TELLINGS["value"]).format(value=f"{n[0]} {_signed(n[1])}")
    if exercise.kind == "product":
        return rng.choice(_TELLINGS["value"]).format(value=f"{n[0]} * {n[1]} {_signed(n[2])}")
    if exercise.kind == "linear":
        return rng.choice(_TELLINGS["equation"]).format(equation=f"{_term(n[0], 'x')} {_signed(n[1])} = {n[2]}")
    if exercise.kind == "both_sides":
        left, right = f"{_term(n[0], 'x')} {_signed(n[1])}", f"{_term(n[2], 'x')} {_signed(n[3])}"
        text = rng.choice(_TELLINGS["equation"]).format(equation=f"{left} = {right}")
        return f"{text} Write a fraction as p/q."
    first, second = (f"{_term(a, 'x')} {_signed_term(b, 'y')} = {r}" for a, b, r in (n[:3], n[3:]))
    return rng.choice(_TELLINGS["system"]).format(equation=first, second=second)


def _signed(value: int) -> str:
    return f"+ {value}" if value >= 0 else f"- {-value}"


def _term(factor: int, name: str) -> str:
    return name if factor == 1 else f"{factor}{name}"


def _signed_term(factor: int, name: str) -> str:
    return f"{'+' if factor > 0 else '-'} {_term(abs(factor), name)}"
