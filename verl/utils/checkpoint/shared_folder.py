"""On several nodes the run folder must be one folder. Find out before the run, not at its first checkpoint."""

import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from verl.utils.checkpoint.errors import CheckpointError
from verl.utils.checkpoint.state_io import write_text


def check_shared_folder(root: str | os.PathLike, ask_workers: Callable[[str, str], Sequence[str]]) -> None:
    """Raise where some worker does not see `root` as the driver does.

    Args:
        ask_workers: runs :func:`confirm_shared_folder` with these two arguments on every worker and returns the
            answers, e.g. `lambda path, token: group.execute_all_sync("confirm_shared_folder", path, token)`.

    Raises:
        CheckpointError: naming the answers of the workers that see another folder.
    """
    os.makedirs(root, exist_ok=True)
    path = Path(root).absolute() / f".shared_{secrets.token_hex(8)}"
    token = secrets.token_hex(16)
    try:
        write_text(path, token)
        blind = sorted({answer for answer in ask_workers(str(path), token) if answer})
    finally:
        path.unlink(missing_ok=True)
    if blind:
        raise CheckpointError(
            f"trainer.default_local_dir={root} is not one folder on all nodes ({'; '.join(blind)}). Checkpoints of several "
            "nodes need a shared folder (NFS or the like): point trainer.default_local_dir at one"
        )


def confirm_shared_folder(path: str, token: str) -> str:
    """On a worker: "" if this process reads `token` from the driver's file, otherwise what is wrong."""
    try:
        found = Path(path).read_text()
    except OSError as error:
        return f"node {os.uname().nodename}: {error.strerror}"
    return "" if found == token else f"node {os.uname().nodename}: another file of that name"
