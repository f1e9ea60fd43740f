"""The process behind ``judge.py``: reads ``[gold, pred, seconds]`` as a JSON line, writes ``1`` or ``0``.

Run as a script, with nothing of this project imported. It ends when its input does, and the kernel ends it
when a comparison has used ``seconds`` of CPU time: unlike a wall clock, that gives the same verdict on a
busy machine as on an idle one.
"""

from __future__ import annotations

import json
import logging
import re
import resource
import signal
import sys

_MEMORY_LIMIT = 4 << 30  # bytes of address space: an answer such as 9^{9^{9}} must not take the machine's
_DELIMITERS = ("$", "\\(", "\\[", "\\boxed", "\\begin{align", "\\begin{equation")
_LONGEST_FORMULA = 300  # characters
_PROSE = re.compile(r"(?:\b[A-Za-z]{2,}\s+){4}")  # as LaTeX it would be a product of letters, slow to multiply out


def readings(text: str) -> list[str]:
    """Texts to hand to math-verify, which finds LaTeX between delimiters only: an undelimited
    formula is read as LaTeX first, then as it stands."""
    text = text.replace("\\$", "")  # a currency sign, not a delimiter
    if any(d in text for d in _DELIMITERS) or len(text) > _LONGEST_FORMULA or _PROSE.search(text):
        return [text]
    return [f"${text}$", text]


def main() -> None:
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT, _MEMORY_LIMIT))
    out = sys.stdout
    sys.stdout = sys.stderr  # whatever a library prints must not be taken for a verdict
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        gold, pred, seconds = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF's default action is to end the process
        try:
            # no limits of math-verify's own: they are for the wall clock
            want = parse(readings(gold)[0], parsing_timeout=None)
            equal = any(verify(want, parse(text, parsing_timeout=None), timeout_seconds=None) for text in readings(pred))
        except Exception:  # noqa: BLE001  whatever sympy makes of a strange text, it is no right answer
            equal = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(int(equal), file=out, flush=True)


if __name__ == "__main__":
    main()
