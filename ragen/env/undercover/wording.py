"""The words of who's the spy: several tellings of the same rules; the seed picks one.

No text here depends on a role, except :data:`HINTS`, shown only with ``reveal_role``.
"""

from __future__ import annotations

import random

from ragen.env.undercover.rules import CIVILIAN, UNDERCOVER

#: {rounds} is "one round", "two rounds", ...
RULES = (
    "Let's play Who's the Spy with four players. Each holds a secret word. Three hold the same word, one, the undercover, holds a similar one, and nobody is told who. For {rounds} each player in turn describes the own word in one sentence without saying it. Then all vote. If the undercover gets most votes the other three win, else the undercover wins.",
    "This is the game Undercover. There are four players: three civilians share one word and the undercover has a related word. You know your word but not your part. There are {rounds} of descriptions, one sentence each, in which you must not say your word; then everybody votes once. The civilians win if the vote falls on the undercover; otherwise the undercover wins.",
    "Four players have a word each. One word differs a little from the other three, and its owner, the undercover, does not know it either. In turn, over {rounds}, everyone says one sentence about the own word but never the word itself. A vote follows: whoever gets most votes is out. If that is the undercover, the civilians win; if not, the undercover wins.",
    "Play Who's the Spy: of four players three are civilians with the same word, one is undercover with a close one. Roles are hidden from all. You describe your word in one sentence without using it, {rounds} long, and then vote for the player you suspect. Most votes are out: the civilians win by removing the undercover, the undercover wins by staying.",
    "A party game for four. Every player gets a word; one player, the undercover, gets a slightly different one, but no one is told. Speak in turn for {rounds}: one sentence about your word, without naming it. At the end each votes for one other player. The civilians need to vote the undercover out. The undercover needs to survive.",
    "Find the undercover! Four players, four words, three of them equal. You cannot be sure whether yours is the odd one. {Rounds} of short descriptions come first, one sentence each and without the word, then a single vote. The three win together if the odd player out receives most votes; if anyone else does, the odd player wins.",
)

_NUMBERS = {1: "one round", 2: "two rounds", 3: "three rounds", 4: "four rounds"}

#: what a voter is told with ``reveal_role``
HINTS = {
    CIVILIAN: "Vote for the undercover: look for a description that is too vague, too special, or does not fit the others.",
    UNDERCOVER: "Turn the suspicion away from yourself: vote for a civilian whose description looks odd, and fit in with the others.",
}

EMPTY = "You said nothing. Describe your word in one sentence."
CUT = "Only the first {chars} characters of your description were heard."
SAID_WORD = "That says your own word. Describe it without the word."
NO_VOTE = "That names no player you can vote for. Choose one of: {options}."


def rules_text(rng: random.Random, rounds: int) -> str:
    number = _NUMBERS.get(rounds, f"{rounds} rounds")
    return rng.choice(RULES).format(rounds=number, Rounds=number.capitalize()) + "\n"


def seat_text(player: int, word: str) -> str:
    return f"You are Player {player}. Your word: {word}."


def describe_text(round_number: int, record: str) -> str:
    said = f"Said so far:\n{record}" if record else "Nobody has spoken yet."
    return f"Round {round_number}. {said}\nDescribe your word in one sentence."


def vote_text(record: str, options: tuple[str, ...], hint: str) -> str:
    ask = f"Vote for the player whose word differs: {', '.join(options)}."
    return f"All have spoken:\n{record}\n{hint + chr(10) if hint else ''}{ask}"
