"""The contract between a game and everything that plays it.

An :class:`Env` is the rules of one text game as pure state: no model, no network, no clock, no
global random state. All randomness, the wording of the prompt included, is a function of the seed
handed to :meth:`Env.reset` (and of the position), so two environments reset with one seed and fed
the same replies are equal at every point. Episodes (``ragen.llm_agent.episode``) own everything
else: turn limits, the ``<think>/<answer>`` protocol, opponents, tokens.

Life cycle::

    env.reset(seed=7)
    while env.acting():                       # () once the game is over
        for seat in env.acting():             # several seats: they move simultaneously
            text = env.rules(seat) + env.observe(seat)
            verdict = env.act(seat, answer)   # the answer alone, not the thoughts
    env.outcome().seats[seat].reward
"""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium

from ragen.env.seating import Entries, Seating, agent_seats


def derived_rng(*key: Any) -> random.Random:
    """A generator that is a pure function of ``key`` (any values with a stable ``repr``).

    ``hash()`` is salted per process, so it cannot serve: this uses SHA-256 of the key's ``repr``.
    Envs and scripted players draw all their randomness from here, e.g.
    ``derived_rng(seed, "opening")`` or ``derived_rng(seed, board)``.
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


@dataclass(frozen=True)
class Verdict:
    """What the rules say of one reply.

    ``valid``: the reply was a legal action. ``effective``: it changed the state of the game.
    ``feedback``: shown to the seat before its next observation (may be empty).
    ``reward``: what this turn itself earned, e.g. -0.1 for a wrong move; the result of the game is
    in :class:`Outcome`, not here.
    """

    valid: bool
    effective: bool
    feedback: str = ""
    reward: float = 0.0


@dataclass(frozen=True)
class SeatOutcome:
    """Result of one seat. ``reward`` excludes what the turns earned by themselves
    (:attr:`Verdict.reward`); ``success`` is a win or a correct answer; ``metrics`` are numbers to
    average over episodes (``draw``, ``loss``, ...). ``turn_rewards``: parts of ``reward`` that belong
    to replies before the last one, by the reply's place (0 first, refused ones counted): what a
    sub-task of a nest earned belongs to the turn that ended it."""

    reward: float
    success: bool
    metrics: Mapping[str, float] = field(default_factory=dict)
    turn_rewards: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """Result of a game: one :class:`SeatOutcome` a seat."""

    seats: tuple[SeatOutcome, ...]

    def __getitem__(self, seat: int) -> SeatOutcome:
        return self.seats[seat]


@dataclass(frozen=True)
class SummaryRequest:
    """A record that grew too long for a seat's prompt: ``text``, to be told in at most ``max_chars``
    characters by ``player``, a ``player_info`` entry."""

    player: Mapping[str, Any]
    text: str
    max_chars: int


class Env(ABC):
    """Rules of one text game for ``seats`` players. See the module docstring for the life cycle."""

    #: how many players the game has
    seats: int = 1
    #: seats whose replies may be trained; may change while playing (a nest changes sub-task)
    trained_seats: tuple[int, ...] = (0,)

    @abstractmethod
    def reset(self, *, seed: int) -> Any:
        """Start the game that ``seed`` names. The return value is ignored by episodes."""

    @abstractmethod
    def acting(self) -> tuple[int, ...]:
        """Seats that act now; several: simultaneously; empty: the game is over."""

    def rules(self, seat: int) -> str:
        """What the seat is told once, before its first observation: the rules in the wording that
        the seed chose. When the text changes (a nest moves on), the episode shows the new one."""
        return ""

    @abstractmethod
    def observe(self, seat: int) -> str:
        """The state as this seat may see it, and nothing else."""

    def public(self, seat: int) -> Any:
        """The structured form of what :meth:`observe` shows, for scripted players and viewers:
        a value with a stable ``repr`` that holds nothing the seat may not know."""
        return self.observe(seat)

    def legal(self, seat: int) -> tuple[str, ...] | None:
        """Every legal answer of this seat now, as text; ``None`` where they cannot be listed."""
        return None

    def role(self, seat: int) -> str:
        """Name of the part this seat plays, for logs and role-conditioned baselines (never shown)."""
        return f"seat{seat}"

    def player_info_now(self) -> list[dict] | None:
        """Opponents of the sub-task being played, where a nest has its own for each; ``None``
        elsewhere: the tag's ``player_info`` holds."""
        return None

    def sub_task_now(self) -> tuple[int, ...]:
        """Which sub-task is being played; changes when a nest moves on (in a nest of nests a number
        for each level). ``()`` for a plain game."""
        return ()

    @property
    def seats_now(self) -> int:
        """Seats of the game being played: in a nest those of the sub-task, which may have fewer."""
        return self.seats

    def refused(self, seat: int) -> None:
        """A reply off the ``<think>/<answer>`` form never reaches :meth:`act`, but it used up a
        turn. A nest, which limits the turns of its sub-tasks, counts it here."""

    def summary_request(self, seat: int) -> SummaryRequest | None:
        """What should be summarised before this seat is asked, if anything. An env calls nobody: the
        episode has it done and hands the result to :meth:`summarised`."""
        return None

    def summarised(self, seat: int, text: str) -> None:
        """``text`` stands for the record of the last :meth:`summary_request` from here on."""

    @abstractmethod
    def act(self, seat: int, text: str) -> Verdict:
        """Play ``text`` (the answer without thoughts and tags) for ``seat``. A refused reply
        leaves the state as it is. Raises ``ValueError`` if the seat is not acting."""

    @abstractmethod
    def outcome(self) -> Outcome:
        """The result. For a game stopped before its end: the result as it stands (a win that has
        not happened is no success). Of a nest: for each seat of its last sub-task, what the player
        who sits there has earned in all of them."""

    def result(self, number: int, seating: Seating = agent_seats, player_info: Entries = ()) -> SeatOutcome | None:
        """The result of one player of the episode, by its number under ``seating``
        (:mod:`ragen.env.seating`; by default the policy's agents). ``player_info``: who plays the other
        seats; a nest knows that of its sub-tasks. ``None``: there is no such player."""
        seats = seating(self.seats, self.trained_seats, player_info)
        return self.outcome()[seats[number]] if number < len(seats) else None

    def _require_acting(self, seat: int) -> None:
        if seat not in self.acting():
            raise ValueError(f"seat {seat} cannot act now (acting: {self.acting() or 'nobody, the game is over'})")


