"""The list of a checkpoint's files with their sizes and SHA-256 sums. A folder with a manifest is whole.

The ranks hash what they wrote together (:func:`write_partial`, each its share of the files), the driver hashes the
rest and joins the lists. On loading, sizes and sums are compared before any worker reads a byte.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from verl.utils.checkpoint.errors import CorruptCheckpoint
from verl.utils.checkpoint.state_io import fsync, write_text

MANIFEST = "manifest.json"
PARTIAL = ".manifest_part_"
HASH_THREADS = 8


def list_files(folder: str | os.PathLike) -> list[str]:
    """Paths of all files under `folder`, relative to it, sorted; manifests are left out."""
    found = []
    for parent, _, names in os.walk(folder):
        found += [os.path.relpath(os.path.join(parent, name), folder) for name in names]
    return sorted(name for name in found if name != MANIFEST and not os.path.basename(name).startswith(PARTIAL))


def describe(folder: str | os.PathLike, names: Iterable[str]) -> dict[str, dict]:
    """`{relative path: {"bytes": size, "sha256": sum}}` for files of `folder`, read in parallel."""
    names = list(names)
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        return dict(zip(names, pool.map(lambda name: _describe_one(Path(folder, name)), names), strict=True))


def _describe_one(path: Path) -> dict:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def write_partial(folder: str | os.PathLike, rank: int, world_size: int) -> None:
    """Hash every `world_size`-th file of `folder`, starting with the `rank`-th. Call after all ranks have written."""
    names = list_files(folder)[rank::world_size]
    write_text(Path(folder, f"{PARTIAL}{rank}.json"), json.dumps(describe(folder, names)))


def write_manifest(folder: str | os.PathLike, **facts) -> dict:
    """Write `manifest.json` with `facts` and all files, flush files and folders to the disk, drop the partial lists."""
    known = _take_partials(Path(folder))
    names = list_files(folder)
    rest = describe(folder, [name for name in names if name not in known])
    manifest = {**facts, "files": {name: known.get(name) or rest[name] for name in names}}
    for name in names:
        fsync(Path(folder, name))
    write_text(Path(folder, MANIFEST), json.dumps(manifest, indent=1) + "\n")
    for parent, _, _ in os.walk(folder, topdown=False):
        fsync(parent)
    return manifest


def drop_part(folder: str | os.PathLike, part: str) -> None:
    """Take the files of a sub-folder out of the manifest and name it under `dropped`; the files stay. One rename."""
    manifest = read_manifest(folder)
    manifest["files"] = {name: facts for name, facts in manifest["files"].items() if not name.startswith(part + os.sep)}
    manifest["dropped"] = sorted({*manifest.get("dropped", []), part})
    path = Path(folder, MANIFEST)
    write_text(f"{path}.tmp", json.dumps(manifest, indent=1) + "\n")
    os.replace(f"{path}.tmp", path)
    fsync(folder)


def _take_partials(folder: Path) -> dict[str, dict]:
    known = {}
    for part in sorted(folder.rglob(f"{PARTIAL}*.json")):
        at = part.parent.relative_to(folder)
        known |= {os.path.normpath(at / name): facts for name, facts in json.loads(part.read_text()).items()}
        part.unlink()
    return known


def read_manifest(folder: str | os.PathLike) -> dict:
    """The manifest of a checkpoint.

    Raises:
        CorruptCheckpoint: it is missing or is no manifest.
    """
    path = Path(folder, MANIFEST)
    try:
        manifest = json.loads(path.read_text())
        if not isinstance(manifest["files"], dict):
            raise ValueError("no list of files")
    except FileNotFoundError as error:
        raise CorruptCheckpoint(folder, f"{path} is missing") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptCheckpoint(folder, f"{path} cannot be read ({error})") from error
    return manifest


def verify(folder: str | os.PathLike, under: str = "", checksums: bool = True) -> dict:
    """Compare the files of a checkpoint with its manifest, and return the manifest.

    Args:
        under: only files below this sub-folder, e.g. "actor".
        checksums: also read every file and compare its sum (sizes alone are compared in no time).

    Raises:
        CorruptCheckpoint: naming the first file that is missing, cut short or altered.
    """
    manifest = read_manifest(folder)
    expected = {name: facts for name, facts in manifest["files"].items() if not under or name.startswith(under + os.sep)}
    for name, facts in expected.items():
        path = Path(folder, name)
        if not path.is_file():
            raise CorruptCheckpoint(folder, f"{path} is missing")
        if path.stat().st_size != facts["bytes"]:
            raise CorruptCheckpoint(folder, f"{path} has {path.stat().st_size} bytes instead of {facts['bytes']}")
    if checksums:
        for name, found in describe(folder, expected).items():
            if found["sha256"] != expected[name]["sha256"]:
                raise CorruptCheckpoint(folder, f"{Path(folder, name)} is not what was saved (SHA-256 differs)")
    return manifest
