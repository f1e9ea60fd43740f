"""What can go wrong with a checkpoint, said so that the reader knows what to do."""

import errno
import os
from pathlib import Path


class CheckpointError(RuntimeError):
    """A checkpoint cannot be saved or loaded; the message names the file or folder and the remedy."""


class CorruptCheckpoint(CheckpointError):
    """A file of a checkpoint is missing, cut short or altered."""

    def __init__(self, folder: str | os.PathLike, problem: str):
        folder = Path(folder)  # the whole checkpoint, where the damage is in a part of it
        folder = next((parent for parent in (folder, *folder.parents) if parent.name.startswith("global_step_")), folder)
        super().__init__(
            f"checkpoint {folder} is damaged: {problem}. Remove that folder to fall back to the checkpoint before it, "
            "or start anew with trainer.resume_mode=disable"
        )
        self.folder, self.problem = str(folder), problem

    def __reduce__(self):  # it travels from a worker to the driver
        return CorruptCheckpoint, (self.folder, self.problem)


class DiskFull(CheckpointError):
    """No room for a checkpoint. Whatever was saved before is untouched."""

    def __init__(self, folder: str | os.PathLike, needed_bytes: int | None, free_bytes: int | None):
        needed = "more than is free" if needed_bytes is None else f"{needed_bytes} bytes ({needed_bytes / 2**30:.2f} GiB)"
        free = "unknown" if free_bytes is None else f"{free_bytes} bytes ({free_bytes / 2**30:.2f} GiB)"
        super().__init__(
            f"no disk space for a checkpoint in {folder}: needed {needed}, free {free}. Nothing already saved is lost. "
            "Free some space, lower trainer.max_actor_ckpt_to_keep, or point trainer.default_local_dir at a larger disk; "
            "then start again, and the run goes on from its last checkpoint"
        )
        self.folder, self.needed_bytes, self.free_bytes = str(folder), needed_bytes, free_bytes

    def __reduce__(self):
        return DiskFull, (self.folder, self.needed_bytes, self.free_bytes)


_NO_SPACE_TEXTS = ("No space left on device", "Disk quota exceeded", "no disk space for a checkpoint")
_NO_SPACE_NUMBERS = {errno.ENOSPC, errno.EDQUOT}


def is_disk_full(error: BaseException | None) -> bool:
    """Whether `error`, or one that caused it, says that the disk is full.

    An error that crossed processes (Ray, torch.distributed.checkpoint) keeps only its text, so that is read too.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in _NO_SPACE_NUMBERS):
            return True
        if any(text in str(error) for text in _NO_SPACE_TEXTS):
            return True
        for nested in getattr(error, "failures", {}).values():  # CheckpointException: {rank: (exception, traceback)}
            if is_disk_full(nested[0]):
                return True
        error = error.__cause__ or error.__context__
    return False
