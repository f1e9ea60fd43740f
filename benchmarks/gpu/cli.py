"""The driver of ``python -m benchmarks gpu``: one process for the lines, limits, the JSON and the table. No torch in here."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.lines import Line, all_lines

ROOT = Path(__file__).resolve().parents[2]
#: how long a process may take to import torch, transformers and the project
START_S = 180.0


class LineProcess:
    """A process that runs lines one at a time (:mod:`benchmarks.gpu.serve`)."""

    def __init__(self, device: str, tiny: bool, scratch: str):
        env = {
            **os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1",
            "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }  # fmt: skip
        if device == "cpu":
            env["CUDA_VISIBLE_DEVICES"] = ""
        command = [sys.executable, "-m", "benchmarks.gpu.serve", "--device", device, "--scratch", scratch, *["--tiny"] * tiny]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, cwd=ROOT, process_group=0)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self.hello = self._answer(START_S)

    def run(self, line: Line, limit_s: float) -> dict:
        """The line's result, ``{"status": ok | failed | skipped, ...}``."""
        self._process.stdin.write(f"{line.name}\n".encode())
        self._process.stdin.flush()
        return self._answer(limit_s)

    def _answer(self, limit_s: float) -> dict:
        end, text = time.monotonic() + limit_s, b""
        while not text.endswith(b"\n"):
            if not self._selector.select(max(0.0, end - time.monotonic())):
                return {"status": "failed", "error": f"no answer within {limit_s:.0f} s: ended", "dead": True}
            piece = os.read(self._process.stdout.fileno(), 1 << 16)
            if not piece:
                return {"status": "failed", "error": f"its process died (exit status {self._process.wait()})", "dead": True}
            text += piece
        return json.loads(text)

    def end(self) -> None:
        """End the process and what it started."""
        self._selector.close()
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # a group of its own: its ranks and tests are in it
        self._process.wait()
        self._process.stdout.close()


def chosen(lines: dict[str, Line], only: Sequence[str], skip: Sequence[str]) -> list[Line]:
    """The lines to run, in their order. Raises ``ValueError`` for a name that none has."""
    if unknown := sorted({*only, *skip} - lines.keys()):
        raise ValueError(f"no line is called {', '.join(unknown)}; there are {', '.join(lines)}")
    return [line for name, line in lines.items() if (not only or name in only) and name not in skip]


def table(results: dict) -> str:
    """The results as Markdown."""
    lines = [f"{name}: {value}  " for name, value in results["machine"].items()]
    lines += ["", "| line | what | value | target | met | note |", "| --- | --- | --- | --- | --- | --- |"]
    for name, result in results["lines"].items():
        if result["status"] != "ok":
            lines.append(f"| {name} | {result['status']} | | | | {_cell(result.get('error', ''))} |")
        for r in result.get("rows", ()):
            met = {True: "yes", False: "NO", None: ""}[r["met"]]
            lines.append(f"| {name} | {r['what']} | {_number(r['value'])} {r['unit']} | {r['target']} | {met} | {_cell(r['note'])} |")
    counts = {status: sum(r["status"] == status for r in results["lines"].values()) for status in ("ok", "failed", "skipped")}
    missed = [f"{name}: {r['what']}" for name, result in results["lines"].items() for r in result.get("rows", ()) if r["met"] is False]
    lines += ["", f"{counts['ok']} lines ran, {counts['failed']} failed, {counts['skipped']} skipped; targets missed: {'; '.join(missed) or 'none'}"]
    return "\n".join(lines) + "\n"


def _number(value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")


def _write(folder: Path, results: dict) -> None:
    for name, text in (("gpu.json", json.dumps(results, indent=1) + "\n"), ("gpu.md", table(results))):
        beside = folder / f".{name}"
        beside.write_text(text, encoding="utf-8")
        beside.replace(folder / name)


def main(arguments: Sequence[str] | None = None) -> int:
    lines = all_lines()
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="toy sizes: a rehearsal, whose figures say nothing")
    parser.add_argument("--only", nargs="+", default=[], metavar="LINE", help=f"some of: {', '.join(lines)}")
    parser.add_argument("--skip", nargs="+", default=[], metavar="LINE")
    parser.add_argument("--output", type=Path, default=Path("gpu-results"), help="folder of gpu.json and gpu.md; earlier lines in it are kept")
    parser.add_argument("--minutes", type=float, default=9.5, help="a line that would end later is left out (9.5)")
    parser.add_argument("--list", action="store_true", help="print the lines and end")
    args = parser.parse_args(arguments)
    try:
        todo = chosen(lines, args.only, args.skip)
    except ValueError as error:
        parser.error(str(error))
    if args.list:
        print("\n".join(f"{line.name:<36}{line.seconds:>4} s  {line.what}" for line in todo))
        return 0
    args.output.mkdir(parents=True, exist_ok=True)
    earlier = args.output / "gpu.json"
    results = json.loads(earlier.read_text(encoding="utf-8")) if earlier.exists() else {"machine": {}, "lines": {}}
    with tempfile.TemporaryDirectory(prefix="gift-gpu-") as scratch:
        return _run(todo, args, results, scratch)


def _run(todo: list[Line], args, results: dict, scratch: str) -> int:
    started, process = time.monotonic(), None
    print(f"{len(todo)} lines, about {sum(line.seconds for line in todo)} s on a large GPU; results in {args.output}", flush=True)
    try:
        for number, line in enumerate(todo, 1):
            left = args.minutes * 60 - (time.monotonic() - started)
            print(f"[{number}/{len(todo)}] {line.name}: {line.what} (about {line.seconds} s; {left:.0f} s left)", flush=True)
            begun = time.monotonic()
            if left < (0 if args.tiny else line.seconds):
                result = {"status": "skipped", "error": "no time left (--only runs it by itself)"}
            else:
                if process is None:
                    process = LineProcess(args.device, args.tiny, scratch)
                    if "machine" not in process.hello:
                        print(f"the lines' process does not start: {process.hello['error']}", file=sys.stderr)
                        return 2
                    results["machine"] = process.hello["machine"]
                result = process.run(line, 5 * line.limit_s if args.tiny else min(line.limit_s, left + 20))
            result["seconds"] = round(time.monotonic() - begun, 1)
            if result["status"] == "failed":  # what it left of the device cannot be trusted
                if process is not None:
                    process.end()
                process = None
            results["lines"][line.name] = result
            _write(args.output, results)
            for r in result.get("rows", ()):
                target = f"(target {r['target']}{', MISSED' if r['met'] is False else ''})" if r["target"] else ""
                print(f"    {r['what']}: {_number(r['value'])} {r['unit']} {target}  {r['note']}".rstrip())
            print(f"    {result['status']} after {result['seconds']} s {result.get('error', '')}".rstrip(), flush=True)
    finally:
        if process is not None:
            process.end()
    print(table(results))
    return int(any(result["status"] == "failed" for result in results["lines"].values()))


if __name__ == "__main__":
    raise SystemExit(main())
