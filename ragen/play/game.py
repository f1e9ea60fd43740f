"""One game between a person and a model, played by the training's own episode.

The model takes the seats that training would train (and, in games of more than two, all others but the
person's), and sees the prompts of training. The person sits in the first seat that is not trained and
may try as often as it takes. What the person sees and types is a :class:`Table`'s business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ragen.env.base import Env, SeatOutcome
from ragen.env.seating import other_seats, player_seats
from ragen.llm_agent.ctx_manager import ChatTokens
from ragen.llm_agent.episode import Agent, Episode, EpisodeLimits, EpisodeSpec, Sampling
from ragen.llm_agent.reply_format import parse_reply
from ragen.llm_agent.tasks import Runner
from ragen.llm_agent.trajectory import FINISHED, TRUNCATED, UNFINISHED, Turn
from ragen.players.base import Player, SeatView
from verl.workers.rollout.base import RolloutEngine

#: refused replies after which a person is no longer asked: practically never
_PATIENCE = 10**9


class Stopped(Exception):
    """The person has had enough."""


@dataclass(frozen=True)
class Move:
    """A reply that was played or refused; ``mine``: by the person. ``answer`` of a reply off the form is the
    whole reply. ``prompt``: what the model was told, in a game for one; where the person plays too it
    stays empty, as it may hold what that seat must not know (so may roles and positions: not here)."""

    seat: int
    mine: bool
    answer: str
    thought: str = ""
    prompt: str = ""
    valid: bool = True
    feedback: str = ""


@dataclass(frozen=True)
class Result:
    """``person``: ``None`` in a game for one. ``last``: the final position in words, ``public`` as a value.
    ``thoughts``: moves of the model that had any."""

    sentence: str
    person: SeatOutcome | None
    model: SeatOutcome
    last: str
    public: Any
    thoughts: tuple[Move, ...]


class Table(ABC):
    """Where a person sits down."""

    @abstractmethod
    def ask(self, view: SeatView) -> str:
        """The person's answer to ``view``. Raises :class:`Stopped`."""

    @abstractmethod
    def moved(self, move: Move) -> None:
        """Show a move, the person's own included. Secret answers come here once all are in."""

    @abstractmethod
    def over(self, result: Result) -> None:
        """Show how it ended."""


@dataclass(frozen=True)
class Opponent:
    """A model that can be asked, and how it is."""

    engine: RolloutEngine
    chat: ChatTokens
    sampling: dict[str, Any]
    enable_think: bool = True
    max_turn: int = 30


class Person(Player):
    """The one at the table."""

    name = "person"

    def __init__(self, table: Table):
        self.table = table

    async def reply(self, view: SeatView) -> str:
        return self.table.ask(view)


class PersonEpisode(Episode):
    """An episode that tells a table what happens."""

    def __init__(self, *args: Any, table: Table):
        super().__init__(*args)
        self.table, self.moves = table, []

    def person_seat(self) -> int | None:
        """The first seat that is not trained; ``None`` in a game for one."""
        return next(iter(other_seats(self.env.seats_now, self.env.trained_seats)), None)

    def _entries(self) -> Sequence[dict]:
        return [{"type": "person"}, {"type": "policy"}]  # in a nest, too, whatever its own entries

    def _apply_policy(self, agent: Agent, seat: int, turn: Turn) -> None:
        alone = self.person_seat() is None  # asked now: a nest may have moved on afterwards
        super()._apply_policy(agent, seat, turn)
        parsed = parse_reply(turn.reply, self.limits.enable_think)
        answer = parsed.answer if parsed.ok else turn.reply
        self._tell(Move(seat, False, answer, parsed.thought, turn.prompt if alone else "", turn.valid, turn.feedback))

    def _apply_opponent(self, seat: int, text: str) -> None:
        super()._apply_opponent(seat, text)
        self._tell(Move(seat, True, text, valid=not self.attempts[seat], feedback=self.feedback[seat]))

    def _tell(self, move: Move) -> None:
        self.moves.append(move)
        self.table.moved(move)


def play_game(env: Env, env_type: str, seed: int, opponent: Opponent, table: Table) -> Result:
    """Play the game ``seed`` to its end and show the result. Raises :class:`Stopped` if the person stops."""
    limits = EpisodeLimits(
        max_turn=opponent.max_turn, max_model_len=opponent.engine.max_model_len, enable_think=opponent.enable_think,
        opponent_retries=_PATIENCE,
    )  # fmt: skip
    sampling = Sampling(run_key=("play", seed), **opponent.sampling)
    spec, person = EpisodeSpec("play", env_type, 0, 0, seed), Person(table)
    episode = PersonEpisode(spec, env, opponent.chat, limits, sampling, [], lambda entry, game: person, table=table)
    (trajectories,) = Runner([opponent.engine]).run([episode.run()])
    result = _result(env, episode, trajectories[0])
    table.over(result)
    return result


def _result(env: Env, episode: PersonEpisode, played) -> Result:
    seat = episode.person_seat()
    person, model = env.result(len(env.trained_seats), player_seats), env.result(0)  # in a nest: over all sub-tasks
    shown = played.seat if seat is None else seat
    thoughts = tuple(move for move in episode.moves if move.thought)
    return Result(_sentence(played.status, person, model), person, model, env.observe(shown), env.public(shown), thoughts)


def _sentence(status: str, person: SeatOutcome | None, model: SeatOutcome) -> str:
    if status != FINISHED:
        why = {UNFINISHED: "the model used up its turns", TRUNCATED: "the conversation no longer fits the model"}
        return f"The game was broken off: {why.get(status, status)}."
    if person is None:
        return "The model succeeded." if model.success else "The model did not succeed."
    if person.success and model.success:
        return "You win, and the model with you."
    if person.success or model.success:
        return "You win." if person.success else "The model wins."
    return "A draw." if person.metrics.get("draw") else "Nobody wins."
