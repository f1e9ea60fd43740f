"""Workers for test_single_controller.py, apart so that Ray's processes need not import the tests."""

import asyncio
import ctypes
import os
import signal
import time

import torch
import torch.distributed as dist

from verl.protocol import DataProto
from verl.single_controller.base import Worker
from verl.single_controller.base.decorator import (
    Dispatch,
    Execute,
    collect_all_to_all,
    make_nd_compute_dataproto_dispatch_fn,
    register,
)


def deal_pairs(worker_group, values):
    """A dispatch of one's own: a list twice as long as the group, two entries a rank."""
    return ([values[2 * rank : 2 * rank + 2] for rank in range(worker_group.world_size)],), {}


class Adder(Worker):
    def __init__(self, offset: float = 0.0):
        super().__init__()
        self.offset = offset
        # both ranks see the same rows, and rank 1 answers: the shape of a tensor-parallel pair
        self._register_dispatch_collect_info("pair", dp_rank=0, is_collect=self.rank == 1)

    def plain(self, y):
        return self.offset + y

    @register(dispatch_mode=Dispatch.DP_COMPUTE_PROTO)
    def add(self, data: DataProto, other: DataProto | None = None) -> DataProto:
        data.batch["a"] += self.rank + self.offset  # in place: the driver's own must not change
        if other is not None:
            data.batch["a"] += other.batch["b"]
        data.meta_info["metrics"] = {"rows": len(data)}
        return data

    @register(dispatch_mode=Dispatch.DP_COMPUTE_PROTO, blocking=False)
    def add_later(self, data: DataProto) -> DataProto:
        time.sleep(0.5)
        data.batch["a"] += self.rank + self.offset
        return data

    @register(dispatch_mode=Dispatch.DP_COMPUTE_METRIC)
    def count(self, data: DataProto) -> int:
        return len(data)

    @register(dispatch_mode=Dispatch.DP_COMPUTE)
    def scale(self, x, by):
        return self.rank, x * by

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def same(self, x):
        if isinstance(x, DataProto):
            x.batch["a"] += self.rank + 1
            return x.batch["a"].tolist()
        return self.rank, x

    @register(dispatch_mode=Dispatch.ALL_TO_ALL)
    def deal(self, x):
        return self.rank, x

    @register(dispatch_mode=Dispatch.ALL_TO_ALL, blocking=False)
    def deal_later(self, x):
        return self.rank, x

    @register(dispatch_mode=Dispatch.RANK_ZERO)
    def first(self, x):
        return self.rank, x

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, execute_mode=Execute.RANK_ZERO)
    def first_of_all(self, x):
        return self.rank, x

    @register(dispatch_mode={"dispatch_fn": deal_pairs, "collect_fn": collect_all_to_all})
    def pairs(self, values):
        return self.rank, values

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="pair"))
    def mirrored(self, data: DataProto) -> DataProto:
        return DataProto.from_dict({"a": data.batch["a"] * 10 + self.rank})

    @register(dispatch_mode=Dispatch.DIRECT_ROLLOUT_METHOD)
    def poke(self, x):
        return f"rank {self.rank} got {x}"

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def environment(self, names):
        return {name: os.environ.get(name) for name in names}, torch.get_num_threads()


class Fragile(Worker):
    """Ranks of a gloo group that can be made to fail in every way."""

    def __init__(self, fail_in_init: bool = False):
        super().__init__()
        if fail_in_init and self.rank == 1:
            raise LookupError("no such model")
        dist.init_process_group("gloo")

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def sum_of_ranks(self):
        total = torch.tensor(float(self.rank))
        dist.all_reduce(total)
        return total.item()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def raise_on(self, rank, kind):
        if self.rank == rank:
            raise kind("as ordered")

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)
    def hang_in_collective(self, except_rank):
        if self.rank == except_rank:
            time.sleep(600)
        dist.all_reduce(torch.ones(1))

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def die_on(self, rank):
        if self.rank == rank:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)

    def hold_the_interpreter_lock(self, seconds):
        return ctypes.PyDLL(None).sleep(seconds)  # PyDLL, unlike CDLL, does not let go of it

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def pid(self):
        return os.getpid()


class Critic(Worker):
    def __init__(self, config):
        super().__init__()
        self.config = config

    @register(dispatch_mode=Dispatch.DP_COMPUTE_PROTO)
    async def subtract(self, data: DataProto) -> DataProto:
        await asyncio.sleep(0)
        data.batch["a"] -= self.config["b"]
        return data

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def neighbour_offset(self):
        return self.get_fused_worker_by_name("adder").offset, os.getpid()
