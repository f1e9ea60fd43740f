"""Watch a run folder and merge each checkpoint once it is whole."""

import logging
import shutil
import time
from pathlib import Path

from verl.model_merger.merging import MergeConfig, merge
from verl.utils.checkpoint.checkpoint_manager import read_tracker, whole_checkpoints
from verl.utils.checkpoint.errors import CheckpointError

logger = logging.getLogger(__name__)


def monitor(
    watch_dir: str,
    target_root: str,
    role: str = "actor",
    interval: float = 30.0,
    once: bool = False,
    remove_old: bool = False,
    **options,
) -> None:
    """Merge every whole checkpoint of `watch_dir` into `target_root/global_step_N`, then look again every `interval` seconds.

    A checkpoint appears under its name by one rename, so none is ever seen half written; a merged folder appears the
    same way. One that cannot be merged is logged and tried once more at each look.

    Args:
        once: stop after the first look.
        remove_old: remove a checkpoint that was merged, but never the one the run would resume from.
        options: further fields of MergeConfig.
    """
    if not Path(watch_dir).is_dir():
        raise CheckpointError(f"--watch_dir {watch_dir}: there is no such folder")
    while True:
        merge_new(Path(watch_dir), Path(target_root), role, remove_old, **options)
        if once:
            return
        time.sleep(interval)


def merge_new(watch_dir: Path, target_root: Path, role: str = "actor", remove_old: bool = False, **options) -> list[int]:
    """One look: merge what is new, remove what may go; the steps merged."""
    merged = []
    for step, folder in whole_checkpoints(watch_dir).items():
        target = target_root / folder.name
        if not target.exists():
            try:
                merge(MergeConfig(local_dir=str(folder / role), target_dir=str(target), **options))
                merged.append(step)
            except (CheckpointError, OSError) as error:  # the run's own rotation may have taken it away
                logger.warning("step %d was not merged: %s", step, error)
    if remove_old:
        latest = read_tracker(watch_dir)
        for step, folder in whole_checkpoints(watch_dir).items():
            if latest is not None and step < latest and (target_root / folder.name).exists():
                _remove(folder)
    return merged


def _remove(folder: Path) -> None:
    removed = folder.with_name(f".{folder.name}.removed")  # the name that CheckpointDir.clean knows
    folder.rename(removed)
    shutil.rmtree(removed)
    logger.info("removed checkpoint %s, which is merged", folder)
