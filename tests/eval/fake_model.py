"""A replier that is a function, for what an engine would do on a bad day."""

from __future__ import annotations

from collections.abc import Callable

from ragen.eval.questions import Answer, Request


class FunctionReplier:
    """``answer(request)`` gives text or an :class:`Answer`. ``chunks`` counts chunks begun; ``on_chunk`` is
    called with that number."""

    counts_tokens = True

    def __init__(self, answer: Callable[[Request], str | Answer], on_chunk: Callable[[int], None] = lambda number: None):
        self.identity = {"kind": "function"}
        self._answer, self._on_chunk, self.chunks = answer, on_chunk, 0

    def new_chunk(self) -> None:
        self.chunks += 1
        self._on_chunk(self.chunks)

    def reply(self, requests, bench, settings, on_done) -> list[Answer]:
        said = [self._answer(request) for request in requests]
        return [Answer(one, tokens=(10, len(one))) if isinstance(one, str) else one for one in said]

    def tokens(self) -> tuple[int, int]:
        return (0, 0)
