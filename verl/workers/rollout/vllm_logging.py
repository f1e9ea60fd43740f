"""vLLM's log in a file: what it says of the KV cache, the all-reduce and sleep belongs to a run, not to its console."""

from __future__ import annotations

import logging
from pathlib import Path

from verl.utils.secrets import MaskingFilter


def log_to_file(path: str | Path, level: int = logging.INFO) -> None:
    """Send what vLLM logs from ``level`` on to ``path`` (appended), and errors alone to the console as well. Call it
    before an engine is built; a second engine of the process shares the file."""
    import vllm.logger  # noqa: F401  sets up the logger's own handlers

    target, logger = Path(path).absolute(), logging.getLogger("vllm")
    logger.setLevel(level)
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            if handler.baseFilename == str(target):
                return
        else:
            handler.setLevel(logging.ERROR)
    target.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(target, encoding="utf-8")
    handler.setLevel(level)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(MaskingFilter())
    logger.addHandler(handler)
