"""Random ragged batches for the tests of the algorithms: masks with holes, rewards anywhere, groups."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import strategies as st

#: (seed, rows, width): hypothesis shrinks towards small batches
batches = st.tuples(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 9))


def draw(params, *, empty_rows: bool = True, groups: int = 3) -> SimpleNamespace:
    """Float64 NumPy arrays (B, T) of everything an estimator or a loss reads; a mask with holes, each
    row with a sampled token unless ``empty_rows``."""
    seed, rows, width = params
    rng = np.random.default_rng(seed)
    mask = rng.random((rows, width)) < 0.6
    if not empty_rows:
        mask[np.arange(rows), rng.integers(width, size=rows)] = True
    old = np.log(rng.uniform(0.02, 0.98, (rows, width)))
    return SimpleNamespace(
        rng=rng,
        mask=mask,
        old=old,
        rows=rows,
        width=width,
        logp=np.minimum(old + rng.normal(0, 0.4, (rows, width)), -1e-3),
        adv=rng.normal(0, 1.5, (rows, width)) * (rng.random((rows, width)) < 0.9),
        rewards=rng.normal(0, 1, (rows, width)) * (rng.random((rows, width)) < 0.4),
        values=rng.normal(0, 1, (rows, width)),
        uid=np.array([f"g{g}" for g in rng.integers(groups, size=rows)], dtype=object),
    )


def tensor(array) -> torch.Tensor:
    return torch.as_tensor(np.asarray(array))


def cuts(rng: np.random.Generator, rows: int, pieces: int) -> list[np.ndarray]:
    """The rows, shuffled, in ``pieces`` parts of any size, empty ones included."""
    order = rng.permutation(rows)
    bounds = np.sort(rng.integers(0, rows + 1, size=pieces - 1))
    return np.split(order, bounds)
