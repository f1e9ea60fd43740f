"""The process behind ``judge.py``: reads ``[gold, pred, seconds]`` as a JSON line, writes ``1`` or ``0``.

It ends when its input does, and the kernel ends it when a comparison has used ``seconds`` of CPU time: unlike a wall
clock, that gives the same verdict on a busy machine as on an idle one. All that is parsed of a model's text is parsed here.
"""

from __future__ import annotations

import json
import logging
import resource
import signal
import sys

from ragen.env.math_lv3to5.answer_compare import same_answer

_MEMORY_LIMIT = 4 << 30  # bytes of address space: an answer such as 9^{9^{9}} must not take the machine's


def main() -> None:
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT, _MEMORY_LIMIT))
    out = sys.stdout
    sys.stdout = sys.stderr  # whatever a library prints must not be taken for a verdict
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        gold, pred, seconds = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF's default action is to end the process
        try:
            equal = same_answer(gold, pred)
        except Exception:  # noqa: BLE001  whatever sympy makes of a strange text, it is no right answer
            equal = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(int(equal), file=out, flush=True)


if __name__ == "__main__":
    main()
