"""Is there room for a checkpoint?"""

import os
import shutil
from pathlib import Path

from verl.utils.checkpoint.errors import DiskFull

MARGIN = 1.05  # file headers, tokenizer, JSON


def free_bytes(folder: str | os.PathLike) -> int:
    """Bytes free to this user on the disk of `folder`, which need not exist yet."""
    folder = Path(folder).absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require_free_space(folder: str | os.PathLike, needed_bytes: int) -> None:
    """Raises :class:`DiskFull` where less than `needed_bytes` and a margin of 5% is free."""
    needed = int(needed_bytes * MARGIN)
    free = free_bytes(folder)
    if free < needed:
        raise DiskFull(folder, needed, free)


def folder_bytes(folder: str | os.PathLike) -> int:
    """Sum of the sizes of all files below `folder`."""
    return sum(os.path.getsize(os.path.join(parent, name)) for parent, _, names in os.walk(folder) for name in names)
