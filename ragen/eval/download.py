"""The evaluation data, from the hub to local files: ``python -m ragen.eval.download FOLDER``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from ragen.eval import choice, commongen, maths
from ragen.eval.cli import run, say
from ragen.eval.data import Rows, Source, load_rows
from ragen.eval.prompts import Template
from ragen.eval.results import dumps_rows, write_whole

logger = logging.getLogger(__name__)

#: what is fetched: where it lies on the hub and here, and what reads it (which checks its fields)
SETS: list[tuple[Source, Callable[[Rows], object]]] = [
    *(
        (kind.source, lambda rows, kind=kind: maths.MathBenchmark(kind, rows, Template()))
        for kind in (maths.MATH500, maths.SIMPLERL, maths.GSM8K)
    ),
    *(
        (kind.source, lambda rows, kind=kind: choice.ChoiceBenchmark(kind, rows, Template()))
        for kind in (choice.MMLU, choice.MMLU_PRO, choice.SOCIAL)
    ),
    *(
        (kind.few_shot_source, lambda rows, kind=kind: choice.ChoiceBenchmark(kind, rows, Template()))
        for kind in (choice.MMLU, choice.MMLU_PRO)
    ),
    (commongen.SOURCE, lambda rows: commongen.CommonGenBenchmark(rows, Template())),
]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m ragen.eval.download", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", metavar="NAME", help="sets whose file or hub name contains this")
    args = parser.parse_args(argv)
    failed = [source.hub for source, check in SETS if _wanted(source, args.only) and not fetch(source, check, args.folder)]
    if failed:
        raise FileNotFoundError(f"not fetched: {', '.join(failed)} (the reasons stand above); the rest is in {args.folder}")


def _wanted(source: Source, only: str | None) -> bool:
    return only is None or only in source.file or only in source.hub


def fetch(source: Source, check: Callable[[Rows], object], folder: Path) -> bool:
    """Fetch one set unless it is there; ``False`` if it cannot be had or read."""
    path = folder / source.file
    if path.is_file():
        say(f"{path} is there")
        return True
    try:
        rows = load_rows("hub", source)
        check(rows)
    except (FileNotFoundError, ValueError) as error:
        logger.warning("%s: %s", source.hub, error)
        return False
    if path.suffix == ".parquet":
        _write_parquet(path, rows)
    else:
        write_whole(path, dumps_rows(rows.rows))
    say(f"{path}: {len(rows.rows)} rows of {source.hub}")
    return True


def _write_parquet(path: Path, rows: Rows) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    parquet.write_table(arrow.Table.from_pylist(rows.rows), beside)
    beside.replace(path)


if __name__ == "__main__":
    raise SystemExit(run(main))
