"""The live display of a training run: a task a row, sparklines, time left, warnings.

In a terminal it is one panel that stays at the bottom while log lines scroll above it; elsewhere
(a file, a pipe, ``TERM=dumb``) it is one log line a step. It draws when it is told something and
never otherwise, so it costs the run nothing, and a fault of its own never reaches the run.
"""

from __future__ import annotations

import functools
import logging
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ragen.report.warnings import RunWarning, current_warnings, is_training_row, number, training_tags

log = logging.getLogger("ragen.console")

_BARS = "▁▂▃▄▅▆▇█"
#: steps whose mean time tells the time left
_PACE = 10
#: (metric, name, format) of the line about the policy
_POLICY = (
    ("actor/entropy", "entropy", "{:.3f}"),
    ("actor/ppo_kl", "kl", "{:.1e}"),
    ("actor/pg_clipfrac", "clipped", "{:.1%}"),
    ("actor/grad_norm", "grad norm", "{:.2f}"),
    ("rollout/response_length", "reply tokens", "{:.0f}"),
    ("rollout/invalid", "invalid", "{:.0%}"),
    ("rollout/logprob_diff_max", "engine gap", "{:.0e}"),
)


def sparkline(values: Sequence[float | None], width: int = 24, lo: float | None = None, hi: float | None = None) -> str:
    """``values`` in at most ``width`` characters, neighbours averaged; gaps and values that are not
    finite are spaces. ``lo`` and ``hi`` fix the scale, otherwise it is the values' own."""
    finite = [v for v in values if v is not None and math.isfinite(v)]
    if not finite or width < 1:
        return ""
    lo, hi = min(finite) if lo is None else lo, max(finite) if hi is None else hi
    n, out = len(values), []
    for i in range(min(width, n)):
        cell = values[i * n // min(width, n) : max((i + 1) * n // min(width, n), i * n // min(width, n) + 1)]
        cell = [v for v in cell if v is not None and math.isfinite(v)]
        if not cell:
            out.append(" ")
            continue
        level = (sum(cell) / len(cell) - lo) / (hi - lo) if hi > lo else 0.5
        out.append(_BARS[min(len(_BARS) - 1, max(0, int(level * len(_BARS))))])
    return "".join(out)


def duration(seconds: float) -> str:
    """``3725`` -> ``"1h 02m"``."""
    seconds = int(max(0, seconds))
    if seconds < 60:
        return f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}m {seconds:02d}s"
    return f"{minutes // 60}h {minutes % 60:02d}m"


def _harmless(method: Callable) -> Callable:
    """A display that fails says so once and goes quiet; the run goes on."""

    @functools.wraps(method)
    def guarded(self, *args, **kwargs):
        try:
            return method(self, *args, **kwargs)
        except Exception:
            if not self._broken:
                self._broken = True
                log.exception("the console display failed and goes on as plain lines")
            self._stop_live()
            return None

    return guarded


