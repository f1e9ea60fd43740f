"""Who sits where: the entries of a ``player_info`` list and the seats of a game.

An *agent* is the policy as one player of an episode. Agents are numbered: the trained seats first, then
the seats that the policy plays against itself, each in order of seats. In a nest an agent keeps its
number from one sub-task to the next, whatever seat each of them gives it, and takes no part in
sub-tasks that have no such seat. The episode, a nest's accounts and the plan all count by this rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Entries = Sequence[Mapping[str, Any]]
#: ``seating(seats, trained, entries)``: seats in the order in which their players are numbered
Seating = Callable[[int, Sequence[int], Entries], tuple[int, ...]]


def is_self(entry: Mapping[str, Any] | None) -> bool:
    """Whether an entry stands for the policy itself (self-play), not for a checkpoint of it."""
    return bool(entry) and entry.get("type") == "policy" and not entry.get("checkpoint")


def other_seats(seats: int, trained: Sequence[int]) -> list[int]:
    """The seats that are not trained, in order."""
    return [seat for seat in range(seats) if seat not in trained]


def entry_of(seat: int, seats: int, trained: Sequence[int], entries: Entries) -> Mapping[str, Any] | None:
    """The entry that plays ``seat``: one a seat, the last serves any further seat. ``None`` for a trained
    seat, and where there are no entries."""
    if seat in trained or not entries:
        return None
    return entries[min(other_seats(seats, trained).index(seat), len(entries) - 1)]


def agent_seats(seats: int, trained: Sequence[int], entries: Entries) -> tuple[int, ...]:
    """The agents' seats: trained ones, then those of self-play."""
    return (*trained, *(s for s in other_seats(seats, trained) if is_self(entry_of(s, seats, trained, entries))))


def player_seats(seats: int, trained: Sequence[int], entries: Entries = ()) -> tuple[int, ...]:
    """All seats, the trained ones first: whoever sits in the n-th other seat is one player throughout a nest."""
    return (*trained, *other_seats(seats, trained))


def by_seat(seats: int, trained: Sequence[int], entries: Entries = ()) -> tuple[int, ...]:
    """All seats as they are numbered: who has seat 1 in one sub-task of a nest has it in the next."""
    return tuple(range(seats))
