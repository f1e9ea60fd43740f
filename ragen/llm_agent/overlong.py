"""What becomes of replies that ran into their token limit: ``agent_proxy.overlong_replies``."""

from __future__ import annotations

from dataclasses import dataclass

from ragen.llm_agent.trajectory import Turn

MODES = ("keep", "mask", "penalise")


@dataclass(frozen=True)
class OverlongRule:
    """``keep``: trained like any other. ``mask``: a reply cut at its limit is not trained (DAPO's overlong
    filtering, arXiv:2503.14476); what it earned still counts in its episode's reward. ``penalise``: DAPO's soft
    punishment, subtracted from the turn's reward: ``penalty_factor`` for a reply of full length or cut, and over the
    last ``buffer`` tokens below the limit its linear share (0: none)."""

    mode: str = "keep"
    buffer: int = 0
    penalty_factor: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"agent_proxy.overlong_replies must be one of {', '.join(MODES)}, got {self.mode!r}")

    def penalty(self, tokens: int, cut: bool, limit: int) -> float:
        """What a reply of ``tokens`` under ``limit`` costs, at least 0."""
        if self.mode != "penalise":
            return 0.0
        share = 1.0 if cut else (tokens - (limit - self.buffer)) / self.buffer if self.buffer else 0.0
        return self.penalty_factor * min(max(share, 0.0), 1.0)

    def apply(self, turn: Turn, limit: int) -> None:
        """Once the turn's own reward is known; ``limit``: tokens that a reply may have."""
        turn.reward -= self.penalty(turn.end - turn.start, turn.cut_at_limit, limit)
        turn.trained = not (self.mode == "mask" and turn.cut_at_limit)
