"""Players that follow a rule: opponents that need no model.

All of them draw from ``derived_rng(seed, public)``: the same position of the same episode seed meets the same
reply, so the members of a group face one opponent.
"""

from __future__ import annotations

import difflib
import importlib
import random
from collections.abc import Callable
from typing import Any

from ragen.env.base import derived_rng
from ragen.env.connect_four import rules as c4
from ragen.env.nash_new.rules import MatrixGame, right_actions
from ragen.env.tictactoe import rules as ttt
from ragen.players.base import Player, PlayerError, SeatView


class ScriptedPlayer(Player):
    """Replies with :meth:`choose`, a pure function of the view and of a generator that is one too."""

    async def reply(self, view: SeatView) -> str:
        if view.legal == ():
            raise PlayerError(f"{self.name}: seat {view.seat} of {view.env_type} has no legal answer in this position")
        return self.choose(view, derived_rng(self.name, view.seed, view.public))

    def choose(self, view: SeatView, rng: random.Random) -> str:
        """The answer to ``view``."""
        raise NotImplementedError


class RandomPlayer(ScriptedPlayer):
    """Any legal answer, all equally likely. For games that list their answers."""

    name = "random"

    def choose(self, view: SeatView, rng: random.Random) -> str:
        if view.legal is None:
            raise PlayerError(f"random: {view.env_type} does not list its legal answers")
        return rng.choice(view.legal)


class PerfectTicTacToe(ScriptedPlayer):
    """Wins at once where it can, else plays any move that keeps the value of the position."""

    name = "perfect"

    def choose(self, view: SeatView, rng: random.Random) -> str:
        board, mark = view.public
        return ttt.cell_name(rng.choice(ttt.winning_cells(board, mark) or ttt.best_cells(board)))


class ErrorRateTicTacToe(ScriptedPlayer):
    """A random move with probability ``error_rate`` (0 to 1), else a perfect one. A random move may
    happen to be perfect too."""

    name = "error_rate"

    def __init__(self, error_rate: float = 0.5):
        if not 0.0 <= error_rate <= 1.0:
            raise ValueError(f"scripted player error_rate: error_rate must be between 0 and 1, got {error_rate}")
        self.error_rate = error_rate
        self._perfect, self._random = PerfectTicTacToe(), RandomPlayer()

    def choose(self, view: SeatView, rng: random.Random) -> str:
        player = self._random if rng.random() < self.error_rate else self._perfect
        return player.choose(view, rng)


class GreedyConnectFour(ScriptedPlayer):
    """Wins if it can, else blocks, else avoids handing over a win and prefers the middle."""

    name = "greedy"

    def choose(self, view: SeatView, rng: random.Random) -> str:
        board, mark = view.public
        other = c4.OTHER[mark]
        options = c4.winning_columns(board, mark) or c4.winning_columns(board, other)
        if not options:
            columns = c4.open_columns(board)
            safe = [c for c in columns if not c4.winning_columns(c4.drop(board, c), other)]
            middle = (board.columns - 1) / 2
            nearest = min(abs(c - middle) for c in safe or columns)
            options = [c for c in safe or columns if abs(c - middle) <= nearest + 1]
        return str(rng.choice(options) + 1)


class EquilibriumNash(ScriptedPlayer):
    """The action that counts as right under the paper's rule (see ``right_actions``)."""

    name = "equilibrium"

    def choose(self, view: SeatView, rng: random.Random) -> str:
        seen = view.public
        (action,) = right_actions(MatrixGame(seen.row, seen.column), seen.role, "paper")
        return seen.names[action]


#: env_type -> name -> class, or "module:class" where importing it is put off until it is asked for
SCRIPTED: dict[str, dict[str, type[Player] | str]] = {
    "tictactoe": {"random": RandomPlayer, "perfect": PerfectTicTacToe, "error_rate": ErrorRateTicTacToe},
    "connect_four": {"random": RandomPlayer, "greedy": GreedyConnectFour},
    "nash_new": {"random": RandomPlayer, "equilibrium": EquilibriumNash},
    "undercover": {"speaker": "ragen.players.undercover:UndercoverSpeaker", "random": "ragen.players.undercover:RandomUndercover"},
}

#: what each game's opponents are if nobody says
DEFAULT_OPPONENT = {"tictactoe": "perfect", "connect_four": "greedy", "nash_new": "equilibrium", "undercover": "speaker"}


def register_scripted(env_type: str, name: str, player: type[Player] | str) -> None:
    """Add a scripted player for a game: a class or ``"module:class"``."""
    SCRIPTED.setdefault(env_type, {})[name] = player


def make_scripted(env_type: str, name: str, **options: Any) -> Player:
    """The scripted player ``name`` of a game, e.g. ``make_scripted("tictactoe", "error_rate",
    error_rate=0.3)``. Any game has ``random`` if it lists its legal answers.

    Raises ``ValueError`` for a name the game does not have or an option the player does not take.
    """
    known = {"random": RandomPlayer} | SCRIPTED.get(env_type, {})
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{env_type} has no scripted player {name!r}{hint} (known: {', '.join(known)})")
    made: type[Player] | str | Callable = known[name]
    if isinstance(made, str):
        module, attribute = made.split(":")
        made = getattr(importlib.import_module(module), attribute)
    try:
        return made(**options)
    except TypeError as error:
        raise ValueError(f"scripted player {name!r} of {env_type} does not take {options}: {error}") from error