class TrainDisplay:
    """Shows a run as it goes::

        with TrainDisplay(total_steps=60, run_name="laptop") as display:
            display.phase("playing")
            display.update(step, metrics)     # one row of metrics.jsonl
            display.message("saved global_step_20")

    ``history``: rows of the run so far (a resumed run), so that sparklines and warnings know how it
    began. ``console``: for tests; by default standard error, live when that is a terminal.
    """

    def __init__(self, total_steps: int, run_name: str, *, history: Sequence[Mapping] = (), console: Console | None = None):
        self.total_steps, self.run_name = int(total_steps), str(run_name)
        self.history: list[Mapping] = list(history)
        self.warnings: list[RunWarning] = []
        self.step = int(self.history[-1].get("step", 0)) if self.history else 0
        self._console = console or Console(stderr=True)
        self._phase, self._times = "starting", []
        self._started = self._last = time.monotonic()
        self._live: Live | None = None
        self._moved_handlers: list[tuple[logging.StreamHandler, object]] = []
        self._broken = False

    # -- life -----------------------------------------------------------------------------------

    @_harmless
    def _start(self) -> None:
        self._last = time.monotonic()
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(self._panel(), console=self._console, auto_refresh=False, transient=False)
            self._live.start()
            self._move_log_handlers()

    def _move_log_handlers(self) -> None:
        """Log handlers keep the stream they were made with; give them the one that Live wraps, so
        that their lines appear above the panel instead of through it."""
        for handler in logging.getLogger().handlers:
            if type(handler) is logging.StreamHandler and handler.stream in (sys.__stderr__, sys.__stdout__):
                self._moved_handlers.append((handler, handler.stream))
                handler.setStream(sys.stderr)

    def _stop_live(self) -> None:
        live, self._live = self._live, None
        for handler, stream in self._moved_handlers:
            handler.setStream(stream)
        self._moved_handlers = []
        if live is not None:
            try:
                live.stop()
            except Exception:
                log.debug("stopping the live display failed", exc_info=True)

    def __enter__(self) -> TrainDisplay:
        self._start()
        return self

    def __exit__(self, exc_type, exc, tb) -> None:
        self._phase = "done" if exc_type is None else f"stopped by {exc_type.__name__}"
        self._draw()
        self._stop_live()

    # -- what the trainer tells it ----------------------------------------------------------------

    @_harmless
    def update(self, step: int, metrics: Mapping[str, object]) -> None:
        """A step is done. ``metrics``: its row of ``metrics.jsonl`` (``step`` may be missing)."""
        row = {**metrics, "step": int(step)}
        now = time.monotonic()
        if is_training_row(row):
            self._times = [*self._times, number(row, "timing_s/step") or now - self._last][-_PACE:]
        self._last, self.step = now, int(step)
        self.history.append(row)
        before = {w.code for w in self.warnings}
        self.warnings = current_warnings(self.history)
        if self._live is None:
            log.info("%s", self._line(row))
        for warning in self.warnings:
            if warning.code not in before:
                self._say(f"{warning.title}. {warning.text} {warning.remedy}", logging.WARNING)
        self._draw()

    @_harmless
    def phase(self, name: str) -> None:
        """What the run is doing now, e.g. ``"playing"``. Plain logs leave it out."""
        self._phase = str(name)
        self._draw()

    @_harmless
    def message(self, text: str) -> None:
        """A line that stays: above the panel, or in the log."""
        self._say(str(text), logging.INFO)

    def _say(self, text: str, level: int) -> None:
        if self._live is None:
            log.log(level, "%s", text)
        else:
            style = "yellow" if level >= logging.WARNING else "default"
            self._live.console.print(Text(f"step {self.step}: {text}", style=style))

    # -- drawing ----------------------------------------------------------------------------------

    def time_left(self) -> float | None:
        """Seconds, from the mean of the last steps; ``None`` before the first."""
        if not self._times:
            return None
        return sum(self._times) / len(self._times) * max(0, self.total_steps - self.step)

    def _line(self, row: Mapping) -> str:
        parts = [f"step {self.step}/{self.total_steps}"]
        for tag in training_tags(row):
            parts.append(f"{tag} {_percent(number(row, f'train/{tag}/success'))}")
        parts += [f"val {tag} {_percent(value)}" for tag, value in _validation(row).items()]
        for key, name, form in (("rollout/reward_mean", "reward", "{:.3f}"), *_POLICY):
            if (value := number(row, key)) is not None:
                parts.append(f"{name} {form.format(value)}")
        if self._times and is_training_row(row):
            parts += [f"{self._times[-1]:.1f} s", f"{duration(self.time_left())} left"]
        return " | ".join(parts)

    @_harmless
    def _draw(self) -> None:
        if self._live is not None:
            self._live.update(self._panel(), refresh=True)

    def _panel(self) -> Panel:
        return Panel(
            Group(self._progress(), self._tasks(), self._policy(), *map(_warning_text, self.warnings)),
            title=Text(self.run_name, style="bold"), title_align="left", border_style="dim", padding=(0, 1),
        )  # fmt: skip

    def _progress(self) -> Table:
        left, pace = self.time_left(), f"{sum(self._times) / len(self._times):.1f} s a step" if self._times else ""
        grid = Table.grid(padding=(0, 2), expand=True)
        for ratio in (None, 1, None, None):
            grid.add_column(ratio=ratio, no_wrap=True)
        grid.add_row(
            Text(f"step {self.step}/{self.total_steps}", style="bold"),
            ProgressBar(total=max(1, self.total_steps), completed=self.step, complete_style="cyan", finished_style="green"),
            Text(f"{pace}, {duration(left)} left" if left is not None else duration(time.monotonic() - self._started)),
            Text(self._phase, style="italic cyan"),
        )
        return grid

    def _tasks(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name, justify in (("task", "left"), ("success", "left"), ("now", "right"), ("began", "right"), ("reward", "right"), ("validation", "left")):
            table.add_column(name, justify=justify, no_wrap=True)
        validations = [(int(row["step"]), values) for row in self.history if (values := _validation(row))]
        tags = dict.fromkeys(tag for row in self.history for tag in (*training_tags(row), *_validation(row)))
        for tag in tags:
            curve = [number(row, f"train/{tag}/success") for row in self.history]
            curve = [v for v in curve if v is not None]
            reward = [v for row in self.history[-_PACE:] if (v := number(row, f"train/{tag}/reward")) is not None]
            vals = [(step, values[tag]) for step, values in validations if tag in values]
            said = " → ".join(dict.fromkeys(f"{_percent(v)} (step {step})" for step, v in (vals[:1] + vals[-1:])))
            table.add_row(
                Text(tag, style="bold"), Text(sparkline(curve), style="cyan"), _percent(curve[-1] if curve else None),
                _percent(curve[0] if curve else None), f"{reward[-1]:.2f}" if reward else "", said,
            )  # fmt: skip
        return table

    def _policy(self) -> Text:
        row = next((row for row in reversed(self.history) if is_training_row(row)), {})
        parts = [f"{name} {form.format(value)}" for key, name, form in _POLICY if (value := number(row, key)) is not None]
        groups, total = number(row, "rollout/groups_with_signal"), number(row, "rollout/groups_total")
        if groups is not None and total:
            parts.append(f"signal {groups:.0f}/{total:.0f} groups")
        return Text(" · ".join(parts), style="dim")


def _validation(row: Mapping) -> dict[str, float]:
    keys = (key for key in row if key.startswith("val/") and key.endswith("/success") and key.count("/") == 2)
    return {key.split("/")[1]: value for key in keys if (value := number(row, key)) is not None}


def _percent(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.0%}"


def _warning_text(warning: RunWarning) -> Text:
    style = "bold red" if warning.severity == "bad" else "yellow"
    return Text.assemble((f"▲ {warning.title}. ", style), warning.text)
