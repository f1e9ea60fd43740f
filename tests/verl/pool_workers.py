"""Workers for test_resource_parts.py, apart so that Ray's processes need not import the tests."""

import os

from tensordict import TensorDict

from verl.single_controller.base import Worker
from verl.single_controller.base.decorator import Dispatch, make_nd_compute_dataproto_dispatch_fn, register


class Placed(Worker):
    def __init__(self, cuda_visible_devices=None):
        super().__init__(cuda_visible_devices)
        # two ranks a share of the rows, the second one answers
        self._register_dispatch_collect_info("pairs", dp_rank=self.rank // 2, is_collect=self.rank % 2 == 1)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def place(self):
        return tuple(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "RAY_LOCAL_RANK", "RAY_LOCAL_WORLD_SIZE"))

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def devices(self):
        return self.get_cuda_visible_devices()

    @register(dispatch_mode=Dispatch.DP_COMPUTE_PROTO)
    def add_rank(self, data: TensorDict) -> TensorDict:
        data["x"] = data["x"] + self.rank
        return data

    @register(dispatch_mode=Dispatch.DP_COMPUTE_PROTO, blocking=False)
    def add_rank_later(self, data: TensorDict) -> TensorDict:
        data["x"] = data["x"] + self.rank
        return data

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="pairs"))
    def add_rank_by_pairs(self, data: TensorDict) -> TensorDict:
        data["x"] = data["x"] + self.rank
        return data


class Scorer(Worker):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    @register(dispatch_mode=Dispatch.ALL_TO_ALL)
    def score(self, x):
        return self.factor * x
