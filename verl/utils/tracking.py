"""Where a run's metrics go: console, file, TensorBoard, wandb, MLflow, SwanLab. None of them can stop a run.

tracking = Tracking("gift", "_0_laptop", ["console", "file"], config, folder="outputs/_0_laptop")
tracking.log({"train/TicTacToe/success": 0.61}, step=3)
tracking.finish()
"""

import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from numbers import Number
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from verl.utils.secrets import mask_secrets, mask_text
from verl.utils.tracking_services import MLflowTracker, SwanLabTracker, TensorboardTracker, WandbTracker

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
GENERATIONS_FILE = "val_generations.jsonl"

#: (input, output, score) of one validation episode
Generation = tuple[str, str, float]


class Tracker(Protocol):
    """One place that metrics go to. One that can show texts has ``log_generations`` too."""

    def log(self, data: Mapping[str, Any], step: int) -> None: ...

    def finish(self) -> None: ...


class FileTracker:
    """`metrics.jsonl`: one JSON object a line and a step, flushed as it is written.

    Values are numbers, strings, or lists and dicts of them; not-a-number and infinity become null, as JSON has none.
    Validation episodes go to `val_generations.jsonl` beside it, one a line: step, input, output, score.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.generations_path = self.path.with_name(GENERATIONS_FILE)

    def log(self, data: Mapping[str, Any], step: int) -> None:
        _append(self.path, [{"step": int(step), **{key: _plain(value) for key, value in data.items() if key != "step"}}])

    def log_generations(self, samples: Sequence[Generation], step: int) -> None:
        rows = [{"step": int(step), "input": i, "output": o, "score": _plain(score)} for i, o, score in samples]
        _append(self.generations_path, rows)

    def finish(self) -> None: ...

    def read(self) -> list[dict[str, Any]]:
        """All whole lines of the file, in order."""
        lines = self.path.read_bytes().splitlines() if self.path.exists() else []
        return [row for row in map(_parse, lines) if row is not None]

    def truncate_after(self, step: int) -> int:
        """Cut the file back to the lines of steps up to `step`, as on resuming from that checkpoint; the lines left.

        A last line that a kill cut short is dropped. The file is replaced by one rename. So is val_generations.jsonl.
        """
        _cut_after(self.generations_path, step)
        return _cut_after(self.path, step)


class ConsoleTracker:
    """One log line a step."""

    def log(self, data: Mapping[str, Any], step: int) -> None:
        shown = [f"{key}:{value:.4g}" if isinstance(value, float) else f"{key}:{value}" for key, value in data.items()]
        logger.info("step:%d - %s", step, " - ".join(shown))

    def finish(self) -> None: ...


class Tracking:
    """All trackers of a run behind one `log` (VeRL's usage).

    The config is masked before any tracker sees it. A tracker that fails is named in a warning once and left alone from
    then on; the run goes on.

    Args:
        project_name, experiment_name: names shown by the services.
        default_backend: any of `supported_backend`.
        config: the run's config (dict or OmegaConf), shown by the services.
        folder: the run folder, for what is written to disk and for the id by which a resumed run goes on in the same
            wandb run; None: `trainer.default_local_dir` of the config, else the working folder.
        resume_step: the step the run goes on from. metrics.jsonl is cut back to it; 0: a fresh start, it is emptied;
            None: it is left as it is.

    Raises:
        ValueError: an unknown backend.
        ImportError: a backend that is asked for and not installed; the message says what to install.
    """

    supported_backend = ("console", "file", "tensorboard", "wandb", "mlflow", "swanlab")

    def __init__(
        self,
        project_name: str,
        experiment_name: str,
        default_backend: str | Sequence[str] = "console",
        config: Any = None,
        folder: str | os.PathLike | None = None,
        resume_step: int | None = None,
    ):
        backends = [default_backend] if isinstance(default_backend, str) else list(default_backend)
        if unknown := [name for name in backends if name not in self.supported_backend]:
            raise ValueError(f"trainer.logger: {unknown} is not supported; use some of {', '.join(self.supported_backend)}")
        config = mask_secrets(config) if config is not None else {}
        folder = Path(folder or config.get("trainer", {}).get("default_local_dir") or ".")
        run = (str(project_name), str(experiment_name), config, folder)
        make = {
            "console": lambda: ConsoleTracker(),
            "file": lambda: FileTracker(folder / METRICS_FILE),
            "tensorboard": lambda: TensorboardTracker(*run),
            "wandb": lambda: WandbTracker(*run),
            "mlflow": lambda: MLflowTracker(*run),
            "swanlab": lambda: SwanLabTracker(*run),
        }
        self.logger: dict[str, Tracker] = {}
        for name in dict.fromkeys(backends):
            self._guard(name, lambda make=make[name], name=name: self.logger.__setitem__(name, make()))
        if resume_step is not None and "file" in self.logger:
            # a run that starts at 0 plays its step 0 (the first validation) again
            self._guard("file", lambda: self.logger["file"].truncate_after(resume_step if resume_step > 0 else -1))

    def log(self, data: Mapping[str, Any], step: int, backend: str | Sequence[str] | None = None) -> None:
        """Send one step's metrics to all trackers, or to those named."""
        wanted = [backend] if isinstance(backend, str) else backend
        for name, tracker in list(self.logger.items()):
            if wanted is None or name in wanted:
                self._guard(name, lambda tracker=tracker: tracker.log(data, step))

    def log_generations(self, samples: Sequence[Generation], step: int) -> None:
        """Send validation episodes to all trackers that show texts: `val_generations.jsonl`, a table `val/generations`
        of wandb, texts of TensorBoard and SwanLab, an artifact of MLflow."""
        for name, tracker in list(self.logger.items()):
            if samples and hasattr(tracker, "log_generations"):
                self._guard(name, lambda tracker=tracker: tracker.log_generations(samples, step))

    def history(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl so far; none without the file tracker."""
        tracker = self.logger.get("file")
        return tracker.read() if isinstance(tracker, FileTracker) else []

    def finish(self) -> None:
        """Close all trackers; called once more it does nothing."""
        for name, tracker in list(self.logger.items()):
            self._guard(name, tracker.finish)
        self.logger.clear()

    def __enter__(self) -> "Tracking":
        return self

    def __exit__(self, *exc_info) -> None:
        self.finish()

    def _guard(self, name: str, action) -> None:
        """A tracker's failure is a warning and the end of that tracker. A missing package is known before the run: an error."""
        try:
            action()
        except ImportError:
            raise
        except Exception as error:
            self.logger.pop(name, None)
            logger.warning("tracker %s failed and is switched off, the run goes on: %s", name, mask_text(str(error)))


def _append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add JSON lines; a line that a kill cut short stays a line of its own."""
    with open(path, "a+b") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        for row in rows:
            file.write(json.dumps(row, allow_nan=False).encode() + b"\n")


def _cut_after(path: Path, step: int) -> int:
    """Keep the lines of steps up to `step`; how many those are."""
    if not path.exists():
        return 0
    rows = [(line, _parse(line)) for line in path.read_bytes().splitlines()]
    kept = [line for line, row in rows if row is not None and row["step"] <= step]
    beside = path.with_name(f".{path.name}.tmp")
    with open(beside, "wb") as file:
        file.write(b"".join(line + b"\n" for line in kept))
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    return len(kept)


def _plain(value: Any) -> Any:
    if isinstance(value, (bool, str)) or value is None:
        return value
    if isinstance(value, (np.generic, np.ndarray)) or hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Number):
        return value if isinstance(value, int) else (float(value) if math.isfinite(value) else None)
    raise TypeError(f"a metric is a number, a string, or a list or dict of them, not {type(value).__name__}")


def _parse(line: bytes) -> dict[str, Any] | None:
    """A line's object; None for one that was cut short or has no step."""
    try:
        row = json.loads(line)
        return row if isinstance(row["step"], int) else None
    except (ValueError, KeyError, TypeError):
        return None
