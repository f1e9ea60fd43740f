"""The contract of :mod:`ragen.env.base`, checked on any game by playing it.

``check_env_contract(lambda: make_env("my_game"), seeds=range(10))`` raises :class:`ContractError` with
what was broken, where and in which seed. A new game calls it in its tests.

A game with secrets may say so with a method ``hidden(seat) -> iterable of str``: texts that this seat must
never be shown (the other side's word, say). They are then searched for in everything the seat sees.
"""

from __future__ import annotations

import copy
import math
import pickle
import random
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from ragen.env.base import Env, Outcome, Verdict, derived_rng

#: replies that no game should choke on, tried in every position that is checked for refusals
ODD_REPLIES = ("", " ", "\n", "42", "(9,9)", "-1", "I resign.", "<answer>", "{}\\", "é漢字🎲\x00", "no " * 600, "9" * 5000, f"({'9' * 5000}, {'9' * 5000})")

_ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")
_ODD_CHECKS = 3  # positions a game in which odd replies are tried


class ContractError(AssertionError):
    """An env broke the contract."""


@dataclass(frozen=True)
class ContractReport:
    """What was seen while checking: games played, those that ended, turns, refused replies."""

    games: int
    ended: int
    turns: int
    refused: int


def check_env_contract(
    make: Callable[[], Env],
    seeds: Iterable[int] = range(5),
    *,
    replies: Callable[[Env, int, random.Random], str] | None = None,
    max_turns: int = 60,
    must_end: bool = False,
    must_vary: bool = True,
) -> ContractReport:
    """Play ``make()`` once a seed and check every clause of the :class:`~ragen.env.base.Env` contract.

    ``replies(env, seat, rng)`` gives a reply to play; by default one of ``env.legal(seat)``, or a number
    where there is no list. ``max_turns``: where to stop a game. ``must_end``: a game that is not over
    by then is an error. ``must_vary``: different seeds must not all start alike.
    """
    replies = replies or _default_reply
    seeds = list(seeds)
    if not seeds:
        raise ValueError("check_env_contract: seeds is empty")
    totals, starts, reused = [0, 0, 0, 0], set(), make()
    for seed in seeds:
        with _untouched_global_random_state(seed):
            played = _Play(make, seed, replies, max_turns)
            record = played.run()
            _same(record, _Play(make, seed, replies, max_turns).transcript(), f"two envs with seed {seed}, fed the same replies")
            again = _Play(lambda: reused, seed, replies, max_turns).transcript()
            _same(record, again, f"a fresh env and one that played other seeds before, both reset to {seed}")
        _require(played.ended or not must_end, f"seed {seed}: the game is not over after {max_turns} turns")
        starts.add(repr(record[0]))
        for i, n in enumerate((1, played.ended, played.turns, played.refused)):
            totals[i] += n
    _require(len(starts) > 1 or len(seeds) == 1 or not must_vary, f"seeds {seeds} all start alike: does reset(seed=...) use its seed?")
    return ContractReport(*totals)


