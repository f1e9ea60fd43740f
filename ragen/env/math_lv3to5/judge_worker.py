"""The process behind ``judge.py``: reads ``[gold, pred]`` as a JSON line, writes ``1`` or ``0``.

Run as a script, with nothing of this project imported. It ends when its input does.
"""

from __future__ import annotations

import json
import logging
import resource
import sys

_MEMORY_LIMIT = 4 << 30  # bytes of address space: an answer such as 9^{9^{9}} must not take the machine's
_DELIMITERS = ("$", "\\(", "\\[", "\\boxed", "\\begin{align", "\\begin{equation")


def readings(text: str) -> list[str]:
    """Texts to hand to math-verify, which finds LaTeX between delimiters only: an undelimited
    text is read as LaTeX first, then as it stands."""
    text = text.replace("\\$", "")  # a currency sign, not a delimiter
    return [text] if any(d in text for d in _DELIMITERS) else [f"${text}$", text]


def main() -> None:
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT, _MEMORY_LIMIT))
    out = sys.stdout
    sys.stdout = sys.stderr  # whatever a library prints must not be taken for a verdict
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        gold, pred = json.loads(line)
        try:
            # no limits of its own: the parent kills this process
            want = parse(readings(gold)[0], parsing_timeout=None)
            equal = any(verify(want, parse(text, parsing_timeout=None), timeout_seconds=None) for text in readings(pred))
        except Exception:  # noqa: BLE001  whatever sympy makes of a strange text, it is no right answer
            equal = False
        print(int(equal), file=out, flush=True)


if __name__ == "__main__":
    main()
