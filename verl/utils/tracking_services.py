"""Trackers that belong to other programs. Each is imported when it is asked for."""

import importlib
import netrc
import os
import secrets
from collections.abc import Mapping
from numbers import Number
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

WANDB_ID_FILE = "wandb_run_id.txt"


def _import(name: str, package: str):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"trainer.logger asks for {package}, which is not installed: pip install {package}, or leave it out"
        ) from error


def _numbers(data: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in data.items() if isinstance(value, Number) or getattr(value, "ndim", None) == 0}


class TensorboardTracker:
    """Event files in `RUN/tensorboard`, or in TENSORBOARD_DIR."""

    def __init__(self, project: str, experiment: str, config: dict, local_dir: Path):
        _import("tensorboard", "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(os.environ.get("TENSORBOARD_DIR") or str(local_dir / "tensorboard"))

    def log(self, data: Mapping[str, Any], step: int) -> None:
        for key, value in _numbers(data).items():
            self.writer.add_scalar(key, value, step)
        self.writer.flush()

    def finish(self) -> None:
        self.writer.close()


class WandbTracker:
    """Weights & Biases; offline (files in `RUN/wandb`) where no key is known.

    The run's id is kept in the run folder, so that a resumed run goes on in the same curve.
    """

    def __init__(self, project: str, experiment: str, config: dict, local_dir: Path):
        wandb = _import("wandb", "wandb")
        local_dir.mkdir(parents=True, exist_ok=True)
        id_file = local_dir / WANDB_ID_FILE
        run_id = id_file.read_text().strip() if id_file.exists() else secrets.token_hex(4)
        id_file.write_text(run_id)
        mode = os.environ.get("WANDB_MODE") or ("online" if _has_wandb_key() else "offline")
        self.run = wandb.init(
            project=project, name=experiment, config=config, dir=str(local_dir), id=run_id, resume="allow", mode=mode,
            settings=wandb.Settings(init_timeout=60, silent=True),
        )  # fmt: skip

    def log(self, data: Mapping[str, Any], step: int) -> None:
        self.run.log(dict(data), step=step)

    def finish(self) -> None:
        self.run.finish()


def _has_wandb_key() -> bool:
    """Where wandb itself looks for one: WANDB_API_KEY, then the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


class MLflowTracker:
    """MLflow, at MLFLOW_TRACKING_URI or in `RUN/mlflow.db`."""

    def __init__(self, project: str, experiment: str, config: dict, local_dir: Path):
        self.mlflow = _import("mlflow", "mlflow")
        local_dir.mkdir(parents=True, exist_ok=True)
        self.mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{local_dir.absolute() / 'mlflow.db'}")
        self.mlflow.set_experiment(project)
        self.mlflow.start_run(run_name=experiment)
        params = list(_flat(config).items())
        for start in range(0, len(params), 100):  # MLflow's limit a call
            self.mlflow.log_params({key: str(value)[:500] for key, value in params[start : start + 100]})

    def log(self, data: Mapping[str, Any], step: int) -> None:
        self.mlflow.log_metrics({key.replace("@", "_at_"): value for key, value in _numbers(data).items()}, step=step)

    def finish(self) -> None:
        self.mlflow.end_run()


class SwanLabTracker:
    """SwanLab; with SWANLAB_API_KEY in the cloud, without it in `RUN/swanlog`."""

    def __init__(self, project: str, experiment: str, config: dict, local_dir: Path):
        self.swanlab = _import("swanlab", "swanlab")
        key = os.environ.get("SWANLAB_API_KEY")
        if key:
            self.swanlab.login(key)
        self.swanlab.init(
            project=project,
            experiment_name=experiment,
            config=config,
            logdir=os.environ.get("SWANLAB_LOG_DIR") or str(local_dir / "swanlog"),
            mode=os.environ.get("SWANLAB_MODE") or ("cloud" if key else "offline"),
        )

    def log(self, data: Mapping[str, Any], step: int) -> None:
        self.swanlab.log(_numbers(data), step=step)

    def finish(self) -> None:
        self.swanlab.finish()


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}/")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
