"""The live display: what it says, in a terminal and in a log, and that it never stops a run."""

import io
import logging
import random
import time

import pytest
from fake_runs import metrics_row
from rich.console import Console

from ragen.report import console as module
from ragen.report.console import TrainDisplay, duration, sparkline

TAGS = ("TicTacToe", "NashNew")
FAULTS = {"broken_mask": "The mask does not fit", "collapsed": "Entropy has collapsed", "dead_opponent": "An opponent does not answer"}


def rows(fault="", steps=60):
    rng = random.Random(1)
    return [metrics_row(step, steps, rng, fault, TAGS) for step in range(steps + 1)]


def play(fault, console):
    with TrainDisplay(60, "laptop", console=console) as display:
        for row in rows(fault):
            display.phase("playing")
            display.update(row["step"], row)
        display.message("saved global_step_60")
    return display


def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None, _environ={"TERM": "xterm"})


def last_panel(console):
    return console.file.getvalue().rsplit("╭", 1)[1]


@pytest.mark.parametrize("fault", FAULTS)
def test_terminal_names_a_sick_run(fault):
    console = terminal()
    play(fault, console)
    assert FAULTS[fault] in last_panel(console)


@pytest.mark.parametrize("fault", FAULTS)
def test_log_names_a_sick_run_once(fault, caplog):
    caplog.set_level(logging.INFO, "ragen.console")
    play(fault, Console(file=io.StringIO(), force_terminal=False))
    said = [r for r in caplog.records if r.levelno == logging.WARNING and FAULTS[fault] in r.getMessage()]
    assert len(said) == 1


def test_terminal_shows_tasks_progress_and_time_left():
    console = terminal()
    display = play("", console)
    panel = last_panel(console)
    assert all(text in panel for text in ("step 60/60", "TicTacToe", "NashNew", "5.0 s a step", "0s left", "entropy", "signal 15/16", "(step 60)", "done"))
    assert any(bar in panel for bar in "▁▂▃▄▅▆▇█") and "▲" not in panel
    assert display.time_left() == 0 and "saved global_step_60" in console.file.getvalue()


def test_log_is_one_line_a_step(caplog):
    caplog.set_level(logging.INFO, "ragen.console")
    out = io.StringIO()
    play("", Console(file=out, force_terminal=False))
    lines = [r.getMessage() for r in caplog.records]
    assert len(lines) == 62 and lines[0].startswith("step 0/60 | val TicTacToe") and out.getvalue() == ""
    assert all("\n" not in line for line in lines)


def test_a_fault_of_the_display_never_reaches_the_run(monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("no such glyph")

    monkeypatch.setattr(module, "current_warnings", broken)
    play("", terminal())
    assert sum("console display failed" in r.getMessage() for r in caplog.records) == 1


def test_the_error_of_a_run_passes_through():
    console = terminal()
    with pytest.raises(KeyError), TrainDisplay(60, "laptop", console=console):
        raise KeyError("of the run")
    assert "stopped by KeyError" in last_panel(console)


def test_log_lines_go_above_the_panel_and_handlers_are_given_back(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream), monkeypatch.setattr("sys.__stderr__", stream)
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    try:
        console = terminal()
        with TrainDisplay(60, "laptop", console=console):
            logging.getLogger("other").warning("from the trainer")
        assert "from the trainer" in console.file.getvalue() and "from the trainer" not in stream.getvalue()
        assert handler.stream is stream
    finally:
        logging.getLogger().removeHandler(handler)


def test_text_of_models_is_no_markup():
    console = terminal()
    with TrainDisplay(1, "[red]run[/red] [/]", console=console) as display:
        display.message("[bold]x[/bold] [/nope]")
        display.update(1, {"train/[i]/success": 0.5})
    text = console.file.getvalue()
    assert "[bold]x[/bold] [/nope]" in text and "[red]run[/red] [/]" in text


def test_it_costs_little():
    display = TrainDisplay(100, "laptop", console=terminal())
    history = rows(steps=100)
    start = time.process_time()
    with display:
        for row in history:
            display.update(row["step"], row)
    assert (time.process_time() - start) / len(history) < 0.1


@pytest.mark.parametrize(("values", "line"), [
    ([0, 1], "▁█"), ([], ""), ([None], ""), ([0.5] * 3, "▅▅▅"), ([0, None, 1], "▁ █"), ([0, float("nan"), 1], "▁ █"),
])  # fmt: skip
def test_sparkline(values, line):
    assert sparkline(values) == line


def test_sparkline_keeps_its_width():
    assert len(sparkline(list(range(1000)), width=24)) == 24


def test_duration():
    assert [duration(s) for s in (5, 65, 3725, -1)] == ["5s", "1m 05s", "1h 02m", "0s"]
