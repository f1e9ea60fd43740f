"""How tensors travel between processes: as NumPy arrays.

``torch``'s own pickling copies whole storages through a byte string (a slice drags its parent along).
A NumPy array is pickled by protocol 5 as an out-of-band buffer instead, which Ray writes straight into
shared memory. On arrival such a buffer is read-only and shared with the other readers, so it is copied
once: worker code may write to its batch in place, and a neighbour must not see that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tensordict import TensorDict

from verl._protocol import buffers

# dtypes that NumPy lacks travel under an integer type of the same width
_CARRIER = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


def _to_array(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    try:
        return tensor.numpy()
    except TypeError:  # bfloat16, float8: unknown to NumPy
        return tensor.view(_CARRIER[tensor.element_size()]).numpy()


def own(array: np.ndarray) -> np.ndarray:
    """``array``, or a copy of it if it is a read-only view (of Ray's shared memory)."""
    return array if array.flags.writeable else buffers.copy(array)


def serialize_single_tensor(tensor: torch.Tensor) -> tuple[str, Any, Any]:
    """``(dtype, shape, data)`` of a tensor on any device; ``data`` is an array that shares memory with
    a contiguous CPU tensor. Nested tensors give ``(layout, None, [component, ...])``."""
    if tensor.is_nested:
        layout = "jagged" if tensor.layout == torch.jagged else "strided"
        return f"nested:{layout}", None, [serialize_single_tensor(part) for part in tensor.unbind()]
    return str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), _to_array(tensor)


def deserialize_single_tensor(packed: tuple[str, Any, Any]) -> torch.Tensor:
    """Inverse of :func:`serialize_single_tensor`; the result is on the CPU and may be written to."""
    dtype, shape, data = packed
    if dtype.startswith("nested:"):
        layout = torch.jagged if dtype == "nested:jagged" else torch.strided
        return torch.nested.as_nested_tensor([deserialize_single_tensor(part) for part in data], layout=layout)
    tensor, wanted = torch.from_numpy(own(data)), getattr(torch, dtype)
    return (tensor if tensor.dtype == wanted else tensor.view(wanted)).reshape(shape)


def serialize_tensordict(batch: TensorDict) -> tuple[tuple[int, ...], str | None, dict[str, Any]]:
    """``(batch_size, device, {key: serialized tensor})``; entries that are no tensors (nested
    TensorDicts, NonTensorData) are passed on as they are, for pickle to deal with."""
    items = {}
    for key, value in batch.items():
        items[key] = serialize_single_tensor(value) if isinstance(value, torch.Tensor) else value
    return tuple(batch.batch_size), None if batch.device is None else str(batch.device), items


def deserialize_tensordict(packed: tuple[tuple[int, ...], str | None, dict[str, Any]]) -> TensorDict:
    """Inverse of :func:`serialize_tensordict`, always on the CPU: the receiver may have no such device."""
    batch_size, device, items = packed
    source = {k: deserialize_single_tensor(v) if isinstance(v, tuple) else v for k, v in items.items()}
    return TensorDict(source, batch_size=batch_size, device=None if device is None else "cpu")
