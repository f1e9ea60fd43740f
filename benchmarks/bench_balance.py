"""How evenly sequences of unequal length are dealt: heaviest rank / mean, log-normal lengths, 1,024 sequences, 8 ranks."""

from __future__ import annotations

import time

import numpy as np

from verl.utils.seqlen_balancing import get_seqlen_balanced_partitions

SEQUENCES, RANKS = 1024, 8


def run() -> list[dict]:
    lengths = np.random.default_rng(0).lognormal(6.5, 0.8, SEQUENCES).astype(int).clip(1, 8192)
    started = time.perf_counter()
    parts = get_seqlen_balanced_partitions(lengths.tolist(), RANKS, equal_size=True)
    seconds = time.perf_counter() - started
    sums = np.array([lengths[part].sum() for part in parts])
    unsorted = lengths.reshape(RANKS, -1).sum(1)
    detail = f"{SEQUENCES} sequences of {lengths.min()} to {lengths.max()} tokens in {1000 * seconds:.0f} ms"
    detail += f"; as they come: {unsorted.max() / unsorted.mean():.2f}"
    return [{"name": "balance: heaviest rank / mean", "ratio": float(sums.max() / sums.mean()), "target": "<= 1.05", "detail": detail}]
