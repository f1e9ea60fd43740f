"""Who's the spy as an :class:`~ragen.env.base.Env`: seats 0-3 are players 1-4.

``python -m ragen.env.undercover.env`` plays it in the terminal.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ragen.env.base import Env, Outcome, SeatOutcome, SummaryRequest, Verdict, derived_rng
from ragen.env.undercover import history, wording
from ragen.env.undercover.config import UndercoverConfig
from ragen.env.undercover.rules import PLAYERS, deal, removed
from ragen.env.undercover.spoken import says_word
from ragen.env.undercover.words import load_pairs

_VOTE = re.compile(r"player\s*(?:#\s*)?(\d+)", re.IGNORECASE)
_NUMBER = re.compile(r"#?\s*(\d+)\s*\.?")
_DIGITS = 9  # of a number that is read: more name nobody (and int() refuses thousands)


class UndercoverView(NamedTuple):
    """What an observation says, for scripted players. ``phase``: describe or vote. ``statements``:
    (player, text) as shown. ``options``: who can be voted for. ``hint``: empty unless roles are
    revealed."""

    player: int
    word: str
    phase: str
    round: int
    statements: tuple[history.Statement, ...]
    options: tuple[str, ...]
    hint: str


def parse_vote(text: str) -> int | None:
    """``"I vote for Player 3."`` -> 3. ``None`` unless exactly one player is named."""
    alone = _NUMBER.fullmatch(text.strip())
    named = {int(n[:_DIGITS]) for n in ([alone[1]] if alone else _VOTE.findall(text))}
    return named.pop() if len(named) == 1 else None


class UndercoverEnv(Env):
    """After a reset ``deal`` holds words, roles and order; ``said`` and ``votes`` fill up."""

    seats = PLAYERS

    def __init__(self, config: UndercoverConfig | None = None):
        self.config = config or UndercoverConfig()
        self._pairs = load_pairs(self.config.word_list)
        self.votes: dict[int, int] = {}
        self.removed: int | None = None

    def reset(self, *, seed: int) -> None:
        cfg = self.config
        self.seed = seed
        self.deal = deal(derived_rng("undercover", seed, "deal"), self._pairs, cfg.first_word, cfg.trained_role)
        self.trained_seats = (self.deal.trained,)
        self._rules = wording.rules_text(derived_rng("undercover", seed, "wording"), cfg.rounds)
        self.said: list[history.Statement] = []
        self.votes, self.removed = {}, None
        self._summary = (0, "")

    # -- what is seen ---------------------------------------------------------------------------

    @property
    def describing(self) -> bool:
        return len(self.said) < PLAYERS * self.config.rounds

    def acting(self) -> tuple[int, ...]:
        if self.describing:
            return (self.deal.order[len(self.said) % PLAYERS],)
        return tuple(seat for seat in range(PLAYERS) if seat not in self.votes)

    def rules(self, seat: int) -> str:
        return self._rules

    def observe(self, seat: int) -> str:
        view = self.public(seat)
        count, summary = self._summary
        if summary and count == len(self.said):
            record = summary
        else:
            record = history.record(len(self.said) - len(view.statements), view.statements)
        asked = wording.describe_text(view.round, record) if self.describing else wording.vote_text(record, view.options, view.hint)
        return f"{wording.seat_text(view.player, view.word)}\n{asked}"

    def public(self, seat: int) -> UndercoverView:
        _, shown = history.cut(self.said, self.config.max_history_chars)
        word, round_number = self.deal.words[seat], len(self.said) // PLAYERS + 1
        if self.describing:
            return UndercoverView(seat + 1, word, "describe", round_number, shown, (), "")
        hint = wording.HINTS[self.role(seat)] if self.config.reveal_role else ""
        return UndercoverView(seat + 1, word, "vote", self.config.rounds, shown, self._options(seat), hint)

    def _options(self, seat: int) -> tuple[str, ...]:
        return tuple(f"Player {s + 1}" for s in range(PLAYERS) if s != seat)

    def legal(self, seat: int) -> tuple[str, ...] | None:
        if self.describing:
            return None
        return self._options(seat) if seat in self.acting() else ()

    def role(self, seat: int) -> str:
        return self.deal.role(seat)

    def hidden(self, seat: int) -> tuple[str, ...]:
        """What this seat may not be shown, for the conformance check: the other word."""
        return tuple({word for word in self.deal.words if word != self.deal.words[seat]})

    # -- a record too long to show may be summarised by a model ---------------------------------

    def summary_request(self, seat: int) -> SummaryRequest | None:
        if self.config.summariser is None or self._summary[0] == len(self.said):
            return None
        record = history.record(0, self.said)
        if len(record) <= self.config.max_history_chars:
            return None
        return SummaryRequest(self.config.summariser, record, self.config.max_history_chars)

    def summarised(self, seat: int, text: str) -> None:
        self._summary = (len(self.said), text.strip()[: self.config.max_history_chars])

    # -- moves ----------------------------------------------------------------------------------

    def act(self, seat: int, text: str) -> Verdict:
        self._require_acting(seat)
        return self._describe(seat, history.one_line(text)) if self.describing else self._vote(seat, text)

    def _refuse(self, feedback: str) -> Verdict:
        return Verdict(False, False, feedback, self.config.invalid_penalty)

    def _describe(self, seat: int, text: str) -> Verdict:
        if not text:
            return self._refuse(wording.EMPTY)
        if self.config.refuse_own_word and says_word(text, self.deal.words[seat]):
            return self._refuse(wording.SAID_WORD)
        heard = history.heard(text, self.config.max_statement_chars)
        self.said.append((seat + 1, heard))
        return Verdict(True, True, "" if heard == text else wording.CUT.format(chars=self.config.max_statement_chars))

    def _vote(self, seat: int, text: str) -> Verdict:
        player = parse_vote(text)
        if player is None or not 1 <= player <= PLAYERS or player == seat + 1:
            return self._refuse(wording.NO_VOTE.format(options=", ".join(self._options(seat))))
        self.votes[seat] = player - 1
        if len(self.votes) == PLAYERS:
            self.removed = removed(self.votes, self.seed)
        return Verdict(True, True)

    def outcome(self) -> Outcome:
        return Outcome(tuple(map(self._seat_outcome, range(PLAYERS))))

    def _seat_outcome(self, seat: int) -> SeatOutcome:
        if self.removed is None:  # an unfinished game earns nothing
            return SeatOutcome(0.0, False, {"loss": 0.0})
        won = (self.removed == self.deal.undercover) != (seat == self.deal.undercover)
        return SeatOutcome(self.config.win_reward if won else self.config.loss_reward, won, {"loss": float(not won)})


if __name__ == "__main__":
    from ragen.env.terminal import play_in_terminal

    play_in_terminal("undercover")
