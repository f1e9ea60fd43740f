"""Is an answer right? Read and compared under a time limit, in processes that can be killed.

sympy can run for minutes on a hostile answer (``9^{9^{9}}``), and a limit by signal works on the main thread only. So
whatever is not settled by equal texts or whole numbers goes to a few worker processes (``judge_worker.py``); one that
exceeds its time is killed, and the answer counts as wrong. What happens here takes time linear in the answer. Limits
are CPU time, so that verdicts (and with them a run) do not depend on how busy the machine is.

``final_answer.py`` finds the answer in a text, ``answer_form.py`` reads its structure, ``answer_compare.py`` compares.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

logger = logging.getLogger(__name__)

_WORKER = "ragen.env.math_lv3to5.judge_worker"
_ROOT = Path(__file__).parents[3]
_START_LIMIT = 120.0  # seconds for a worker to import sympy on a busy machine
_WALL_FACTOR = 30.0  # wall-clock seconds a second of CPU time may take before the worker counts as stuck
_MAX_CHARS = 20_000  # a longer answer is no answer

_RATIONAL = re.compile(r"([+-]?\d{1,400})(?:/(\d{1,400}))?|([+-]?)\\frac\{(-?\d{1,400})\}\{(\d{1,400})\}")
_DIGIT = re.compile(r"\d")
_FRACTIONS = (("\\dfrac", "\\frac"), ("\\tfrac", "\\frac"))


def judge(gold: str, pred: str, timeout: float = 5.0) -> bool:
    """Whether ``pred`` says the same as ``gold`` (LaTeX or plain text, ``\\boxed{}`` allowed in both).

    ``timeout``: seconds of CPU time for the comparison; an undecided one is ``False`` and logged.
    Safe to call from any thread.
    """
    quick = exact_verdict(gold, pred)
    return _pool().compare(gold, pred, timeout) if quick is None else quick


def judge_many(pairs: Sequence[tuple[str, str]], timeout: float = 5.0) -> list[bool]:
    """:func:`judge` of every (gold, pred), several at a time."""
    with ThreadPoolExecutor(max_workers=JudgePool.SIZE) as threads:
        return list(threads.map(lambda pair: judge(*pair, timeout), pairs))


def exact_verdict(gold: str, pred: str) -> bool | None:
    """The verdict where none but exact means are needed, else ``None``: equal texts (a box, dollar signs, spacing next
    to signs, the case of words aside) are right, two whole numbers or fractions are compared as such; an empty or
    overlong answer is wrong, and so is one without a digit where a number is asked for."""
    if not pred.strip() or len(pred) > _MAX_CHARS:
        return False
    left, right = _bare(gold), _bare(pred)
    if left and left == right:
        return True
    a, b = _rational(left), _rational(right)
    if a is not None and (b is not None or not _DIGIT.search(right)):
        return a == b
    return None


def _bare(text: str) -> str:
    """Without what surrounds an answer, and without space next to a sign. Space between words or digits is kept
    (``1 1/2`` is not ``11/2``, ``\\pi r`` not ``\\pir``)."""
    text = text.strip().removesuffix(".").strip("$ \t\n")
    for opening, closing in (("\\(", "\\)"), ("\\[", "\\]"), ("\\boxed{", "}"), ("\\text{", "}")):
        inner = text[len(opening) : -len(closing)]
        if text.startswith(opening) and text.endswith(closing) and not set("{}$") & set(inner):
            text = inner.strip()
    for spelling, usual in _FRACTIONS:
        text = text.replace(spelling, usual)
    words, joined = text.split(), ""
    for word in words:
        if joined and joined[-1].isalnum() and (word[0].isalnum() or word[0] == "\\"):
            joined += " "
        joined += word
    return joined.casefold() if len(joined) > 1 and joined.replace(" ", "").isalpha() else joined


def _rational(text: str) -> Fraction | None:
    match = _RATIONAL.fullmatch(text)
    if not match:
        return None
    top, bottom = (match[1], match[2] or "1") if match[1] else (match[3] + match[4], match[5])
    if top.startswith(("--", "+-")) or int(bottom) == 0:
        return None
    return Fraction(int(top), int(bottom))


class _Worker:
    """One process that compares, one pair at a time."""

    def __init__(self) -> None:
        path = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", _WORKER],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path)},
        )
        self._buffer = b""
        if self._read_line(_START_LIMIT) is None:
            self.kill()
            raise RuntimeError(
                f"the math judge did not start within {_START_LIMIT:.0f} s: check that `import latex2sympy2_extended` (of math-verify) works in {sys.executable}"
            )

    def ask(self, gold: str, pred: str, timeout: float) -> bool | None:
        """The verdict; ``None`` if it took too long or the process died."""
        try:
            self.process.stdin.write(json.dumps([gold, pred, timeout]).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        line = self._read_line(timeout * _WALL_FACTOR)
        return None if line is None else line == b"1"

    def _read_line(self, timeout: float) -> bytes | None:
        fd, deadline = self.process.stdout.fileno(), time.monotonic() + timeout
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(fd, 4096) if ready else b""
            if not chunk:  # out of time, or the process is gone
                return None
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class JudgePool:
    """Up to :attr:`SIZE` workers, started when needed, replaced when killed. ``undecided`` counts
    comparisons that ran out of time or killed their worker."""

    SIZE = 2

    def __init__(self) -> None:
        self.undecided = 0
        self._idle: list[_Worker] = []
        self._lock, self._room = threading.Lock(), threading.Semaphore(self.SIZE)

    def compare(self, gold: str, pred: str, timeout: float) -> bool:
        with self._room:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            worker = worker or _Worker()
            verdict = None
            try:
                verdict = worker.ask(gold, pred, timeout)
            finally:  # also when interrupted: a worker with a reply still to come must not be used again
                if verdict is None:
                    worker.kill()
                else:
                    with self._lock:
                        self._idle.append(worker)
            if verdict is None:
                with self._lock:
                    self.undecided += 1
                logger.warning("math judge: undecided after %.1f s of CPU time, counted as wrong: %.80r against %.80r", timeout, pred, gold)
            return bool(verdict)

    def close(self) -> None:
        with self._lock:
            workers, self._idle = self._idle, []
        for worker in workers:
            worker.kill()


_pools: dict[int, JudgePool] = {}
_pools_lock = threading.Lock()


def _pool() -> JudgePool:
    """This process's pool; a forked child must not share its parent's pipes, hence by process id."""
    with _pools_lock:
        if os.getpid() not in _pools:
            _pools.clear()
            _pools[os.getpid()] = JudgePool()
            atexit.register(_pools[os.getpid()].close)
        return _pools[os.getpid()]
