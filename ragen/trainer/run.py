"""Around the trainer: the run folder, Ray, restarts after a dead worker, and a clean end on Ctrl-C."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
from pathlib import Path

from omegaconf import OmegaConf

from ragen.trainer.agent_trainer import AgentTrainer
from ragen.trainer.rollout_filter import EmptyAfterFilter
from ragen.trainer.worker_setup import START_WAIT_S, ray_session
from ragen.workers.playing import chat_of
from verl.single_controller.ray import ResourcesUnavailable, WorkerDied
from verl.utils.checkpoint import CheckpointError
from verl.utils.checkpoint.checkpoint_manager import get_checkpoint_tracker_filename
from verl.utils.config_check import ConfigError
from verl.utils.secrets import mask_secrets, mask_text
from verl.utils.tokenizer import hf_tokenizer

log = logging.getLogger(__name__)


def run(config, plan) -> int:
    """Train as ``config`` says; the process's exit status. What a user can mend is one sentence on
    stderr; whatever happens, Ray is ended."""
    signal.signal(signal.SIGTERM, _as_interrupt)
    signal.signal(signal.SIGINT, _as_interrupt)  # a shell starts background jobs with SIGINT ignored
    try:
        write_config(config)
        check_chat(config)
        with ray_session(config):
            _train_with_restarts(config, plan)
        return 0
    except KeyboardInterrupt:
        print(f"\ninterrupted; the same command goes on from the last checkpoint in {config.trainer.default_local_dir}", file=sys.stderr)
        return 130
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except (CheckpointError, EmptyAfterFilter, ResourcesUnavailable, WorkerDied) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def check_chat(config) -> None:
    """The tokenizer and its chat template, before anything starts. Raises :class:`ConfigError`."""
    model = config.actor_rollout_ref.model
    try:
        chat_of(config, hf_tokenizer(model.path, trust_remote_code=bool(model.trust_remote_code)))
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError([f"actor_rollout_ref.model.path = {model.path}: {error}"]) from error


def write_config(config) -> None:
    """The resolved configuration, secrets masked, as ``RUN/config.yaml``."""
    folder = Path(config.trainer.default_local_dir)
    folder.mkdir(parents=True, exist_ok=True)
    resolved = mask_secrets(OmegaConf.to_container(config, resolve=True))
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(resolved)), encoding="utf-8")


def _train_with_restarts(config, plan) -> None:
    left = int(config.trainer.max_restarts)
    wait_s = START_WAIT_S
    saved_before = _last_save(config)
    while True:
        trainer = AgentTrainer(config, plan)
        try:
            trainer.fit(wait_s)
            return
        except WorkerDied as death:
            if not left:
                raise
            left -= 1
            wait_s = float(config.trainer.restart_wait_s)
            log.error("%s; starting new workers from the last checkpoint (%d restarts left)", death, left)
            if _last_save(config) != saved_before:  # before this run's first checkpoint: start as it did
                config = OmegaConf.merge(config, {"trainer": {"resume_mode": "auto"}})
        except ResourcesUnavailable as error:
            if left == int(config.trainer.max_restarts):
                raise
            raise ResourcesUnavailable(f"{error} {_ways_on(config, error.found)}") from error
        finally:
            if trainer.workers is not None:
                trainer.workers.kill()


def _last_save(config) -> int | None:
    """When the run folder's last checkpoint was named; ``None``: there is none."""
    tracker = Path(get_checkpoint_tracker_filename(config.trainer.default_local_dir))
    return tracker.stat().st_mtime_ns if tracker.is_file() else None


def _ways_on(config, nodes: int, argv: list[str] | None = None) -> str:
    """What to type once a lost node was waited for in vain and ``nodes`` are left."""
    argv = [word for word in (sys.argv if argv is None else argv) if not word.startswith("trainer.nnodes=")]
    again = "Nothing has taken the lost node's place (trainer.restart_wait_s): the same command goes on once something has"
    split = not config.actor_rollout_ref.hybrid_engine  # its rollout workers have nodes of their own
    if split or not 0 < nodes < config.trainer.nnodes:
        return f"{again}."
    fewer = mask_text(shlex.join(["python", *argv, f"trainer.nnodes={nodes}"]))
    return f"{again}; with what is left: {fewer}"


def _as_interrupt(signum, frame) -> None:
    raise KeyboardInterrupt
