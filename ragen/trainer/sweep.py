"""Several runs of one command, as Hydra's basic sweeper makes them: ``train.py -m seed.train=1,2 algorithm.adv_estimator=grpo,rloo``.

Runs follow one another, each a process and a folder of its own: ``trainer.default_local_dir`` with what
distinguishes the run below it. A run that fails does not keep the others from theirs.
"""

from __future__ import annotations

import itertools
import logging
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ragen.trainer.config import compose
from verl.utils.config_check import ConfigError

log = logging.getLogger(__name__)

_FOLDER = "trainer.default_local_dir"


def expand(overrides: Sequence[str]) -> list[tuple[list[str], str]]:
    """Every combination of swept values: (overrides of the run, what distinguishes it, ``""`` where nothing is swept).

    Raises :class:`ConfigError` for an override that Hydra cannot read.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError([str(error)]) from error
    choices = []
    for item in parsed:
        key = item.input_line.split("=", 1)[0]
        choices.append([(f"{key}={value}", True) for value in item.sweep_string_iterator()] if item.is_sweep_override() else [(item.input_line, False)])
    runs = []
    for combination in itertools.product(*choices):
        swept = [text.lstrip("+") for text, is_swept in combination if is_swept]
        runs.append(([text for text, _ in combination], ",".join(swept).replace("/", "_")))
    return runs


def run_all(command: Sequence[str], config_name: str, overrides: Sequence[str]) -> int:
    """Run ``command`` (without ``-m``) once for every combination; the first exit status that is not 0."""
    status, runs = 0, expand(overrides)
    for number, (chosen, name) in enumerate(runs, 1):
        if name and f"{_FOLDER}=" not in name:
            folder = Path(compose(config_name, chosen).trainer.default_local_dir)
            chosen = [*(text for text in chosen if not text.lstrip("+").startswith(f"{_FOLDER}=")), f"{_FOLDER}={_quoted(folder / name)}"]
        log.info("run %d of %d: %s", number, len(runs), name or "nothing is swept")
        ended = subprocess.run([*command, "--config-name", config_name, *chosen], check=False).returncode
        if ended:
            log.error("run %d of %d (%s) ended with status %d", number, len(runs), name, ended)
        status = status or ended
    return status


def _quoted(path: Path) -> str:
    """A path as a Hydra value: one with commas or equals signs has to be quoted."""
    text = str(path).replace("'", "\\'")
    return f"'{text}'"
