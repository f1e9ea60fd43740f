"""vLLM's log in a file: what it says of the KV cache, the all-reduce and sleep belongs to a run, not to its console.

vLLM sets up its loggers anew with every engine (``dictConfig``), so handlers that somebody added are lost: it is given a
configuration of Python's ``logging`` to set them up by (``VLLM_LOGGING_CONFIG_PATH``).
"""

from __future__ import annotations

import json
from pathlib import Path


def config_path(log_file: str | Path) -> str:
    """Where the configuration for ``log_file`` lies: next to it."""
    return f"{Path(log_file).absolute()}.json"


def write_log_config(log_file: str | Path) -> None:
    """Write :func:`config_path`: INFO and above to ``log_file`` (appended, secrets masked), errors to the console too."""
    handlers = {
        "file": {
            "class": "logging.FileHandler", "filename": str(Path(log_file).absolute()), "encoding": "utf-8", "level": "INFO",
            "formatter": "plain", "filters": ["secrets"],
        },
        "console": {"class": "logging.StreamHandler", "level": "ERROR", "formatter": "plain", "filters": ["secrets"]},
    }  # fmt: skip
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"secrets": {"()": "verl.utils.secrets.MaskingFilter"}},
        "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
        "handlers": handlers,
        "loggers": {"vllm": {"handlers": list(handlers), "level": "INFO", "propagate": False}},
    }
    path = Path(config_path(log_file))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config, indent=1), encoding="utf-8")
