"""What the ranks of test_compat.py's process group do."""

import numpy as np
import torch
import torch.distributed as dist

from verl.protocol import DataProto, DataProtoError, all_gather_data_proto

DTYPES = (torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.float64)


def rows_of(rank: int, count: int) -> DataProto:
    numbers = torch.arange(count * 4).view(count, 2, 2) + 100 * rank
    tensors = {str(dtype): numbers.to(dtype) for dtype in DTYPES} | {"flat": numbers[:, 0, 0].clone()}
    return DataProto.from_dict(tensors, {"uid": np.array([f"{rank}.{i}" for i in range(count)], dtype=object)}, {"rank": rank})


def gathered(rank: int, counts: list[int]) -> DataProto:
    dist.init_process_group("gloo", rank=rank, world_size=len(counts))
    data = rows_of(rank, counts[rank])
    assert all_gather_data_proto(data, dist.group.WORLD) is None
    return data


def gathered_values_alone(rank: int) -> list:
    dist.init_process_group("gloo", rank=rank, world_size=2)
    data = DataProto(None, {"uid": np.array([rank, -rank], dtype=object)})
    all_gather_data_proto(data, None)
    return data.non_tensor_batch["uid"].tolist()


def refused(rank: int) -> list[str]:
    """Ranks whose batches do not fit together: the message on each, and the group still works afterwards."""
    dist.init_process_group("gloo", rank=rank, world_size=2)
    messages = []
    for data in (
        DataProto.from_dict({"x": torch.zeros(2, 3 + rank)}),
        DataProto.from_dict({"x": torch.zeros(2, dtype=(torch.float32, torch.float64)[rank])}),
        DataProto.from_dict({"x": torch.zeros(2), **({"y": torch.zeros(2)} if rank else {})}),
    ):
        try:
            all_gather_data_proto(data, None)
        except DataProtoError as error:
            messages.append(str(error))
    again = rows_of(rank, 1)
    all_gather_data_proto(again, None)
    return [*messages, len(again)]
