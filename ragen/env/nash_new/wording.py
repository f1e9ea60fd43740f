"""The words of the matrix games: many tellings of one game; the seed picks one.

A presentation turns a :class:`Telling` into text that holds every payoff of both players, the
action names of both and, where it draws a table, which side the reader is.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ragen.env.nash_new.rules import Matrix


@dataclass(frozen=True)
class Telling:
    """One game from one seat. ``mine``/``theirs``: payoffs ``[my action][the other's action]``;
    ``me``/``other``: action names; ``role``: row or column."""

    role: str
    mine: Matrix
    theirs: Matrix
    me: tuple[str, ...]
    other: tuple[str, ...]

    def outcomes(self) -> Iterator[tuple[str, str, int, int]]:
        """(my action, the other's action, my payoff, the other's payoff) of every cell."""
        for i, a in enumerate(self.me):
            for j, b in enumerate(self.other):
                yield a, b, self.mine[i][j], self.theirs[i][j]

    def sides(self) -> tuple[tuple[str, ...], tuple[str, ...], str]:
        """Row names, column names and a sentence that says who chooses which."""
        if self.role == "row":
            return self.me, self.other, "You choose the row, the other player the column."
        return self.other, self.me, "You choose the column, the other player the row."

    def oriented(self, payoffs: Matrix) -> Matrix:
        """``payoffs`` laid out [row][column] of the table that :meth:`sides` describes."""
        return payoffs if self.role == "row" else tuple(zip(*payoffs, strict=True))


def _grid(corner: str, rows: tuple[str, ...], columns: tuple[str, ...], cells: list[list[str]], bar: str) -> str:
    lines = [bar.join((corner, *columns))]
    lines += [bar.join((name, *line)) for name, line in zip(rows, cells, strict=True)]
    return "\n".join(lines)


def _pairs(t: Telling) -> list[list[str]]:
    return [[f"({m}, {o})" for m, o in zip(ms, os, strict=True)] for ms, os in zip(t.oriented(t.mine), t.oriented(t.theirs), strict=True)]


def two_tables(t: Telling) -> str:
    rows, columns, who = t.sides()
    yours, others = ([[str(v) for v in line] for line in t.oriented(p)] for p in (t.mine, t.theirs))
    return (
        f"Two players choose at the same time. {who}\nYour payoffs:\n{_grid('', rows, columns, yours, ' | ')}\n"
        f"The other player's payoffs:\n{_grid('', rows, columns, others, ' | ')}"
    )


def pair_table(t: Telling) -> str:
    rows, columns, who = t.sides()
    table = _grid("", rows, columns, _pairs(t), " | ")
    return f"Two players choose at the same time. {who} Each cell is (your payoff, the other's payoff).\n{table}"


def markdown_table(t: Telling) -> str:
    rows, columns, who = t.sides()
    head, *body = _grid("", rows, columns, _pairs(t), " | ").split("\n")
    rule = "|".join(["---"] * (len(columns) + 1))
    table = "\n".join(f"| {line} |" for line in (head, *body))
    first, rest = table.split("\n", 1)
    return f"A game of simultaneous moves, cells written (you, other). {who}\n{first}\n|{rule}|\n{rest}"


def outcome_list(t: Telling) -> str:
    lines = [f"- you {a}, other {b}: you get {m}, other gets {o}" for a, b, m, o in t.outcomes()]
    return "You and another player each pick an action, neither seeing the other's.\n" + "\n".join(lines)


def by_own_action(t: Telling) -> str:
    lines = [
        f"Your action {a}: "
        + "; ".join(f"against {b} you earn {m} and the other {o}" for a2, b, m, o in t.outcomes() if a2 == a)
        + "."
        for a in t.me
    ]
    return f"You face one other player, who may play {', '.join(t.other)}. Both decide at once.\n" + "\n".join(lines)


def by_other_action(t: Telling) -> str:
    lines = [
        f"If the other plays {b}: "
        + "; ".join(f"your {a} pays you {m} and the other {o}" for a, b2, m, o in t.outcomes() if b2 == b)
        + "."
        for b in t.other
    ]
    return "Two players move together. This is what can happen.\n" + "\n".join(lines)


def arrays(t: Telling) -> str:
    rows, columns, who = t.sides()
    own, others = (json.dumps([list(line) for line in t.oriented(p)]) for p in (t.mine, t.theirs))
    return (
        f"A two-player game in arrays, rows {', '.join(rows)} and columns {', '.join(columns)}. {who}\n"
        f"yours = {own}\nothers = {others}"
    )


def nested_json(t: Telling) -> str:
    tree = {a: {b: [m, o] for a2, b, m, o in t.outcomes() if a2 == a} for a in t.me}
    return (
        "The game below maps your action to the other player's action to [your payoff, their payoff]. "
        f"Both act at the same time.\n{json.dumps(tree)}"
    )


def csv_rows(t: Telling) -> str:
    lines = [f"{a},{b},{m},{o}" for a, b, m, o in t.outcomes()]
    return "All outcomes of a game of two simultaneous choices:\nyou,other,your_payoff,other_payoff\n" + "\n".join(lines)


def mapping(t: Telling) -> str:
    lines = [f"({a}, {b}) -> ({m}, {o})" for a, b, m, o in t.outcomes()]
    return "Moves are made at the same time. (your move, other's move) -> (your payoff, other's payoff):\n" + "\n".join(lines)


def question_answer(t: Telling) -> str:
    lines = [f"Q: I play {a} and they play {b}. What then? A: You get {m}, they get {o}." for a, b, m, o in t.outcomes()]
    return "You ask about a game for two, played without knowing the other's choice.\n" + "\n".join(lines)


def dialogue(t: Telling) -> str:
    lines = [f'Referee: "Should you say {a} while they say {b}, you score {m} and they score {o}."' for a, b, m, o in t.outcomes()]
    return "The referee explains. You and an opponent say your action at the same moment.\n" + "\n".join(lines)


def story_firms(t: Telling) -> str:
    lines = [f"With your plan {a} and its plan {b}, your profit is {m} and its profit {o}." for a, b, m, o in t.outcomes()]
    return "You run a firm and have one rival. Both must commit to a plan before seeing the other's.\n" + "\n".join(lines)


def story_fishers(t: Telling) -> str:
    lines = [f"You at spot {a}, your neighbour at spot {b}: a net gain of {m} for you, {o} for the neighbour." for a, b, m, o in t.outcomes()]
    return "Two boats leave harbour before dawn and neither knows where the other fishes.\n" + "\n".join(lines)


def story_radio(t: Telling) -> str:
    lines = [f"Format {a} for you, {b} for them: {m} points for you, {o} for them." for a, b, m, o in t.outcomes()]
    return "Two radio stations announce a new format on the same day; yours is one of them.\n" + "\n".join(lines)


PRESENTATIONS: dict[str, Callable[[Telling], str]] = {
    f.__name__: f
    for f in (
        two_tables, pair_table, markdown_table, outcome_list, by_own_action, by_other_action, arrays, nested_json,
        csv_rows, mapping, question_answer, dialogue, story_firms, story_fishers, story_radio,
    )
}

QUESTIONS = (
    "Which action do you play in a Nash equilibrium?",
    "Both sides reason perfectly and settle on a Nash equilibrium. What is your action?",
    "Name your most likely action in a Nash equilibrium.",
    "Choose the action that a Nash equilibrium asks of you.",
)


def question(rng: random.Random, t: Telling) -> str:
    """What is asked, and the answers that are possible."""
    return f"{rng.choice(QUESTIONS)} Answer with one of: {', '.join(t.me)}."


def action_names(rng: random.Random, mine: int, others: int, labels: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of my and the other's actions: numbers from 1 or letters from A, drawn for each side."""
    kinds = [labels if labels != "random" else rng.choice(("numbers", "letters")) for _ in range(2)]
    return tuple(  # type: ignore[return-value]
        tuple(str(i + 1) if kind == "numbers" else chr(ord("A") + i) for i in range(n))
        for kind, n in zip(kinds, (mine, others), strict=True)
    )
