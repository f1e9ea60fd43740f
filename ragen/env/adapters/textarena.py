"""TextArena games (github.com/LeonGuertler/TextArena) as an Env: ``env_type: textarena``.

TextArena draws from Python's and NumPy's global generators; here every call into a game runs with
generator states of its own, put back afterwards. A refused move costs TextArena players the game
after a few; here the game is set back to before it, and the episode's rules for refused moves hold.
"""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ragen.env.adapters import require
from ragen.env.base import Env, Outcome, SeatOutcome, Verdict, derived_rng

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextArenaConfig:
    """``game``: TextArena's id, e.g. ``TicTacToe-v0`` (played without its wrappers). ``options``: for
    its constructor. ``players``: how many. ``trained_seat``: a seat, or ``null`` for one by the seed.
    ``success_at``: the reward from which on a seat has succeeded (TextArena gives a winner 1);
    where all have the same it is a draw."""

    game: str = "TicTacToe-v0"
    players: int = 2
    options: Mapping[str, Any] = field(default_factory=dict)
    trained_seat: int | None = None
    success_at: float = 1.0
    invalid_penalty: float = -0.1

    def __post_init__(self) -> None:
        if self.players < 1:
            raise ValueError(f"textarena: players must be at least 1, got {self.players!r}")
        if self.trained_seat is not None and not 0 <= self.trained_seat < self.players:
            raise ValueError(f"textarena: trained_seat must be null or a seat below {self.players}, got {self.trained_seat!r}")


class TextArenaEnv(Env):
    """``game`` is TextArena's own object."""

    def __init__(self, config: TextArenaConfig | None = None):
        self.config = config or TextArenaConfig()
        self.seats = self.config.players
        require("textarena", "textarena", "textarena")
        from textarena.envs.registration import ENV_REGISTRY

        spec = ENV_REGISTRY.get(self.config.game)
        if spec is None:
            raise ValueError(f"textarena: there is no game {self.config.game!r}; textarena.envs.registration.ENV_REGISTRY lists them")
        # the default wrapper that puts the brackets around an answer, where the game wants them
        self._brackets = any(w.__name__ == "ActionFormattingWrapper" for w in spec.default_wrappers or ())
        self._generators: tuple[Any, Any] | None = None

    def reset(self, *, seed: int) -> None:
        import textarena

        rng = derived_rng("textarena", self.config.game, seed)
        any_seat, own_seed = rng.randrange(self.seats), rng.getrandbits(31)
        self.trained_seats = (any_seat if self.config.trained_seat is None else self.config.trained_seat,)
        raw = self.config.game if self.config.game.endswith("-raw") else f"{self.config.game}-raw"
        self._generators = (random.Random(own_seed).getstate(), np.random.RandomState(own_seed).get_state())
        with self._own_generators():
            self.game = textarena.make(raw, **self.config.options)
            self.game.reset(num_players=self.seats, seed=own_seed)

    @contextmanager
    def _own_generators(self):
        outside = random.getstate(), np.random.get_state()
        random.setstate(self._generators[0])
        np.random.set_state(self._generators[1])
        try:
            yield
        finally:
            self._generators = random.getstate(), np.random.get_state()
            random.setstate(outside[0])
            np.random.set_state(outside[1])

    # -- what is seen ---------------------------------------------------------------------------

    def acting(self) -> tuple[int, ...]:
        return () if self.game.state.done else (self.game.state.current_player_id,)

    def rules(self, seat: int) -> str:
        return "\n".join(text for _, text, kind in self._messages(seat) if kind == "PROMPT").rstrip() + "\n"

    def observe(self, seat: int) -> str:
        """What the game has told this seat so far, without boards that a newer one replaced."""
        told = [m for m in self._messages(seat) if m[2] != "PROMPT"]
        last_board = max((i for i, m in enumerate(told) if m[2] == "GAME_BOARD"), default=-1)
        kept = [m for i, m in enumerate(told) if m[2] != "GAME_BOARD" or i == last_board]
        lines = [text if who < 0 else f"[{self._name(who)}] {text}" for who, text, _ in kept]
        return "\n".join([*lines, "Your move." if seat in self.acting() else ""]).strip()

    def _messages(self, seat: int) -> list[tuple[int, str, str]]:
        return [(who, text, kind.name) for who, text, kind in self.game.state.observations[seat]]

    def _name(self, seat: int) -> str:
        return (self.game.state.role_mapping or {}).get(seat, f"Player {seat}")

    # -- moves ----------------------------------------------------------------------------------

    def act(self, seat: int, text: str) -> Verdict:
        self._require_acting(seat)
        before, generators = copy.deepcopy(self.game), self._generators
        answer = f"[{text.strip()}]" if self._brackets and "[" not in text else text
        try:
            with self._own_generators():
                self.game.step(answer)
            reason = self._refusal(seat, before)
        except Exception as error:  # noqa: BLE001  games differ in what they raise on nonsense
            logger.debug("textarena %s raised %r on %r", self.config.game, error, text)
            reason = "The game could not read that. Try again."
        if reason:
            self.game, self._generators = before, generators
            return Verdict(False, False, reason, self.config.invalid_penalty)
        return Verdict(True, True)

    def _refusal(self, seat: int, before: Any) -> str:
        """Why the game refused the last move; empty if it did not."""
        state, old = self.game.state, before.state
        counted = getattr(state, "error_count", 0) > getattr(old, "error_count", 0)
        flagged = state.game_info[seat].get("invalid_move") and not old.game_info[seat].get("invalid_move")
        if not counted and not flagged:
            return ""
        told = [text for _, text, kind in self._messages(seat)[len(old.observations[seat]) :] if kind == "GAME_ADMIN"]
        return told[-1] if told else "That move is not allowed. Try again."

    def outcome(self) -> Outcome:
        if not self.game.state.done:
            return Outcome(tuple(SeatOutcome(0.0, False) for _ in range(self.seats)))
        rewards = self.game.state.rewards or {}
        values = [float(rewards.get(seat, 0.0)) for seat in range(self.seats)]
        draw = self.seats > 1 and len(set(values)) == 1
        return Outcome(tuple(self._seat_outcome(value, draw) for value in values))

    def _seat_outcome(self, value: float, draw: bool) -> SeatOutcome:
        success = value >= self.config.success_at and not draw
        return SeatOutcome(value, success, {"draw": float(draw), "loss": float(not success and not draw)})
