"""A person plays a game in the terminal: ``python -m ragen.env.tictactoe.env --seed 3``.

The person takes the trained seat, scripted players the others. An entry point like a script: it is
the only file of ``ragen.env`` that knows of players.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from ragen.env import make_env
from ragen.env.base import Env
from ragen.players.base import Player, SeatView
from ragen.players.scripted import DEFAULT_OPPONENT, make_scripted

_QUIT = ("quit", "exit", "q")


def play_in_terminal(env_type: str, argv: list[str] | None = None) -> None:
    """The command line of one game: parse ``argv``, play until the game is over or the person quits."""
    parser = argparse.ArgumentParser(prog=f"python -m ragen.env.{env_type}.env", description=f"Play {env_type} against scripted players.")
    parser.add_argument("--seed", type=int, default=0, help="which game (default 0)")
    parser.add_argument("--opponent", default=DEFAULT_OPPONENT.get(env_type, "random"), help="scripted player of the other seats (default %(default)s)")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="option of the opponent, e.g. error_rate=0.3")
    parser.add_argument("--config", action="append", default=[], metavar="KEY=VALUE", help="key of the game's config, e.g. opening_moves=0")
    args = parser.parse_args(argv)
    try:
        env = make_env(env_type, key_value_pairs(args.config))
        opponent = make_scripted(env_type, args.opponent, **key_value_pairs(args.option)) if env.seats > 1 else None
        play(env, env_type, args.seed, opponent, input, print)
    except ValueError as error:
        parser.error(str(error))
    except (EOFError, KeyboardInterrupt):
        print("\nStopped.")


def play(
    env: Env,
    env_type: str,
    seed: int,
    opponent: Player | None,
    ask: Callable[[str], str],
    say: Callable[[str], None],
) -> None:
    """One game. ``ask(prompt)`` reads the person's answer (``quit`` stops), ``say(text)`` shows one."""
    env.reset(seed=seed)
    told = None
    while env.acting():
        together = env.acting()
        for seat in together:
            if seat not in env.acting():  # a round may end before every seat has moved
                continue
            if seat == env.trained_seats[0]:  # in a nest the person changes seats with the game
                told = _person_moves(env, seat, told, ask, say)
                if told is None:
                    return
            else:
                name = getattr(env, "current_env_type", env_type)
                player = opponent if name == env_type else make_scripted(name, DEFAULT_OPPONENT.get(name, "random"))
                answer = _opponent_moves(env, name, seat, seed, player)
                if len(together) == 1:  # a simultaneous answer stays secret until all are in
                    say(f"Seat {seat} answers {answer}")
    person = env.trained_seats[0]
    result = env.outcome()[person]
    if last := env.observe(person):
        say(last)
    verdict = "You succeeded." if result.success else "A draw." if result.metrics.get("draw") else "You did not succeed."
    say(f"The game is over. {verdict} (reward of the game {result.reward:g})")


def _person_moves(env: Env, seat: int, told: str | None, ask: Callable[[str], str], say: Callable[[str], None]) -> str | None:
    """Ask until a reply is accepted. Returns the rules last shown; ``None`` to stop."""
    rules = env.rules(seat)
    if rules and rules != told:  # once, and again when a nest moves on to another game
        say(rules.rstrip("\n"))
    say(env.observe(seat))
    while True:
        answer = ask("> ").strip()
        if answer.lower() in _QUIT:
            say("Stopped.")
            return None
        verdict = env.act(seat, answer)
        if verdict.feedback:
            say(verdict.feedback)
        if verdict.reward:
            say(f"(reward {verdict.reward:g})")
        if verdict.valid or seat not in env.acting() or env.rules(seat) != rules:  # or a nest moved on
            return rules


def _opponent_moves(env: Env, env_type: str, seat: int, seed: int, opponent: Player | None) -> str:
    """Have the scripted player move; returns its answer."""
    if opponent is None:
        raise ValueError(f"{env_type}: seat {seat} acts and there is no player for it")
    feedback = ""
    for attempt in range(5):
        view = SeatView(env_type, seat, seed, env.rules(seat), env.observe(seat), feedback, env.public(seat), env.legal(seat), attempt)
        answer = asyncio.run(opponent.reply(view))
        verdict = env.act(seat, answer)
        if verdict.valid:
            return answer
        feedback = verdict.feedback
    raise ValueError(f"{env_type}: the scripted player {opponent.name} made no legal move in 5 attempts: {feedback}")


def key_value_pairs(items: list[str]) -> Mapping[str, Any]:
    """``["opening_moves=0"]`` -> ``{"opening_moves": 0}``; values are YAML."""
    pairs = {}
    for item in items:
        key, sign, value = item.partition("=")
        if not sign:
            raise ValueError(f"{item!r} is not KEY=VALUE")
        pairs[key] = yaml.safe_load(value)
    return pairs
