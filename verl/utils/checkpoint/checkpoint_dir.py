"""Checkpoints of a run: each is there whole or not at all.

A checkpoint is written into `.global_step_N.tmp` by all ranks, the driver adds its own state and the manifest, all is
flushed, ONE rename makes it `global_step_N`, and then `latest_checkpointed_iteration.txt` is replaced. A run killed at
any moment leaves the checkpoints before it as they were, and a temporary folder that the next start removes.
"""

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from verl.utils.checkpoint.checkpoint_manager import (
    find_latest_ckpt_path,
    get_checkpoint_tracker_filename,
    read_tracker,
    step_of,
    whole_checkpoints,
    write_tracker,
)
from verl.utils.checkpoint.disk_space import folder_bytes, free_bytes, require_free_space
from verl.utils.checkpoint.errors import CheckpointError, CorruptCheckpoint, DiskFull, is_disk_full
from verl.utils.checkpoint.manifest import drop_part, verify, write_manifest
from verl.utils.checkpoint.state_io import fsync, load_state, save_state

logger = logging.getLogger(__name__)

DRIVER_STATE = "driver"
_WRITING, _REPLACED, _REMOVED = ".tmp", ".replaced", ".removed"
_LEFTOVER = re.compile(r"\.(global_step_\d+)(\.tmp|\.replaced|\.removed)")


