"""OpenSpiel games (github.com/google-deepmind/open_spiel) as an Env: ``env_type: open_spiel``.

Chance is drawn from the seed and the position. Where players move at once, moves are gathered and
played together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ragen.env.adapters import require
from ragen.env.base import Env, Outcome, SeatOutcome, Verdict, derived_rng

_RULES = "This is the game {name} with {count}. You are player {me}. Answer with one of the moves you are offered, written exactly as it is listed.\n"


@dataclass(frozen=True)
class OpenSpielConfig:
    """``game``: OpenSpiel's name with parameters, e.g. ``kuhn_poker`` or ``connect_four(rows=5)``.
    ``rules``: what the players are told instead of the game's name alone; OpenSpiel has no rules in
    words. ``trained_seat``: a seat, or ``null`` for one by the seed. ``scale``: rewards mapped from
    the game's own range to 0..1 (a draw of a two-player game is then 0.5); otherwise as they are.
    A seat succeeds if no other has more and not all have the same; alone, at the highest reward."""

    game: str = "tic_tac_toe"
    rules: str | None = None
    trained_seat: int | None = None
    scale: bool = True
    invalid_penalty: float = -0.1


class OpenSpielEnv(Env):
    """``state`` is OpenSpiel's own."""

    def __init__(self, config: OpenSpielConfig | None = None):
        self.config = config or OpenSpielConfig()
        spiel = require("pyspiel", "open_spiel", "open_spiel")
        try:
            game = spiel.load_game(self.config.game)
        except spiel.SpielError as error:
            raise ValueError(f"open_spiel: cannot load game {self.config.game!r}: {error}") from error
        kind = game.get_type()
        self.seats = game.num_players()
        if self.config.trained_seat is not None and not 0 <= self.config.trained_seat < self.seats:
            raise ValueError(f"open_spiel: trained_seat must be null or a seat below {self.seats}, got {self.config.trained_seat!r}")
        self._range = game.min_utility(), game.max_utility()
        self._name = kind.long_name
        hides = kind.information == spiel.GameType.Information.IMPERFECT_INFORMATION
        if not hides:
            self._view = "str"
        else:
            self._view = "information" if kind.provides_information_state_string else "observation"
        self._begin()

    def _begin(self) -> None:
        import pyspiel

        self.state = pyspiel.load_game(self.config.game).new_initial_state()
        self._chosen: dict[int, int] = {}

    def reset(self, *, seed: int) -> None:
        self.seed = seed
        self._begin()
        any_seat = derived_rng("open_spiel", self.config.game, seed).randrange(self.seats)
        self.trained_seats = (any_seat if self.config.trained_seat is None else self.config.trained_seat,)
        self._draw_chance()

    def _draw_chance(self) -> None:
        while self.state.is_chance_node():
            actions, weights = zip(*self.state.chance_outcomes(), strict=True)
            rng = derived_rng("open_spiel", self.seed, tuple(self.state.history()))
            self.state.apply_action(rng.choices(actions, weights)[0])

    # -- what is seen ---------------------------------------------------------------------------

    def acting(self) -> tuple[int, ...]:
        if self.state.is_terminal():
            return ()
        if self.state.is_simultaneous_node():
            return tuple(s for s in range(self.seats) if s not in self._chosen and self.state.legal_actions(s))
        return (self.state.current_player(),)

    def rules(self, seat: int) -> str:
        if self.config.rules is not None:
            return self.config.rules.rstrip() + f"\nYou are player {seat + 1}.\n"
        return _RULES.format(name=self._name, count=f"{self.seats} player{'s' if self.seats > 1 else ''}", me=seat + 1)

    def observe(self, seat: int) -> str:
        return f"{self._seen(seat)}\nMoves: {', '.join(self._moves(seat))}" if seat in self.acting() else self._seen(seat)

    def _seen(self, seat: int) -> str:
        if self._view == "str":
            return str(self.state).rstrip()
        return (self.state.information_state_string(seat) if self._view == "information" else self.state.observation_string(seat)).rstrip()

    def _moves(self, seat: int) -> dict[str, int]:
        """Legal moves by name; a name that several moves share is numbered."""
        moves: dict[str, int] = {}
        for action in self.state.legal_actions(seat):
            name = " ".join(self.state.action_to_string(seat, action).split())
            moves[name if name not in moves else f"{name} #{action}"] = action
        return moves

    def legal(self, seat: int) -> tuple[str, ...]:
        return tuple(self._moves(seat)) if seat in self.acting() else ()

    # -- moves ----------------------------------------------------------------------------------

    def act(self, seat: int, text: str) -> Verdict:
        self._require_acting(seat)
        wanted = " ".join(text.split()).casefold()
        found = [action for name, action in self._moves(seat).items() if name.casefold() == wanted]
        if len(found) != 1:
            return Verdict(False, False, "That is not one of your moves. Try again.", self.config.invalid_penalty)
        if not self.state.is_simultaneous_node():
            self.state.apply_action(found[0])
        else:
            self._chosen[seat] = found[0]
            if not self.acting():
                self.state.apply_actions([self._chosen.get(s, 0) for s in range(self.seats)])
                self._chosen = {}
        self._draw_chance()
        return Verdict(True, True)

    def outcome(self) -> Outcome:
        if not self.state.is_terminal():
            return Outcome(tuple(SeatOutcome(0.0, False) for _ in range(self.seats)))
        returns = [float(r) for r in self.state.returns()]
        draw = self.seats > 1 and len(set(returns)) == 1
        return Outcome(tuple(self._seat_outcome(value, returns, draw) for value in returns))

    def _seat_outcome(self, value: float, returns: list[float], draw: bool) -> SeatOutcome:
        low, high = self._range
        success = not draw and value == (max(returns) if self.seats > 1 else high)
        reward = (value - low) / (high - low) if self.config.scale and high > low else value
        return SeatOutcome(reward, success, {"draw": float(draw), "loss": float(not draw and not success)})

    def __deepcopy__(self, memo: Any) -> OpenSpielEnv:
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.state, other._chosen = self.state.clone(), dict(self._chosen)
        return other
