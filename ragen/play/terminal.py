"""The table in the terminal."""

from __future__ import annotations

from collections.abc import Callable

from ragen.play.game import Move, Result, Stopped, Table
from ragen.players.base import SeatView

_QUIT = ("quit", "exit", "q")


class TerminalTable(Table):
    """``ask(prompt)`` reads a line, ``say(text)`` shows one. ``show_thoughts``: the model's at once
    instead of after the game (they may tell what the person should not know)."""

    def __init__(self, read: Callable[[str], str] | None = None, say: Callable[[str], None] = print, show_thoughts: bool = False):
        self._read, self._say, self._show_thoughts = read or input, say, show_thoughts
        self._rules = ""
        self._asked = False

    def ask(self, view: SeatView) -> str:
        if not self._asked:
            self._say(f"You have seat {view.seat}. Type your answer, or q to stop.\n")
        if view.rules and view.rules != self._rules:  # once, and again when a nest moves on
            self._say(view.rules.rstrip("\n"))
        self._asked, self._rules = True, view.rules
        if not view.attempt:
            self._say(view.observation)
        while True:
            try:
                answer = self._read("> ").strip()
            except (EOFError, KeyboardInterrupt):
                raise Stopped from None
            if answer.lower() in _QUIT:
                raise Stopped
            if answer:
                return answer

    def moved(self, move: Move) -> None:
        if move.prompt:  # a game that the person only watches
            self._say(f"The model is told:\n{_indented(move.prompt)}")
        if self._show_thoughts and move.thought:
            self._say(f"The model thinks: {move.thought}")
        if not move.mine:
            self._say(f"The model (seat {move.seat}) answers {move.answer}")
        if move.feedback:
            self._say(f"({move.feedback})" if move.mine else f"(the model is told: {move.feedback})")

    def over(self, result: Result) -> None:
        if result.last:
            self._say(result.last)
        self._say(result.sentence)
        if result.thoughts and not self._show_thoughts:
            self._say("What it thought:")
            for move in result.thoughts:
                self._say(f"  {move.answer}: {move.thought}")


def _indented(text: str) -> str:
    return "\n".join("  " + line for line in text.splitlines())
