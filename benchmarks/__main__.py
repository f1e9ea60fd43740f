"""``make bench``: runs every ``benchmarks/bench_*.py`` and prints one table.

A benchmark module has ``run() -> list of {name, ratio, target, detail}``; ``target`` is a text such as
``">= 0.7"``. ``python -m benchmarks update sync`` runs those alone. ``--output FILE`` writes the table as
Markdown, with the machine. ``python -m benchmarks gpu`` is a program of its own (:mod:`benchmarks.gpu`).
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import traceback
from pathlib import Path


def machine() -> str:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        model = next((line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")), model)
    return f"{os.cpu_count()} x {model}, Python {platform.python_version()}"


def main() -> int:
    if sys.argv[1:2] == ["gpu"]:
        from benchmarks.gpu.cli import main as on_a_gpu

        return on_a_gpu(sys.argv[2:])
    names = sorted(p.stem.removeprefix("bench_") for p in Path(__file__).parent.glob("bench_*.py"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmarks", nargs="*", metavar="NAME", help=f"some of: {', '.join(names)} (default: all)")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    if unknown := sorted(set(args.benchmarks) - set(names)):
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(names)}")
    lines, failed = [f"Machine: {machine()}", "", "| what | ratio | target | detail |", "| --- | --- | --- | --- |"], False
    for name in args.benchmarks or names:
        print(f"running {name} ...", file=sys.stderr, flush=True)
        try:
            rows = importlib.import_module(f"benchmarks.bench_{name}").run()
        except Exception:
            traceback.print_exc()
            failed = True
            continue
        lines += [f"| {r['name']} | {r['ratio']:.3g} | {r['target']} | {r['detail']} |" for r in rows]
    print("\n".join(lines))
    if args.output:
        args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
