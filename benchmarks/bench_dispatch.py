"""What a DataProto costs on its way to the workers and back, against the same bytes as plain NumPy arrays.

A batch of 130 MB goes to two workers, half each, and comes back. Both forms take the same way: through the same two
Ray actors, one after the other in one run, so that only the ratio is of interest. VeRL's own takes 10 to 30 times as long.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np
import ray
import torch

from verl.protocol import DataProto
from verl.single_controller.base import Worker
from verl.single_controller.base.decorator import Dispatch, register
from verl.single_controller.ray import RayClassWithInitArgs, RayResourcePool, RayWorkerGroup

TARGET = 3.0
ROWS, TOKENS = 2048, 2048  # 31 bytes a token: 130 MB
REPEATS = 9


class Sink(Worker):
    """Takes data in, and sends it back if asked."""

    @register(dispatch_mode=Dispatch.DP_COMPUTE_METRIC)
    def take(self, data: DataProto) -> int:
        return len(data)

    @register(dispatch_mode=Dispatch.DP_COMPUTE_PROTO)
    def echo(self, data: DataProto) -> DataProto:
        return data

    @register(dispatch_mode=Dispatch.DP_COMPUTE)
    def take_arrays(self, arrays: dict[str, np.ndarray]) -> int:
        return len(arrays["input_ids"])

    @register(dispatch_mode=Dispatch.DP_COMPUTE)
    def echo_arrays(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return arrays


def make_batch(rows: int = ROWS, tokens: int = TOKENS) -> DataProto:
    """A training batch of about ``31 * rows * tokens`` bytes in the dtypes of the real one."""
    rng = np.random.default_rng(0)
    ids = torch.from_numpy(rng.integers(0, 150_000, (rows, tokens)))
    mask = ids % 3 > 0
    logp = torch.from_numpy(rng.standard_normal((rows, tokens), dtype=np.float32))
    tensors = {
        "input_ids": ids,
        "position_ids": ids + 1,
        "attention_mask": mask,
        "old_log_probs": logp,
        "advantages": logp * 2,
        "ref_log_prob": logp * 3,
        "values": logp.bfloat16(),
    }
    uid = np.array([f"group-{i // 16}" for i in range(rows)], dtype=object)
    return DataProto.from_dict(tensors, {"uid": uid}, {"temperature": 1.0})


def as_arrays(data: DataProto) -> dict[str, np.ndarray]:
    """The same bytes as NumPy arrays (bfloat16, which NumPy lacks, as int16)."""
    tensors = {k: t.view(torch.int16) if t.dtype == torch.bfloat16 else t for k, t in data.batch.items()}
    return {**{k: t.numpy() for k, t in tensors.items()}, **data.non_tensor_batch}


def _best_seconds(*actions: Callable[[], Any]) -> list[float]:
    """Shortest time of each action, the actions taking turns, after one round of warming up. The shortest, because
    whatever else the machine does can only lengthen it."""
    times: list[list[float]] = [[] for _ in actions]
    for repeat in range(REPEATS + 1):
        for action, seconds in zip(actions, times, strict=True):
            start = time.perf_counter()
            action()
            if repeat:
                seconds.append(time.perf_counter() - start)
    return [min(seconds) for seconds in times]


@contextmanager
def _cluster():
    """A small cluster of our own, unless the caller has one."""
    if ray.is_initialized():
        yield
        return
    folder = tempfile.mkdtemp(prefix="ray_")
    ray.init(address="local", num_cpus=2, include_dashboard=False, _temp_dir=folder, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def run() -> list[dict]:
    """Rows ``{name, ratio, target, detail}``; a ratio is time as DataProto / time as arrays."""
    data = make_batch()
    half = ROWS // 2
    arrays = [{k: v[i * half : (i + 1) * half] for k, v in as_arrays(data).items()} for i in range(2)]
    megabytes = sum(v.nbytes for part in arrays for v in part.values()) / 1e6
    with _cluster():
        pool = RayResourcePool([2], use_gpu=False, cpus_per_process=0.5)
        group = RayWorkerGroup(pool, RayClassWithInitArgs(Sink))
        try:
            trips = {
                "to two workers": _best_seconds(lambda: group.take(data), lambda: group.take_arrays(arrays)),
                "to two workers and back": _best_seconds(
                    lambda: group.echo(data),
                    # the driver joins the parts, as it does for a DataProto
                    lambda: _joined(group.echo_arrays(arrays)),
                ),
            }
        finally:
            group.shutdown()
    return [
        {
            "name": f"dispatch: DataProto / NumPy arrays, {name}",
            "ratio": proto / plain,
            "target": f"<= {TARGET:g}",
            "detail": f"{megabytes:.0f} MB: {proto * 1e3:.0f} ms against {plain * 1e3:.0f} ms",
        }
        for name, (proto, plain) in trips.items()
    ]


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


if __name__ == "__main__":
    for row in run():
        print(f"{row['name']}: {row['ratio']:.2f} (target {row['target']}); {row['detail']}")
