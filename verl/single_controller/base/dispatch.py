"""The functions behind the dispatch modes.

``dispatch_fn(worker_group, *args, **kwargs) -> (args, kwargs)`` with a list of one entry a rank in the
place of each argument; ``collect_fn(worker_group, outputs) -> result``, where ``outputs`` are the ranks'
results in order (object references for a non-blocking method).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tensordict import TensorDict

from verl._protocol.future import chunk_batch, concat_batches
from verl.protocol import DataProto, DataProtoFuture, pad_dataproto_to_divisor
from verl.single_controller.base.modes import Dispatch

#: key under which a dispatch_fn leaves the number of padded rows among the kwargs
PADDING_SIZE_KEY = "_padding_size"


def dispatch_one_to_all(worker_group, *args, **kwargs):
    n = worker_group.world_size
    return tuple([arg] * n for arg in args), {k: [v] * n for k, v in kwargs.items()}


def dispatch_all_to_all(worker_group, *args, **kwargs):
    return args, kwargs


def collect_all_to_all(worker_group, output):
    return output


def dispatch_dp_compute(worker_group, *args, **kwargs):
    n = worker_group.world_size
    for name, value in _named(args, kwargs):
        if not isinstance(value, list | tuple) or len(value) != n:
            raise ValueError(f"DP_COMPUTE: {name} must be a list of {n} entries, one a rank, got {value!r:.80}")
    return tuple(list(arg) for arg in args), {k: list(v) for k, v in kwargs.items()}


def collect_dp_compute(worker_group, output):
    if len(output) != worker_group.world_size:
        raise ValueError(f"{len(output)} outputs from {worker_group.world_size} ranks")
    return output


def dispatch_dp_compute_data_proto(worker_group, *args, **kwargs):
    """Cut every argument into equal chunks, one a rank. Arguments with padding enabled are first padded
    (a copy is: the caller's own stays as it is) and must then all have one length."""
    return split_data_protos(worker_group.world_size, args, kwargs)


def split_data_protos(chunks: int, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Every argument (DataProto, DataProtoFuture or TensorDict) as a list of ``chunks`` parts; leaves
    :data:`PADDING_SIZE_KEY` if it padded. TensorDicts are never padded."""
    padded_lengths = {}
    for name, value in _named(args, kwargs):
        if not isinstance(value, DataProto | DataProtoFuture | TensorDict):
            raise TypeError(
                f"a DP dispatch of DataProtos or TensorDicts got {name} of type {type(value).__name__}: put it into the "
                "DataProto's meta_info, or use another dispatch mode"
            )
        if isinstance(value, DataProto) and value.is_padding_enabled():
            padded_lengths[name] = len(value)
    if len(set(padded_lengths.values())) > 1:
        raise ValueError(f"arguments that are to be padded differ in length: {padded_lengths}")

    def parts(value):
        if isinstance(value, DataProto) and value.is_padding_enabled():
            value = pad_dataproto_to_divisor(value, chunks)[0]
        return chunk_batch(value, chunks)

    split_args = tuple(parts(arg) for arg in args)
    split_kwargs = {k: parts(v) for k, v in kwargs.items()}
    padding = -next(iter(padded_lengths.values()), 0) % chunks
    if padding:
        split_kwargs[PADDING_SIZE_KEY] = padding
    return split_args, split_kwargs


def dispatch_dp_compute_data_proto_with_func(worker_group, func, *args, **kwargs):
    if not callable(func):
        raise TypeError(f"DP_COMPUTE_PROTO_WITH_FUNC: the first argument must be a function, got {type(func).__name__}")
    args, kwargs = split_data_protos(worker_group.world_size, args, kwargs)
    return ([func] * worker_group.world_size, *args), kwargs


def collect_dp_compute_data_proto(worker_group, output):
    """One DataProto (or TensorDict) of the ranks' own, or the future of it."""
    return _join_batches(worker_group, output, list(range(len(output))))


def _join_batches(worker_group, output: list[Any], ranks: list[int]) -> DataProto | TensorDict | DataProtoFuture:
    if any(all(isinstance(o, kind) for o in output) for kind in (DataProto, TensorDict)):
        return concat_batches(output)
    wrong = [f"rank {rank}: {type(o).__name__}" for rank, o in zip(ranks, output, strict=True) if not worker_group.is_ref(o)]
    if wrong:
        raise TypeError(f"a method whose results are joined must return a DataProto (or each rank a TensorDict), got {', '.join(wrong)}")
    future = DataProtoFuture.concat(output)
    future.wait = partial(worker_group.gather, ranks=ranks)
    return future


def make_nd_compute_dataproto_dispatch_fn(mesh_name: str) -> dict[str, Callable]:
    """A ``dispatch_mode`` for ranks that do not all see different data, e.g. tensor-parallel ones.

    Every worker has told its place with ``self._register_dispatch_collect_info(mesh_name, dp_rank, is_collect)``. Each
    gets the chunk of its ``dp_rank``; of the results those of ranks with ``is_collect`` are joined, by dp_rank.
    """
    return _mode(partial(_dispatch_nd_data_proto, mesh_name), partial(_collect_nd_data_proto, mesh_name))


def _dispatch_nd_data_proto(mesh_name: str, worker_group, *args, **kwargs):
    dp_ranks = [dp_rank for dp_rank, _ in worker_group.mesh(mesh_name)]
    args, kwargs = split_data_protos(max(dp_ranks) + 1, args, kwargs)
    padding = {key: kwargs.pop(key) for key in (PADDING_SIZE_KEY,) if key in kwargs}
    args = tuple([arg[dp_rank] for dp_rank in dp_ranks] for arg in args)
    return args, {**{k: [v[dp_rank] for dp_rank in dp_ranks] for k, v in kwargs.items()}, **padding}


def _collect_nd_data_proto(mesh_name: str, worker_group, output):
    mesh = worker_group.mesh(mesh_name)
    ranks = sorted((rank for rank, (_, collect) in enumerate(mesh) if collect), key=lambda rank: mesh[rank][0])
    return _join_batches(worker_group, [output[rank] for rank in ranks], ranks)


def dispatch_direct_rollout_method(worker_group, *args, **kwargs):
    raise TypeError(
        "a method registered as DIRECT_ROLLOUT_METHOD is called on one worker's own handle, "
        "worker_group.workers[rank].METHOD.remote(...), not on the group"
    )


def _named(args: tuple, kwargs: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(f"argument {i}", a) for i, a in enumerate(args)] + [(f"argument {k!r}", v) for k, v in kwargs.items()]


def _mode(dispatch_fn: Callable, collect_fn: Callable) -> dict[str, Callable]:
    return {"dispatch_fn": dispatch_fn, "collect_fn": collect_fn}


DISPATCH_MODE_FN_REGISTRY: dict[Dispatch, dict[str, Callable]] = {
    Dispatch.RANK_ZERO: _mode(dispatch_all_to_all, collect_all_to_all),
    Dispatch.ONE_TO_ALL: _mode(dispatch_one_to_all, collect_all_to_all),
    Dispatch.ALL_TO_ALL: _mode(dispatch_all_to_all, collect_all_to_all),
    Dispatch.DP_COMPUTE: _mode(dispatch_dp_compute, collect_dp_compute),
    Dispatch.DP_COMPUTE_PROTO: _mode(dispatch_dp_compute_data_proto, collect_dp_compute_data_proto),
    Dispatch.DP_COMPUTE_PROTO_WITH_FUNC: _mode(dispatch_dp_compute_data_proto_with_func, collect_dp_compute_data_proto),
    Dispatch.DP_COMPUTE_METRIC: _mode(dispatch_dp_compute_data_proto, collect_dp_compute),
    Dispatch.DIRECT_ROLLOUT_METHOD: _mode(dispatch_direct_rollout_method, collect_all_to_all),
}


def get_predefined_dispatch_fn(dispatch_mode: Dispatch) -> dict[str, Callable]:
    """``{"dispatch_fn", "collect_fn"}`` of a registered mode; ``KeyError`` names the known ones."""
    try:
        return DISPATCH_MODE_FN_REGISTRY[dispatch_mode]
    except KeyError:
        raise KeyError(f"{dispatch_mode!r} has no dispatch functions; known: {list(DISPATCH_MODE_FN_REGISTRY)}") from None


def register_dispatch_mode(dispatch_mode_name: str, dispatch_fn: Callable, collect_fn: Callable) -> Dispatch:
    """Add a mode of one's own under ``Dispatch.NAME``."""
    mode = Dispatch.register(dispatch_mode_name)
    DISPATCH_MODE_FN_REGISTRY[mode] = _mode(dispatch_fn, collect_fn)
    return mode


def update_dispatch_mode(dispatch_mode: Dispatch, dispatch_fn: Callable, collect_fn: Callable) -> None:
    """Replace the functions of an existing mode (for groups built from then on)."""
    get_predefined_dispatch_fn(dispatch_mode)
    DISPATCH_MODE_FN_REGISTRY[dispatch_mode] = _mode(dispatch_fn, collect_fn)
