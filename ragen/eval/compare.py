"""Results side by side: ``python -m ragen.eval.compare A B C [--csv FILE] [--figure FILE.svg] [--paper]``.

A, B, C are result files, or folders of them (one a model). Every score with its 95% interval; every further
result against the first, paired on the questions and games that both have. Results made under different
protocols (``--protocol``) stand side by side, marked, and are never paired.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ragen.eval import protocol, stats
from ragen.eval.cli import run
from ragen.eval.figure import Point, draw
from ragen.eval.paper import COLUMNS, ROUNDING, distinct, headlines, label, published, recomputed, table_row
from ragen.eval.results import read_result, read_rows, write_whole


@dataclass
class Entry:
    """One argument: ``results`` by benchmark, and the files they were read from."""

    name: str
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(prog="python -m ragen.eval.compare", description=__doc__.split("\n\n")[1])
    parser.add_argument("results", nargs="+", help="result files (NAME.json), or folders of them")
    parser.add_argument("--score", help="which score (default: each benchmark's primary one), e.g. strict")
    parser.add_argument("--csv", type=Path, help="write the table there too")
    parser.add_argument("--figure", type=Path, help="draw the scores with their intervals (SVG)")
    parser.add_argument(
        "--paper", nargs="?", const="", metavar="MODEL",
        help="the paper's table row of each, beside the published rows (of models whose name contains MODEL)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    entries = [read_entry(Path(text)) for text in args.results]
    rows = compare(entries, args.score)
    print(text_table(rows, entries))
    known = None if args.paper is None else _published(args.paper)
    if known is not None:
        print(paper_table(entries, known))
    if args.csv:
        write_whole(args.csv, csv_table(rows))
        print(f"table {args.csv}")
    if args.figure:
        write_whole(args.figure, draw(points(rows, entries, known if args.paper or known is None else headlines(known))))
        print(f"figure {args.figure}")
    return rows


def read_entry(path: Path) -> Entry:
    """A result file or a folder of them. Raises ``FileNotFoundError`` if there is no result."""
    if not path.is_dir():
        result = read_result(path)
        return Entry(_name(path, result), {result["benchmark"]: result}, {result["benchmark"]: path})
    entry = Entry(path.name)
    for file in sorted(path.glob("*.json")):
        try:
            result = read_result(file)
        except ValueError:
            continue  # another tool's file in the same folder
        if result["benchmark"] in entry.results:
            raise ValueError(
                f"{path} holds two results of {result['benchmark']}: {entry.files[result['benchmark']].name} and {file.name}"
            )
        entry.results[result["benchmark"]], entry.files[result["benchmark"]] = result, file
    if not entry.results:
        raise FileNotFoundError(f"{path} holds no result file of reason_test")
    return entry


def _name(path: Path, result: Mapping[str, Any]) -> str:
    return f"{path.parent.name}/{path.stem}" if path.parent.name else path.stem


def compare(entries: Sequence[Entry], score: str | None = None) -> list[dict[str, Any]]:
    """One row for each (benchmark, entry): ``benchmark, entry, protocol, score, value, low, high, n``, and against the
    first entry that has the benchmark ``difference, difference_low, difference_high, p_value, pairs`` or, where
    the two cannot be paired, ``note``."""
    rows = []
    for benchmark in dict.fromkeys(b for entry in entries for b in entry.results):
        having = [(place, entry) for place, entry in enumerate(entries) if benchmark in entry.results]
        first = having[0][1]
        for place, entry in having:
            result = entry.results[benchmark]
            name = score or result["primary"]
            if name not in result["scores"]:
                raise ValueError(f"{entry.files[benchmark]} has no score {name!r} (it has {', '.join(result['scores'])})")
            row = {
                "benchmark": benchmark, "entry": entry.name, "place": place, "protocol": protocol.of_result(result), "score": name,
                **result["scores"][name],
            }  # fmt: skip
            rows.append(row | (_difference(entry, first, benchmark, name) if entry is not first else {}))
    return rows


def _difference(entry: Entry, first: Entry, benchmark: str, score: str) -> dict[str, Any]:
    mine, other = entry.results[benchmark], first.results[benchmark]
    if protocol.of_result(mine) != protocol.of_result(other):
        return {"note": f"not paired: protocol {protocol.of_result(mine)} against {protocol.of_result(other)}"}
    if mine["data"].get("hash") != other["data"].get("hash"):
        return {"note": "not paired: the two were made on other data or seeds"}
    sides = [values_by_id(read_rows(e.files[benchmark]), score, e.results[benchmark]["primary"]) for e in (entry, first)]
    if None in sides:
        return {"note": f"not paired: rows do not hold {score}"}
    try:
        d = stats.paired_difference(*sides)
    except ValueError as error:
        return {"note": str(error)}
    return {
        "difference": d["value"],
        "difference_low": d["low"],
        "difference_high": d["high"],
        "p_value": d["p_value"],
        "pairs": d["n"],
    }


def values_by_id(rows: Sequence[Mapping[str, Any]], score: str, primary: str) -> list[dict[str, Any]] | None:
    """Per question or game the mean over its samples, as rows for :func:`ragen.eval.stats.paired_difference`;
    ``None`` if the rows do not say."""
    key = "success" if score == primary and score not in rows[0] else score
    grouped: dict[Any, list[float]] = defaultdict(list)
    for row in rows:
        value = row.get(key)
        if score == "win_or_tie":
            result = (row.get("judged") or {}).get("result")
            value = None if result is None else float(result != "loss")
        elif key not in row:
            return None
        if value is not None:
            grouped[row["id"]].append(float(value))
    return [{"id": i, "success": sum(values) / len(values)} for i, values in grouped.items()]


def text_table(rows: Sequence[Mapping[str, Any]], entries: Sequence[Entry]) -> str:
    width = max(len(entry.name) for entry in entries)
    lines, shown = [], None
    for row in rows:
        if row["benchmark"] != shown:
            shown = row["benchmark"]
            lines.append(f"\n{shown} ({row['score']})")
        told = (
            "nothing to score"
            if row["value"] is None
            else f"{row['value']:.4f} {stats.interval(row)} n={row['n']}"
        )
        if "difference" in row:
            told += (
                f"   difference {row['difference']:+.4f} {stats.interval(row, 'difference_low', 'difference_high', '+.4f')}, "
                f"p = {row['p_value']:.2g}, {row['pairs']} pairs"
            )
        lines.append(f"  {row['entry']:<{width}}  {row['protocol']:<5}  {told}{'   ' + row['note'] if 'note' in row else ''}")
    return "\n".join(lines).lstrip("\n")


def csv_table(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = [
        "benchmark", "entry", "protocol", "score", "value", "low", "high", "n", "difference", "difference_low", "difference_high",
        "p_value", "pairs", "note",
    ]  # fmt: skip
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _published(model: str) -> list[dict[str, Any]]:
    rows = [row for row in distinct(published()) if model.casefold() in row["model"].casefold()]
    if not rows:
        raise ValueError(f"--paper {model}: the paper has no such model (it has {', '.join(dict.fromkeys(r['model'] for r in published()))})")
    return rows


def paper_table(entries: Sequence[Entry], known: Sequence[Mapping[str, Any]]) -> str:
    """The paper's columns in per cent: these results, then the published rows ``known``, and whose rules each row
    follows. ``-``: not there."""
    columns = [*COLUMNS, "Avg"]
    names = [entry.name for entry in entries] + [label(row) for row in known]
    width = max(map(len, names))
    lines = ["", " " * width + "".join(f"{column:>11}" for column in columns) + "  protocol"]
    for entry in entries:
        row = table_row(entry.results)
        lines.append(
            f"{entry.name:<{width}}"
            + "".join(f"{_percent(row[c]['value'] * 100 if row[c] else None):>11}" for c in columns)
            + f"  {_protocols(entry)}"
        )
    for name, row in zip(names[len(entries) :], known, strict=True):
        lines.append(f"{name:<{width}}" + "".join(f"{_percent(row[c]):>11}" for c in columns) + f"  paper{_printed_otherwise(row)}")
    return "\n".join([*lines, *_cautions(entries)])


def _protocols(entry: Entry) -> str:
    """The protocol of an entry's columns, or each with the benchmarks made under it."""
    made: dict[str, list[str]] = defaultdict(list)
    for benchmark in (b for b, _ in COLUMNS.values() if b in entry.results):
        made[protocol.of_result(entry.results[benchmark])].append(benchmark)
    return next(iter(made), "-") if len(made) < 2 else ", ".join(f"{name} ({' '.join(found)})" for name, found in made.items())


