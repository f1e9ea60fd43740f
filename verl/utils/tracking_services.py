"""Trackers that belong to other programs. Each is imported when it is asked for."""

import importlib
import netrc
import os
import secrets
from collections.abc import Mapping, Sequence
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

    def log_generations(self, samples: Sequence[tuple[str, str, float]], step: int) -> None:
        self.writer.add_text("val/generations", _as_markdown(samples), step)
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
        self._generations: list[list] = []

    def log(self, data: Mapping[str, Any], step: int) -> None:
        self.run.log(dict(data), step=step)

    def log_generations(self, samples: Sequence[tuple[str, str, float]], step: int) -> None:
        """A row a validation, three columns an episode, as VeRL's table has them."""
        columns = ["step", *(f"{name}_{i + 1}" for i in range(len(samples)) for name in ("input", "output", "score"))]
        row = [step, *(value for sample in samples for value in sample)]
        # all rows so far: a table that was logged cannot be added to
        self._generations = [kept for kept in self._generations if len(kept) == len(row)] + [row]
        table = _import("wandb", "wandb").Table(columns=columns, data=self._generations)
        self.run.log({"val/generations": table}, step=step)

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

    def log_generations(self, samples: Sequence[tuple[str, str, float]], step: int) -> None:
        rows = [{"input": i, "output": o, "score": score} for i, o, score in samples]
        self.mlflow.log_dict({"generations": rows}, f"val_generations/step_{step:06d}.json")

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

    def log_generations(self, samples: Sequence[tuple[str, str, float]], step: int) -> None:
        texts = [self.swanlab.Text(f"{i}\n\n{o}", caption=f"score {score:g}") for i, o, score in samples]
        self.swanlab.log({"val/generations": texts}, step=step)

    def finish(self) -> None:
        self.swanlab.finish()


def _as_markdown(samples: Sequence[tuple[str, str, float]]) -> str:
    """Texts as indented blocks, so that nothing in them is read as Markdown or HTML."""

    def block(text: str) -> str:
        return "\n".join(f"    {line}" for line in text.splitlines())

    return "\n\n".join(f"**score {score:g}**\n\n{block(i)}\n\n{block(o)}" for i, o, score in samples)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}/")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
