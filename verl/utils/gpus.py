"""The GPUs of this machine, found without importing torch."""

from __future__ import annotations

import os
import shutil
import subprocess


def visible_gpus() -> list[float]:
    """Memory in GB (2**30 bytes) of each GPU that this process may use; empty without one.

    Asks ``nvidia-smi`` and heeds ``CUDA_VISIBLE_DEVICES`` where that lists indices.
    """
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (subprocess.SubprocessError, OSError):
        return []
    memory = [float(line) / 1024 for line in answer.split("\n") if line.strip().replace(".", "").isdigit()]
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return memory
    wanted = [part.strip() for part in chosen.split(",") if part.strip()]
    if all(part.isdigit() for part in wanted):
        return [memory[int(part)] for part in wanted if int(part) < len(memory)]
    return [] if "-1" in wanted else memory[: len(wanted)]
