"""Problems from SimpleRL-Zoo style parquet files, read once a process."""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)

_DEFAULT_FOLDER = Path("math") / "simplelr_qwen_level3to5"


class Problem(NamedTuple):
    question: str
    answer: str
    level: int


class ProblemSet(NamedTuple):
    """``problems`` in file order; ``left_out``: rows whose answer or question is empty."""

    problems: tuple[Problem, ...]
    left_out: int


def find_parquet(data_path: str | None, split: str) -> Path:
    """The file of ``split``. Raises ``ValueError`` that says where it looked and what to set."""
    if data_path is None:
        root = os.environ.get("GIFT_DATA")
        if not root:
            raise ValueError(
                "math_lv3to5: no data: set env_config.data_path to a folder with train.parquet and test.parquet, "
                "or the environment variable GIFT_DATA, or env_config.source to 'embedded'"
            )
        data_path = str(Path(root) / _DEFAULT_FOLDER)
    path = Path(data_path)
    if path.is_dir():
        path = path / f"{split}.parquet"
    if not path.is_file():
        raise ValueError(f"math_lv3to5: data_path: there is no file {path} (split {split!r}); source: embedded needs none")
    return path


@lru_cache(maxsize=8)
def load_problems(path: Path) -> ProblemSet:
    """Every row of ``path`` that has a question and an answer."""
    import pyarrow.parquet as parquet  # here, so that the embedded set needs no pyarrow

    names = parquet.read_schema(path).names
    if "extra_info" not in names:
        raise ValueError(f"math_lv3to5: {path} has no column 'extra_info' (columns: {', '.join(names)})")
    rows = parquet.read_table(path, columns=[n for n in ("extra_info", "level") if n in names]).to_pylist()
    problems = []
    for row in rows:
        info = row["extra_info"]
        question, answer = ((info.get(key) or "").strip() for key in ("question", "answer"))
        if question and answer:
            # extra_info.level is no difficulty (1 in every row of the published files): the column is
            problems.append(Problem(question, answer, int(row.get("level") or info.get("level") or 0)))
    left_out = len(rows) - len(problems)
    logger.info("%s: %d problems, %d rows left out (empty question or answer)", path.name, len(problems), left_out)
    return ProblemSet(tuple(problems), left_out)


@lru_cache(maxsize=32)
def select_problems(path: Path, levels: tuple[int, ...] | None) -> tuple[Problem, ...]:
    """The problems of ``path`` at ``levels`` (``None``: all)."""
    chosen = tuple(p for p in load_problems(path).problems if levels is None or p.level in levels)
    if not chosen:
        there = sorted({p.level for p in load_problems(path).problems})
        raise ValueError(f"math_lv3to5: levels {levels} pick no problem of {path} (levels there: {there})")
    return chosen
