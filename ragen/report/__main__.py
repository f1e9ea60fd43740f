"""Look at runs::

    python -m ragen.report RUN [RUN...]                      one HTML file with everything
    python -m ragen.report show RUN --task T --worst 3       the same in the terminal
    python -m ragen.report watch RUN [RUN...]                served on localhost, fresh while the run goes on

RUN is a run's folder, or NAME=FOLDER to give it a name; runs given one name are one curve with a band.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ragen.report.outcome import OUTCOMES
from ragen.report.runs import ReportError, load_runs


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    command = argv.pop(0) if argv and argv[0] in _COMMANDS else "report"
    parse, act = _COMMANDS[command]
    args = parse().parse_args(argv)
    try:
        return act(args)
    except (ReportError, OSError) as fault:
        print(f"ragen.report: {fault}", file=sys.stderr)
        return 1


def _parser(command: str, runs: str) -> argparse.ArgumentParser:
    prog = f"python -m ragen.report {command}".strip()
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    if runs == "+":
        parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder, or NAME=FOLDER")
        parser.add_argument(
            "--group", choices=("seed", "none"), default="seed", help="draw runs whose configurations are equal up to the seed as one curve with a band"
        )
        parser.add_argument("--title", default="", help="name of the report (default: the runs' names)")
        parser.add_argument("--episodes", type=_positive, default=3000, metavar="N", help="episodes the page carries at most (default 3000)")
    else:
        parser.add_argument("run", metavar="RUN", help="run folder")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}: at least 1")
    return value


# -- report -------------------------------------------------------------------------------------


def _report_parser() -> argparse.ArgumentParser:
    parser = _parser("", "+")
    parser.add_argument("-o", "--out", type=Path, help="file to write (default: RUN/report.html; report.html for several runs)")
    return parser


def _report(args: argparse.Namespace) -> int:
    from ragen.report.page import write_report

    runs = load_runs(args.runs, args.group)
    out = args.out or (runs[0].folder / "report.html" if len(runs) == 1 else Path("report.html"))
    write_report(runs, out, title=args.title, max_episodes=args.episodes)
    print(f"{out}  ({out.stat().st_size / 1e6:.1f} MB): open it in a browser")
    return 0


# -- show ---------------------------------------------------------------------------------------


def _show_parser() -> argparse.ArgumentParser:
    parser = _parser("show", "1")
    parser.add_argument("--step", type=int, help="episodes of this step (without a choice of episodes: the last that has some)")
    parser.add_argument("--phase", choices=("train", "val"), help="training or validation alone")
    parser.add_argument("--task", help="tag of the task")
    parser.add_argument("--opponent", help="name of the opponent")
    parser.add_argument("--outcome", choices=OUTCOMES)
    parser.add_argument("--group", type=int, help="one group: the same start, all members")
    parser.add_argument("--member", type=int, help="one member of the groups")
    pick = parser.add_mutually_exclusive_group()
    pick.add_argument("--worst", type=_positive, metavar="N", help="the N with the least reward")
    pick.add_argument("--best", type=_positive, metavar="N", help="the N with the most")
    pick.add_argument("--first", type=_positive, metavar="N", help="the first N, as played")
    parser.add_argument("--tokens", choices=("trained", "advantage", "logprob"), help="the tokens, coloured, in place of the conversation")
    return parser


def _show(args: argparse.Namespace) -> int:
    from ragen.report.show import show

    return show(args)


# -- watch --------------------------------------------------------------------------------------


def _watch_parser() -> argparse.ArgumentParser:
    parser = _parser("watch", "+")
    parser.add_argument("--port", type=int, default=8765, help="port on localhost (default 8765; 0: any free one)")
    return parser


def _watch(args: argparse.Namespace) -> int:
    from ragen.report.watch import serve

    return serve(args.runs, port=args.port, grouping=args.group, title=args.title, max_episodes=args.episodes)


_COMMANDS = {"report": (_report_parser, _report), "show": (_show_parser, _show), "watch": (_watch_parser, _watch)}


if __name__ == "__main__":
    sys.exit(main())
