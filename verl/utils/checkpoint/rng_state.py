"""The state of every global random generator of this process: Python, NumPy, torch on CPU and on the current GPU."""

import hashlib
import random
from typing import Any

import numpy as np
import torch


def get_rng_state() -> dict[str, Any]:
    """States as plain values and tensors (see verl.utils.checkpoint.state_io)."""
    state = {"python": random.getstate(), "numpy": np.random.get_state(legacy=True), "torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what :func:`get_rng_state` returned; a GPU's state is skipped where there is no GPU."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def seed_all(*key: Any) -> int:
    """Seed every generator with a pure function of `key`; the seed used."""
    seed = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:4], "big")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return seed
