"""``@register``: which methods of a worker a group offers, and how their arguments are dealt out."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from verl.protocol import DataProtoFuture
from verl.single_controller.base.dispatch import (
    DISPATCH_MODE_FN_REGISTRY,
    PADDING_SIZE_KEY,
    collect_all_to_all,
    collect_dp_compute,
    collect_dp_compute_data_proto,
    dispatch_all_to_all,
    dispatch_dp_compute,
    dispatch_dp_compute_data_proto,
    dispatch_dp_compute_data_proto_with_func,
    dispatch_one_to_all,
    get_predefined_dispatch_fn,
    make_nd_compute_dataproto_dispatch_fn,
    register_dispatch_mode,
    update_dispatch_mode,
)
from verl.single_controller.base.modes import Dispatch, Execute

__all__ = [
    "DISPATCH_MODE_FN_REGISTRY",
    "MAGIC_ATTR",
    "PADDING_SIZE_KEY",
    "Dispatch",
    "Execute",
    "collect_all_to_all",
    "collect_dp_compute",
    "collect_dp_compute_data_proto",
    "dispatch_all_to_all",
    "dispatch_dp_compute",
    "dispatch_dp_compute_data_proto",
    "dispatch_dp_compute_data_proto_with_func",
    "dispatch_one_to_all",
    "get_predefined_dispatch_fn",
    "get_predefined_execute_fn",
    "make_nd_compute_dataproto_dispatch_fn",
    "register",
    "register_dispatch_mode",
    "update_dispatch_mode",
]

#: attribute of a registered method: {"dispatch_mode", "execute_mode", "blocking"}
MAGIC_ATTR = "_verl_registered"

#: modes that deal out a different share to each rank, so that rank 0 alone would see one share of the data
_SHARED_OUT = (
    Dispatch.DP_COMPUTE,
    Dispatch.DP_COMPUTE_PROTO,
    Dispatch.DP_COMPUTE_PROTO_WITH_FUNC,
    Dispatch.DP_COMPUTE_METRIC,
)


def register(
    dispatch_mode: Dispatch | dict[str, Callable] = Dispatch.ALL_TO_ALL,
    execute_mode: Execute = Execute.ALL,
    blocking: bool = True,
    materialize_futures: bool = True,
) -> Callable:
    """Offer the decorated method of a Worker on its worker group.

    Args:
        dispatch_mode: a :class:`Dispatch`, or ``{"dispatch_fn": ..., "collect_fn": ...}``
            (:mod:`verl.single_controller.base.dispatch` says what they take and return).
        execute_mode: which ranks execute it.
        blocking: whether a call waits for the results. If not it returns object references, or a
            :class:`~verl.protocol.DataProtoFuture` in the DataProto modes.
        materialize_futures: fetch arguments that are DataProtoFutures (in the worker) before the call.

    Raises ``ValueError`` or ``TypeError`` at once for a combination that cannot work.
    """
    if isinstance(dispatch_mode, dict):
        if not all(callable(dispatch_mode.get(name)) for name in ("dispatch_fn", "collect_fn")):
            raise ValueError(f"a dispatch_mode dict needs functions 'dispatch_fn' and 'collect_fn', got {dispatch_mode}")
    elif not isinstance(dispatch_mode, Dispatch):
        raise TypeError(f"dispatch_mode must be a Dispatch or a dict of functions, got {dispatch_mode!r}")
    if not isinstance(execute_mode, Execute):
        raise TypeError(f"execute_mode must be an Execute, got {execute_mode!r}")
    if execute_mode == Execute.RANK_ZERO and dispatch_mode in _SHARED_OUT:
        raise ValueError(f"{dispatch_mode} gives each rank a share: with Execute.RANK_ZERO the other shares are lost")

    def decorator(func: Callable) -> Callable:
        if inspect.iscoroutinefunction(func):

            @functools.wraps(func)
            async def inner(*args: Any, **kwargs: Any) -> Any:
                args, kwargs = _materialized(args, kwargs) if materialize_futures else (args, kwargs)
                return await func(*args, **kwargs)
        else:

            @functools.wraps(func)
            def inner(*args: Any, **kwargs: Any) -> Any:
                args, kwargs = _materialized(args, kwargs) if materialize_futures else (args, kwargs)
                return func(*args, **kwargs)

        attrs = {"dispatch_mode": dispatch_mode, "execute_mode": execute_mode, "blocking": blocking}
        setattr(inner, MAGIC_ATTR, attrs)
        return inner

    return decorator


def _materialized(args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    def fetch(value: Any) -> Any:
        return value.get() if isinstance(value, DataProtoFuture) else value

    return tuple(fetch(a) for a in args), {k: fetch(v) for k, v in kwargs.items()}


def get_predefined_execute_fn(execute_mode: Execute) -> dict[str, str]:
    """``{"execute_fn_name": ...}``: the method of a WorkerGroup that executes so."""
    return {"execute_fn_name": {"ALL": "execute_all", "RANK_ZERO": "execute_rank_zero"}[execute_mode.name]}
