"""Around the trainer: the run folder, Ray, restarts after a dead worker, and a clean end on Ctrl-C."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path

from omegaconf import OmegaConf

from ragen.trainer.agent_trainer import AgentTrainer
from ragen.trainer.rollout_filter import EmptyAfterFilter
from ragen.trainer.worker_setup import ray_session
from verl.single_controller.ray import WorkerDied
from verl.utils.checkpoint import CheckpointError
from verl.utils.secrets import mask_secrets

log = logging.getLogger(__name__)


def run(config, plan) -> int:
    """Train as ``config`` says; the process's exit status. What a user can mend is one sentence on
    stderr; whatever happens, Ray is ended."""
    signal.signal(signal.SIGTERM, _as_interrupt)
    signal.signal(signal.SIGINT, _as_interrupt)  # a shell starts background jobs with SIGINT ignored
    try:
        write_config(config)
        with ray_session(config):
            _train_with_restarts(config, plan)
        return 0
    except KeyboardInterrupt:
        print(f"\ninterrupted; the same command goes on from the last checkpoint in {config.trainer.default_local_dir}", file=sys.stderr)
        return 130
    except (CheckpointError, EmptyAfterFilter, WorkerDied) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def write_config(config) -> None:
    """The resolved configuration, secrets masked, as ``RUN/config.yaml``."""
    folder = Path(config.trainer.default_local_dir)
    folder.mkdir(parents=True, exist_ok=True)
    resolved = mask_secrets(OmegaConf.to_container(config, resolve=True))
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(resolved)), encoding="utf-8")


def _train_with_restarts(config, plan) -> None:
    left = int(config.trainer.max_restarts)
    while True:
        trainer = AgentTrainer(config, plan)
        try:
            trainer.fit()
            return
        except WorkerDied as death:
            if not left:
                raise
            left -= 1
            log.error("%s; starting new workers from the last checkpoint (%d restarts left)", death, left)
            config = OmegaConf.merge(config, {"trainer": {"resume_mode": "auto"}})
        finally:
            if trainer.workers is not None:
                trainer.workers.kill()


def _as_interrupt(signum, frame) -> None:
    raise KeyboardInterrupt
