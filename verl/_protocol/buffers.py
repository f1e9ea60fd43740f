"""Memory for received and joined tensors, used again from one batch to the next.

Copying into fresh memory costs several times the copy itself, because the kernel must first hand out and clear every
page. A step receives about as much as the last one did, so blocks are kept when their arrays are gone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

_SMALLEST = 1 << 20  # below this malloc reuses its memory by itself
_KEEP = 1 << 29  # bytes kept at most; beyond, the oldest blocks go back to the system

# Free blocks by id, oldest first. No lock guards it, because a lease may end inside any other code (even this);
# each access below is one atomic operation of dict or list, and a block taken meanwhile is found missing.
_free: dict[int, np.ndarray] = {}


class _Lease:
    """Owner of a block while arrays use it. NumPy keeps it alive as the base of every view, so its end
    means that nobody can see the block any more."""

    def __init__(self, block: np.ndarray, shape: tuple[int, ...], dtype: np.dtype):
        self._block = block
        self.__array_interface__ = {"version": 3, "data": (block.ctypes.data, False), "shape": shape, "typestr": dtype.str}

    def __del__(self) -> None:
        _free[id(self._block)] = self._block
        blocks = list(_free.items())
        excess = sum(block.nbytes for _, block in blocks) - _KEEP
        for key, block in blocks:
            if excess <= 0:
                break
            if _free.pop(key, None) is not None:
                excess -= block.nbytes


def copy(array: np.ndarray) -> np.ndarray:
    """A writable copy of ``array``, in reused memory where some fits."""
    if array.nbytes < _SMALLEST or array.dtype.kind not in "biufc":
        return array.copy()
    new = np.asarray(_Lease(_take(array.nbytes), array.shape, array.dtype))
    np.copyto(new, array)
    return new


def cat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """``torch.cat(tensors)``, of large tensors on the CPU in reused memory where some fits."""
    nbytes, first = sum(t.numel() * t.element_size() for t in tensors), tensors[0]
    alike = all(t.dtype == first.dtype and t.dim() == first.dim() and _is_plain(t) for t in tensors)
    if nbytes < _SMALLEST or not alike:
        return torch.cat(list(tensors))
    block = np.asarray(_Lease(_take(nbytes), (nbytes,), np.dtype(np.uint8)))
    shape = (sum(len(t) for t in tensors), *first.shape[1:])
    return torch.cat(list(tensors), out=torch.from_numpy(block).view(first.dtype).reshape(shape))


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether it is an ordinary array in this process's memory that no gradient is asked of."""
    ordinary = type(tensor) is torch.Tensor and tensor.layout == torch.strided and not tensor.is_nested
    return ordinary and tensor.device.type == "cpu" and not tensor.requires_grad


def _take(nbytes: int) -> np.ndarray:
    """The smallest free block that fits and at most doubles the need, or a new one."""
    fitting = [(block.nbytes, key) for key, block in list(_free.items()) if nbytes <= block.nbytes <= 2 * nbytes]
    for _, key in sorted(fitting):
        block = _free.pop(key, None)
        if block is not None:
            return block
    return np.empty(nbytes, dtype=np.uint8)
