"""What one trained seat produced, as tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: how an episode ended
FINISHED, UNFINISHED, TRUNCATED, ABORTED = "finished", "unfinished", "truncated", "aborted"
#: an invalid reply ended it (``EpisodeLimits.forfeit_on_invalid``)
FORFEIT = "forfeit"


@dataclass
class Turn:
    """One reply of the policy within a sample.

    ``start``/``end``: half-open range of its tokens in the sample's ids; the last of them was sampled, and all
    but ``given`` of them (see ``Sample.mask``). ``reply``: its text, which begins with ``opening``, what the
    generation prompt wrote of it. ``reward``: what the turn earned (verdict, format penalty; the last turn of a
    trajectory also carries the result of the game). ``valid``: format and rules accepted it. ``trained``: its
    sampled tokens enter the loss.
    """

    start: int
    end: int
    reply: str
    prompt: str = ""
    reward: float = 0.0
    valid: bool = True
    effective: bool = True
    feedback: str = ""
    public: Any = None
    cut_at_limit: bool = False
    opening: str = ""
    given: int = 0
    trained: bool = True

    @property
    def sampled_tokens(self) -> int:
        return self.end - self.start - self.given


@dataclass
class Sample:
    """One sequence to train on. ``ids``: every token in order (length T). ``mask``: True exactly on
    the tokens that the policy sampled. ``logprobs``: the engine's log-probability of each sampled
    token, 0.0 elsewhere. The three lists have one length."""

    ids: list[int] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)

    def trained(self) -> list[bool]:
        """``mask`` without the turns that are not trained."""
        kept = list(self.mask)
        for turn in self.turns:
            if not turn.trained:
                kept[turn.start : turn.end] = [False] * (turn.end - turn.start)
        return kept

    def cut_after_last_turn(self) -> None:
        """Drop a prompt that was never answered (it did not fit)."""
        end = self.turns[-1].end if self.turns else 0
        del self.ids[end:], self.mask[end:], self.logprobs[end:]


@dataclass
class Trajectory:
    """All that one agent (a trained seat; in a nest, the trained seats of the sub-tasks in turn) did
    in one episode; ``seat`` and ``role`` are those of the last. One :class:`Sample` where the context only grew, one a turn otherwise."""

    tag: str
    group: int
    member: int
    agent: int
    seed: int
    seat: int
    role: str = ""
    opponent: str = ""
    samples: list[Sample] = field(default_factory=list)
    status: str = FINISHED
    reward: float = 0.0
    success: bool = False
    metrics: dict[str, float] = field(default_factory=dict)
    messages: list[dict] = field(default_factory=list)
    policy_version: int = 0  # of the weights that sampled it; differences count updates
    error: str = ""

    @property
    def turns(self) -> list[Turn]:
        return [turn for sample in self.samples for turn in sample.turns]

    @property
    def key(self) -> tuple[int, int, int]:
        """Order in which everything looks at trajectories."""
        return (self.group, self.member, self.agent)