class CheckpointDir:
    """The checkpoints of one run folder. Used by the driver alone.

    Args:
        root: the run folder; made if missing.
        max_to_keep: how many checkpoints to keep (`trainer.max_actor_ckpt_to_keep`); None or 0 keeps all.
        max_critic_to_keep: how many of those keep their critic (`trainer.max_critic_ckpt_to_keep`); None or 0: all. A
            checkpoint without its critic can be merged and played, not resumed from.

    Saving::

        with checkpoints.saving(step, lambda: {"kl_ctrl": ...}, needed_bytes) as folder:
            actor_group.save_checkpoint(str(folder / "actor"), step)
    """

    def __init__(self, root: str | os.PathLike, max_to_keep: int | None = None, max_critic_to_keep: int | None = None):
        self.root = Path(root)
        self.max_to_keep = max_to_keep if max_to_keep and max_to_keep > 0 else None
        self.max_critic_to_keep = max_critic_to_keep if max_critic_to_keep and max_critic_to_keep > 0 else None
        self.root.mkdir(parents=True, exist_ok=True)

    def clean(self) -> None:
        """Remove what a killed run left half done. Call once at start, before anything is saved."""
        for leftover in list(self.root.iterdir()):
            match = _LEFTOVER.fullmatch(leftover.name)
            if match is None:
                continue
            if match.group(2) == _REPLACED and not (self.root / match.group(1)).exists():
                leftover.rename(self.root / match.group(1))  # killed between the two renames of _publish
            else:
                logger.info("removing %s, left by a run that was stopped", leftover)
                shutil.rmtree(leftover)
        named, whole = read_tracker(self.root), self.steps()
        if named is not None and named not in whole:  # a user removed that folder
            if whole:
                write_tracker(self.root, whole[-1])
            else:
                os.unlink(get_checkpoint_tracker_filename(self.root))

    def steps(self) -> list[int]:
        """Steps of the whole checkpoints on disk, ascending."""
        return list(whole_checkpoints(self.root))

    def latest(self) -> Path | None:
        """The checkpoint to resume from (see find_latest_ckpt_path)."""
        latest = find_latest_ckpt_path(self.root)
        return None if latest is None else Path(latest)

    @contextlib.contextmanager
    def saving(
        self, step: int, driver_state: Callable[[], dict[str, Any]] | dict[str, Any], needed_bytes: int | None = None
    ) -> Iterator[Path]:
        """A temporary folder to write checkpoint `step` into; published on leaving, removed on an error.

        Args:
            driver_state: the driver's own state, or a function that returns it, called once the ranks are done
                (values that verl.utils.checkpoint.state_io can hold).
            needed_bytes: size of the checkpoint, checked against the disk before anything is written;
                None: the size of the last one.

        Raises:
            DiskFull: too little space, before or in the middle of writing.
        """
        self._require_space(needed_bytes)
        folder = self.root / f".global_step_{step}{_WRITING}"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir()
            yield folder
            save_state(folder / DRIVER_STATE, driver_state() if callable(driver_state) else driver_state)
            write_manifest(folder, step=step)
            self._publish(folder, step)
        except BaseException as error:
            free = free_bytes(self.root)
            shutil.rmtree(folder, ignore_errors=True)
            if is_disk_full(error):
                raise DiskFull(self.root, needed_bytes, free) from error
            raise
        self._rotate()

    def load_driver_state(self, folder: str | os.PathLike) -> dict[str, Any]:
        """The driver's state of a checkpoint."""
        return load_state(Path(folder, DRIVER_STATE))

    def verify(self, folder: str | os.PathLike, checksums: bool = True) -> int:
        """Check a checkpoint against its manifest before any worker loads it; its step.

        Raises:
            CorruptCheckpoint: naming the file and the remedy.
            CheckpointError: its critic was removed on rotation.
        """
        manifest = verify(folder, checksums=checksums)
        if manifest.get("dropped"):
            raise CheckpointError(
                f"checkpoint {folder} has no {' and no '.join(manifest['dropped'])} any more (trainer.max_critic_ckpt_to_keep): "
                "its actor can be merged and played; to go on training, resume from a newer checkpoint"
            )
        if manifest.get("step") != step_of(folder):
            raise CorruptCheckpoint(folder, f"its manifest is of step {manifest.get('step')}")
        load_state(Path(folder, DRIVER_STATE))
        return manifest["step"]

    def _require_space(self, needed_bytes: int | None) -> None:
        if needed_bytes is None:
            latest = self.latest()
            needed_bytes = folder_bytes(latest) if latest else 0
        require_free_space(self.root, needed_bytes)

    def _publish(self, folder: Path, step: int) -> None:
        target = self.root / f"global_step_{step}"
        replaced = self.root / f".global_step_{step}{_REPLACED}"
        if target.exists():  # a step saved again after going back
            shutil.rmtree(replaced, ignore_errors=True)
            target.rename(replaced)
        folder.rename(target)
        fsync(self.root)
        write_tracker(self.root, step)
        shutil.rmtree(replaced, ignore_errors=True)
        logger.info("saved checkpoint %s", target)

    def _rotate(self) -> None:
        """Keep the newest `max_to_keep` up to the latest; steps beyond it (after going back) are not touched."""
        latest = read_tracker(self.root)
        if latest is None:
            return
        whole = [folder for step, folder in whole_checkpoints(self.root).items() if step <= latest]
        if self.max_to_keep is not None:
            for folder in whole[: -self.max_to_keep]:
                self._remove(folder)
            whole = whole[-self.max_to_keep :]
        if self.max_critic_to_keep is not None:
            for folder in whole[: -self.max_critic_to_keep]:
                self._remove_critic(folder)

    def _remove_critic(self, folder: Path) -> None:
        if (folder / "critic").is_dir():
            drop_part(folder, "critic")  # first, so that a kill here leaves a checkpoint that says what it lacks
            self._delete(folder / "critic", folder.name)
            logger.info("removed the critic of %s (the newest %s are kept)", folder, self.max_critic_to_keep)

    def _remove(self, folder: Path) -> None:
        self._delete(folder, folder.name)
        logger.info("removed checkpoint %s (the newest %s are kept)", folder, self.max_to_keep)

    def _delete(self, path: Path, name: str) -> None:
        # renamed first: nobody finds half a checkpoint, and a kill here leaves a leftover that clean() removes
        removed = self.root / f".{name}{_REMOVED}"
        shutil.rmtree(removed, ignore_errors=True)
        path.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)
