"""Batches for the tests of DataProto, with the same entries as plain arrays."""

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st

from verl.protocol import DataProto

FEW = settings(max_examples=40, deadline=None)
rows = st.integers(1, 12)
seeds = st.integers(0, 2**31)


def make(n: int, seed: int = 0) -> tuple[DataProto, dict[str, np.ndarray]]:
    """A DataProto of ``n`` rows and the same entries as plain arrays."""
    rng = np.random.default_rng(seed)
    plain = {
        "ids": rng.integers(0, 1000, (n, 4)),
        "logp": rng.standard_normal((n, 3)).astype(np.float32),
        "mask": rng.integers(0, 2, (n,)).astype(bool),
        "half": rng.integers(-8, 8, (n, 2)).astype(np.float32),  # exact in bfloat16
        "uid": np.array([f"g{i // 2}" for i in range(n)], dtype=object),
        "turns": rng.integers(0, 9, (n, 2)),
    }
    tensors = {k: torch.from_numpy(plain[k].copy()) for k in ("ids", "logp", "mask", "half")}
    tensors["half"] = tensors["half"].bfloat16()
    arrays = {k: plain[k].copy() for k in ("uid", "turns")}
    return DataProto.from_dict(tensors, arrays, {"temperature": 0.5}), plain


def assert_same(data: DataProto, plain: dict[str, np.ndarray]) -> None:
    assert set(data.batch.keys()) | set(data.non_tensor_batch) == set(plain)
    for key, expected in plain.items():
        if key in data.non_tensor_batch:
            got = data.non_tensor_batch[key]
        else:
            tensor = data.batch[key]
            assert tensor.dtype == (torch.bfloat16 if key == "half" else torch.from_numpy(expected[:0].copy()).dtype)
            got = tensor.float().numpy() if key == "half" else tensor.numpy()
        np.testing.assert_array_equal(got, expected, err_msg=key)
    assert data.meta_info == {"temperature": 0.5}
    data.check_consistency()
    assert len(data) == len(plain["ids"])