class _Play:
    """One game from one seed, its checks made on the way."""

    def __init__(self, make: Callable[[], Env], seed: int, replies: Callable, max_turns: int):
        self.env, self.seed, self.replies, self.max_turns = make(), seed, replies, max_turns
        self.turns, self.refused, self.ended, self._odd = 0, 0, False, 0

    def transcript(self) -> list[Any]:
        """The game without the checks: what was shown and said, in order."""
        return self._play(checked=False)

    def run(self) -> list[Any]:
        """The game with every check; returns what :meth:`transcript` would."""
        return self._play(checked=True)

    def _play(self, checked: bool) -> list[Any]:
        env, record = self.env, []
        env.reset(seed=self.seed)
        rng = derived_rng("conformance", self.seed)
        if checked:
            self._check_start()
        while env.acting() and self.turns < self.max_turns:
            for seat in env.acting():
                if seat not in env.acting():  # a simultaneous round can end before everyone has moved
                    continue
                record.append(snapshot(env))
                if checked:
                    self._check_position(seat)
                text = self.replies(env, seat, rng)
                before = snapshot(env)
                verdict = env.act(seat, text)
                record.append((seat, text, verdict))
                if checked:
                    self._check_verdict(verdict, before, text)
                self.turns += 1
        self.ended = not env.acting()
        record.append(snapshot(env))
        record.append(env.outcome())
        if checked:
            self._check_outcome(env.outcome())
            if self.ended:
                self._check_refuses_to_act(range(env.seats))
        return record

    # -- the clauses --------------------------------------------------------------------------

    def _check_start(self) -> None:
        env = self.env
        _require(isinstance(env.seats, int) and env.seats >= 1, f"seats must be a positive int, got {env.seats!r}")
        self._require_seats(env.trained_seats, "trained_seats")
        _require(env.trained_seats != (), "trained_seats is empty: nobody is trained")
        _require(env.acting() != (), f"{self._here()}: nobody acts right after reset")
        outcome = env.outcome()
        self._check_outcome(outcome)
        _require(not any(s.success for s in outcome.seats), f"{self._here()}: success before the first move")

    def _check_position(self, seat: int) -> None:
        env = self.env
        self._require_seats(env.acting(), "acting()")
        for name, text in (("rules", env.rules(seat)), ("observe", env.observe(seat))):
            _require(isinstance(text, str), f"{self._here()}: {name}({seat}) must be a str, got {type(text).__name__}")
        _require(bool((env.rules(seat) + env.observe(seat)).strip()), f"{self._here()}: seat {seat} is shown nothing")
        shown = repr(env.public(seat))
        _require(not _ADDRESS.search(shown), f"{self._here()}: public({seat}) has an unstable repr: {shown:.200}")
        self._check_hidden()
        self._check_refuses_to_act(set(range(env.seats)) - set(env.acting()))
        legal = env.legal(seat)
        if legal is not None:
            _require(isinstance(legal, tuple) and all(isinstance(a, str) for a in legal), f"{self._here()}: legal({seat}) must be a tuple of str or None")
            _require(legal != (), f"{self._here()}: seat {seat} acts but legal({seat}) is empty")
            _require(len(set(legal)) == len(legal), f"{self._here()}: legal({seat}) lists an answer twice")
        before = snapshot(env)
        _same(before, snapshot(env), f"{self._here()}: looking twice (observe, public, legal change the state)")
        if self._odd < _ODD_CHECKS:
            self._odd += 1
            self._check_copies(seat, legal, before)

    def _check_copies(self, seat: int, legal: tuple[str, ...] | None, before: Any) -> None:
        """On copies: pickling keeps the state, every legal answer is accepted, a refused reply changes
        nothing, and no reply raises."""
        env = self.env
        try:
            frozen = pickle.dumps(env)
        except Exception as e:  # noqa: BLE001  pickle raises anything
            raise ContractError(f"{self._here()}: the env cannot be pickled: {e!r}") from e
        _same(before, snapshot(pickle.loads(frozen)), f"{self._here()}: pickling and back")
        _same(before, snapshot(copy.deepcopy(env)), f"{self._here()}: copy.deepcopy")
        for text in dict.fromkeys((*(legal or ()), *ODD_REPLIES)):
            trial = pickle.loads(frozen)
            try:
                verdict = trial.act(seat, text)
            except Exception as e:  # noqa: BLE001  whatever it was, a reply must never raise
                raise ContractError(f"{self._here()}: act({seat}, {text!r:.60}) raised {e!r}") from e
            self._check_verdict(verdict, before, text, trial)
            if text in (legal or ()):
                _require(verdict.valid, f"{self._here()}: legal({seat}) lists {text!r}, act refuses it: {verdict.feedback!r}")
            self.refused += not verdict.valid
        _same(before, snapshot(env), f"{self._here()}: a copy that played on (it shares state with the original)")

    def _check_verdict(self, verdict: Verdict, before: Any, text: str, env: Env | None = None) -> None:
        env, where = env or self.env, f"{self._here()}: act(..., {text!r:.60})"
        _require(isinstance(verdict, Verdict), f"{where} must return a Verdict, got {verdict!r}")
        _require(isinstance(verdict.feedback, str), f"{where}: feedback must be a str, got {verdict.feedback!r}")
        _require(_finite(verdict.reward), f"{where}: reward must be a finite number, got {verdict.reward!r}")
        if not verdict.valid:
            _require(not verdict.effective, f"{where}: refused, yet effective")
            _same(before, snapshot(env), f"{where}: a refused reply (it must leave the state as it is)")

    def _check_refuses_to_act(self, seats: Iterable[int]) -> None:
        before = snapshot(self.env)
        for seat in seats:
            try:
                self.env.act(seat, "1")
            except ValueError:
                continue
            raise ContractError(f"{self._here()}: seat {seat} is not acting, yet act({seat}, ...) raised no ValueError")
        _same(before, snapshot(self.env), f"{self._here()}: a seat that is not acting tried to act")

    def _check_outcome(self, outcome: Outcome) -> None:
        _require(isinstance(outcome, Outcome), f"{self._here()}: outcome() must be an Outcome, got {outcome!r}")
        _require(len(outcome.seats) == self.env.seats, f"{self._here()}: outcome() has {len(outcome.seats)} seats of {self.env.seats}")
        for seat, result in enumerate(outcome.seats):
            where = f"{self._here()}: outcome()[{seat}]"
            _require(isinstance(result.success, bool), f"{where}.success must be a bool, got {result.success!r}")
            _require(_finite(result.reward), f"{where}.reward must be a finite number, got {result.reward!r}")
            for key, value in result.metrics.items():
                _require(isinstance(key, str) and _finite(value), f"{where}.metrics[{key!r}] must be a finite number, got {value!r}")
        _same(outcome, self.env.outcome(), f"{self._here()}: asking for the outcome twice")

    def _check_hidden(self) -> None:
        hidden = getattr(self.env, "hidden", None)
        if hidden is None:
            return
        for seat in range(self.env.seats):
            shown = "\n".join((self.env.rules(seat), self.env.observe(seat), repr(self.env.public(seat))))
            for secret in hidden(seat):
                found = re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", shown, re.IGNORECASE)
                _require(not found, f"{self._here()}: seat {seat} is shown {secret!r}, which it may not know")

    def _require_seats(self, value: Any, name: str) -> None:
        ok = isinstance(value, tuple) and all(isinstance(s, int) and 0 <= s < self.env.seats for s in value)
        _require(ok and len(set(value)) == len(value), f"{self._here()}: {name} must be a tuple of seats below {self.env.seats}, got {value!r}")

    def _here(self) -> str:
        return f"{type(self.env).__name__} seed {self.seed} turn {self.turns}"