#: what ``gymnasium.spaces.Text`` needs to be told; any other character is accepted all the same
_CHARSET = "".join(map(chr, range(32, 127))) + "\n"


class AnyText(gymnasium.spaces.Text):
    """A ``Text`` space that contains every string up to ``max_length`` (Gymnasium's own lists its
    characters, but games speak Unicode)."""

    def __init__(self, max_length: int = 100_000, *, sample_length: int = 12):
        super().__init__(max_length=max_length, min_length=0, charset=_CHARSET)
        self._sample_length = sample_length

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and len(x) <= self.max_length

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        n = int(self.np_random.integers(1, self._sample_length + 1))
        return "".join(self.np_random.choice(list(_CHARSET), size=n))


class SoloEnv(gymnasium.Env, Env):
    """Base of one-seat tasks, Gymnasium's API and the :class:`Env` contract in one.

    A task implements :meth:`start` and :meth:`play` and, if it wants, :meth:`rules`; see
    ``docs/add_a_game.md`` for one in thirty lines. ``reset``/``step`` are Gymnasium's (text
    observations, text actions) and pass ``gymnasium.utils.env_checker.check_env``.

    ``play`` returns ``(observation, reward, done, info)``. Recognised keys of ``info``:
    ``valid`` (default True), ``effective`` (default = valid), ``success`` (default False),
    ``feedback``, and any number under ``metrics``.
    """

    metadata = {"render_modes": []}
    render_mode = None
    seats = 1
    trained_seats = (0,)

    def __init__(self) -> None:
        self.observation_space = AnyText()
        self.action_space = AnyText(max_length=2_000)
        self._done, self._obs, self._info, self._return = True, "", {}, 0.0

    # -- what a task writes -------------------------------------------------------------------

    def start(self, rng: random.Random) -> str:
        """Begin a new task drawn from ``rng``; return the first observation."""
        raise NotImplementedError

    def play(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        """Play one action; return ``(observation, reward, done, info)``."""
        raise NotImplementedError

    # -- Gymnasium ----------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[str, dict]:
        super().reset(seed=seed)
        if seed is None:  # Gymnasium: continue the stream of the last seed
            seed = int(self.np_random.integers(2**31))
        self.seed = int(seed)
        self._done, self._info, self._return = False, {}, 0.0
        self._obs = self.start(derived_rng(type(self).__name__, self.seed))
        return self.rules(0) + self._obs, {"seed": self.seed}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict]:
        if self._done:
            raise ValueError("step() after the task ended: call reset(seed=...) first")
        self._obs, reward, self._done, info = self.play(action)
        self._info = info
        self._return += float(reward)
        return self._obs, float(reward), bool(self._done), False, info

    # -- Env ----------------------------------------------------------------------------------

    def acting(self) -> tuple[int, ...]:
        return () if self._done else (0,)

    def observe(self, seat: int) -> str:
        return self._obs

    def act(self, seat: int, text: str) -> Verdict:
        self._require_acting(seat)
        _, reward, _, _, info = self.step(text)
        valid = bool(info.get("valid", True))
        return Verdict(valid, bool(info.get("effective", valid)), str(info.get("feedback", "")), reward)

    def outcome(self) -> Outcome:
        # every step's reward was already given with its Verdict, so nothing is left to pay here
        return Outcome((SeatOutcome(0.0, bool(self._info.get("success", False)), dict(self._info.get("metrics", {}))),))