def _cautions(entries: Sequence[Entry]) -> list[str]:
    """What keeps rows of the paper's table from being compared."""
    found = []
    for entry in entries:
        columns = [entry.results[b] for b, _ in COLUMNS.values() if b in entry.results]
        if any(protocol.of_result(result) != protocol.PAPER for result in columns):
            found.append(f"{entry.name}: not made by the paper's rules (--protocol paper, docs/fidelity.md); do not read it against the paper's rows")
        scripted = [
            f"{result['benchmark']} against {player['name']}"
            for result in columns
            for player in result["data"].get("opponents") or ()
            if player.get("type") == "scripted"
        ]
        if scripted:
            found.append(f"{entry.name}: {', '.join(scripted)} (the reference plays a served model)")
    return found


def _printed_otherwise(row: Mapping[str, Any]) -> str:
    given = recomputed(row)
    return f"  (its columns give {given:.2f})" if abs(given - row["Avg"]) > ROUNDING else ""


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def points(
    rows: Sequence[Mapping[str, Any]], entries: Sequence[Entry], known: Sequence[Mapping[str, Any]] | None = None
) -> dict[str, list[Point]]:
    """Panel title -> points, in per cent. With published rows ``known`` the panels are the paper's columns."""
    panels: dict[str, list[Point]] = defaultdict(list)
    mixed = len({row["protocol"] for row in rows}) > 1
    if known is None:
        for row in rows:
            if row["value"] is not None:
                title = f"{row['benchmark']} ({row['score']})"
                name = row["entry"] + (f" ({row['protocol']})" if mixed else "")
                ends = [None if row[end] is None else 100 * row[end] for end in ("low", "high")]
                panels[title].append(Point(name, 100 * row["value"], *ends, row["place"]))
        return panels
    for column in [*COLUMNS, "Avg"]:
        for place, entry in enumerate(entries):
            if found := table_row(entry.results)[column]:
                panels[column].append(Point(entry.name, 100 * found["value"], 100 * found["low"], 100 * found["high"], place))
        for row in known:
            value = row["Avg recomputed"] if column == "Avg" else row[column]
            panels[column].append(Point(label(row), value, None, None, None))
    return panels


if __name__ == "__main__":
    raise SystemExit(run(main))