def snapshot(env: Env) -> tuple[Any, ...]:
    """All that the contract lets one see of an env, for comparing two states."""
    seats = range(env.seats)
    legal = tuple(env.legal(s) if s in env.acting() else None for s in seats)
    return (
        env.acting(), tuple(env.trained_seats), legal,
        tuple((env.rules(s), env.observe(s), repr(env.public(s))) for s in seats),
    )


def _default_reply(env: Env, seat: int, rng: random.Random) -> str:
    legal = env.legal(seat)
    return rng.choice(legal) if legal else str(rng.randint(0, 20))


def _finite(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ContractError(message)


def _same(a: Any, b: Any, what: str) -> None:
    if a != b:
        different = next((pair for pair in zip(a, b, strict=False) if pair[0] != pair[1]), (a, b)) if isinstance(a, (list, tuple)) else (a, b)
        raise ContractError(f"{what} differ:\n  {different[0]!r:.500}\n  {different[1]!r:.500}")


class _untouched_global_random_state:
    """Raises if the body draws from (or seeds) the generators of ``random``, NumPy or torch."""

    def __init__(self, seed: int):
        self.seed = seed

    def __enter__(self) -> None:
        self.before = self._states()

    def __exit__(self, kind: Any, *_: Any) -> None:
        for name, state in self._states().items():
            if kind is None and state != self.before.get(name, state):
                raise ContractError(f"seed {self.seed}: the env touched the global random state of {name}; use derived_rng")

    @staticmethod
    def _states() -> dict[str, Any]:
        numpy_state = np.random.get_state()
        states = {"random": random.getstate(), "numpy": (numpy_state[1].tolist(), *numpy_state[2:])}
        if "torch" in sys.modules:
            states["torch"] = sys.modules["torch"].get_rng_state().tolist()
        return states
