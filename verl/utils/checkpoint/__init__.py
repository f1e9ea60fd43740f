"""Checkpoints: whole or absent, loadable on any number of ranks, safe to read."""

from verl.utils.checkpoint.checkpoint_dir import CheckpointDir
from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path, resolve_resume
from verl.utils.checkpoint.errors import CheckpointError, CorruptCheckpoint, DiskFull

__all__ = ["CheckpointDir", "CheckpointError", "CorruptCheckpoint", "DiskFull", "find_latest_ckpt_path", "resolve_resume"]
