"""Where checkpoints lie in a run folder (VeRL's names): `global_step_N/` and `latest_checkpointed_iteration.txt`."""

import logging
import os
import re
from pathlib import Path

from verl.utils.checkpoint.errors import CheckpointError
from verl.utils.checkpoint.manifest import MANIFEST
from verl.utils.checkpoint.state_io import fsync, write_text

logger = logging.getLogger(__name__)

STEP_FOLDER = re.compile(r"global_step_(\d+)")
RESUME_MODES = ("auto", "disable", "resume_path")


def get_checkpoint_tracker_filename(root_path: str | os.PathLike) -> str:
    """The file that holds the number of the last whole checkpoint."""
    return os.path.join(root_path, "latest_checkpointed_iteration.txt")


def step_of(folder: str | os.PathLike) -> int:
    """The step of a folder `global_step_N`.

    Raises:
        CheckpointError: the folder has another name.
    """
    match = STEP_FOLDER.fullmatch(Path(folder).name)
    if match is None:
        raise CheckpointError(f"{folder} is no checkpoint: its name should be global_step_N")
    return int(match.group(1))


def whole_checkpoints(root_path: str | os.PathLike) -> dict[int, Path]:
    """`{step: folder}` of the checkpoints of a run folder that were finished, by step."""
    found = {}
    if os.path.isdir(root_path):
        for folder in Path(root_path).iterdir():
            match = STEP_FOLDER.fullmatch(folder.name)
            if match and (folder / MANIFEST).is_file():
                found[int(match.group(1))] = folder
    return dict(sorted(found.items()))


def read_tracker(root_path: str | os.PathLike) -> int | None:
    """The step that `latest_checkpointed_iteration.txt` names, None where there is no such file or no number in it."""
    try:
        return int(Path(get_checkpoint_tracker_filename(root_path)).read_text().strip())
    except FileNotFoundError:
        return None
    except ValueError:
        logger.warning("%s does not hold a step number", get_checkpoint_tracker_filename(root_path))
        return None


def write_tracker(root_path: str | os.PathLike, step: int) -> None:
    """Name the last whole checkpoint; readers see the old number or the new one, never half a file."""
    path = get_checkpoint_tracker_filename(root_path)
    write_text(f"{path}.tmp", str(step))
    os.replace(f"{path}.tmp", path)
    fsync(root_path)


def find_latest_ckpt_path(path: str | os.PathLike | None, directory_format: str = "global_step_{}") -> str | None:
    """The checkpoint to resume from, or None.

    The one that `latest_checkpointed_iteration.txt` names (so a user may go back by editing it); where that one is
    gone or was never named, the newest whole one on disk.
    """
    if path is None:
        return None
    whole = whole_checkpoints(path)
    named = read_tracker(path)
    if named is not None and Path(path, directory_format.format(named)) in whole.values():
        return str(whole[named])
    if not whole:
        if named is not None:
            logger.warning("no whole checkpoint in %s, though its tracker file names step %d", path, named)
        return None
    newest = max(whole)
    if named is not None:
        logger.warning("step %d, named last in %s, is gone: going back to step %d", named, path, newest)
    return str(whole[newest])


def resolve_resume(root_path: str | os.PathLike, resume_mode: str, resume_from_path: str | None = None) -> str | None:
    """The checkpoint folder a run starts from, or None for a fresh start.

    Args:
        resume_mode: `auto` (the last one in the run folder, if any), `disable`, or `resume_path` (`resume_from_path`,
            a folder global_step_N).

    Raises:
        ValueError: an unknown mode, or `resume_path` without a path.
        CheckpointError: the path is no checkpoint.
    """
    if resume_mode == "disable":
        return None
    if resume_mode == "auto":
        return find_latest_ckpt_path(root_path)
    if resume_mode != "resume_path":
        raise ValueError(f"trainer.resume_mode={resume_mode!r}: use one of {', '.join(RESUME_MODES)}")
    if not resume_from_path:
        raise ValueError("trainer.resume_mode=resume_path needs trainer.resume_from_path=.../global_step_N")
    step_of(resume_from_path)
    if not os.path.isdir(resume_from_path):
        raise CheckpointError(f"trainer.resume_from_path={resume_from_path!r}: there is no such folder")
    return str(resume_from_path)
