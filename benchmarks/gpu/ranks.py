"""Ranks of a process group, each a process: what they find goes to stdout as they find it, so that a hang shows where it is.

Several ranks share one GPU where there is no other. NCCL refuses that within a host, so each rank says that it is on
a host of its own (``NCCL_HOSTID``) and they meet over the loopback interface: slow, and the same calls.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_ranks(world: int, device: str, limit_s: float) -> tuple[dict[str, list], str]:
    """``({scenario: [each rank's answer]}, what ended it)``; the second is empty where all came to an end."""
    import torch

    from verl.single_controller.base.worker import get_free_port

    port, sync_port, processes = get_free_port(), get_free_port(), []
    devices = torch.cuda.device_count() if device == "cuda" else 0
    for rank in range(world):
        env = {
            **os.environ, "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank % max(devices, 1)),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "SYNC_PORT": str(sync_port), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        if world > devices > 0:
            env |= {"NCCL_HOSTID": f"rank{rank}", "NCCL_SOCKET_IFNAME": "lo", "NCCL_IB_DISABLE": "1"}
        command = [sys.executable, "-m", "benchmarks.gpu.ranks", "--device", device]
        processes.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True))
    end, ended = time.monotonic() + limit_s, []
    for rank, process in enumerate(processes):
        try:
            process.wait(timeout=max(0.1, end - time.monotonic()))
            if process.returncode:
                ended.append(f"rank {rank} ended with status {process.returncode}")
                end = min(end, time.monotonic() + 10)  # the others wait for it in vain
        except subprocess.TimeoutExpired:
            ended.append(f"rank {rank} did not come to an end within {limit_s:.0f} s")
            process.kill()
    found: dict[str, list] = {}
    for process in processes:
        for text in process.communicate()[0].splitlines():
            if text.startswith("{"):
                answer = json.loads(text)
                found.setdefault(answer["scenario"], []).append(answer["found"])
    return found, "; ".join(ended)


def _collectives(rank: int, world: int, device: str) -> dict:
    """The project's own group: on the device and, beside NCCL, on the CPU."""
    import torch
    import torch.distributed as dist

    right = {}
    for place in {device, "cpu"}:
        mine = torch.full((1024,), float(rank + 1), device=place)
        total = mine.clone()
        dist.all_reduce(total)
        gathered = mine.new_empty(world * 1024)
        dist.all_gather_into_tensor(gathered, mine)
        sent = mine.clone()
        dist.broadcast(sent, src=world - 1)
        right[f"{place}: all_reduce"] = bool((total == world * (world + 1) / 2).all())
        right[f"{place}: all_gather"] = gathered.view(world, -1)[:, 0].tolist() == [r + 1.0 for r in range(world)]
        right[f"{place}: broadcast"] = bool((sent == world).all())
    part = torch.empty(4, device=device)
    dist.reduce_scatter_tensor(part, torch.arange(4.0 * world, device=device))
    right["reduce_scatter"] = part.tolist() == [world * (4.0 * rank + i) for i in range(4)]
    everyone = [None] * world
    dist.all_gather_object(everyone, rank)
    right["objects"] = everyone == list(range(world))
    dist.barrier()
    return right


def _groups(rank: int, world: int, device: str) -> dict:
    """Groups that are no partition of the ranks, made after ``device_id`` was given: overlapping ones, and one that leaves ranks out."""
    import torch
    import torch.distributed as dist

    right, members = {}, [[0], list(range(world)), list(range(max(0, world - 2), world)), [0]]
    for kind in ("device's", "gloo"):
        for number, ranks in enumerate(members):
            group = dist.new_group(ranks, backend="gloo" if kind == "gloo" else None)
            if rank in ranks:
                total = torch.ones(8, device="cpu" if kind == "gloo" else device)
                dist.all_reduce(total, group=group)
                right[f"{kind} group {number} of {ranks}"] = bool((total == len(ranks)).all())
    return right


def _weight_sync(rank: int, world: int, device: str) -> dict:
    """:class:`verl.workers.weight_sync.WeightSyncGroup`: rank 0 sends, in buckets smaller than a tensor."""
    import torch

    from verl.workers.weight_sync import WeightSyncGroup

    group = WeightSyncGroup("127.0.0.1", int(os.environ["SYNC_PORT"]), rank, world, bucket_bytes=1 << 20, timeout_s=60)
    generator = torch.Generator().manual_seed(0)
    weights = [(f"w{i}", torch.randn(300, 400 + i, generator=generator).to(torch.bfloat16 if i % 2 else torch.float32)) for i in range(8)]
    if rank == 0:
        group.send((name, tensor.to(device)) for name, tensor in weights)
        return {"sent": True}
    came: dict[str, torch.Tensor] = {}
    group.receive(lambda stream: came.update((name, tensor.cpu()) for name, tensor in stream))
    return {"every tensor came": came.keys() == dict(weights).keys() and all(torch.equal(came[name], tensor) for name, tensor in weights)}


def _constructors(rank: int, world: int, device: str) -> dict:
    """A backend built by hand: with a timeout as `WeightSyncGroup` does, and with Options as torch itself does."""
    import torch
    import torch.distributed as dist

    backend = dist.ProcessGroupNCCL if device == "cuda" else dist.ProcessGroupGloo
    right = {}
    for form in ("timeout", "options"):
        store = dist.PrefixStore(form, dist.HashStore())
        try:
            if form == "timeout":
                group = backend(store, 0, 1, timedelta(seconds=30))
            else:
                options = backend.Options() if device == "cuda" else backend._Options()
                options._timeout = timedelta(seconds=30)
                if device == "cpu":
                    options._devices = [backend.create_device(hostname="127.0.0.1", lazy_init=False)]
                group = backend(store, 0, 1, options)
            tensor = torch.ones(4, device=device)
            group.broadcast(tensor, 0).wait()
            right[f"{backend.__name__} from {form}"] = True
        except (TypeError, RuntimeError, AttributeError) as error:
            print(f"{form}: {error}", file=sys.stderr)
            right[f"{backend.__name__} from {form}"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return right


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", required=True)
    device = parser.parse_args().device
    import torch.distributed as dist

    from verl.utils.device import init_process_group

    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    init_process_group(rank, world)
    scenarios = [("collectives", _collectives), ("groups", _groups)]
    scenarios += [("constructors", _constructors)] if world == 1 else [("weight sync", _weight_sync)]
    for name, scenario in scenarios:
        print(json.dumps({"scenario": name, "found": scenario(rank, world, device)}), flush=True)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
