"""A DataProto that is still being computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tensordict import TensorDict

from verl._protocol.tensordicts import chunk_rows, concat_rows

if TYPE_CHECKING:
    from verl.protocol import DataProto


def chunk_batch(data: DataProto | DataProtoFuture | TensorDict, chunks: int) -> list[Any]:
    """A batch in ``chunks`` parts of consecutive rows."""
    return chunk_rows(data, chunks) if isinstance(data, TensorDict) else data.chunk(chunks)


def concat_batches(parts: list[Any]) -> DataProto | TensorDict:
    """The rows of DataProtos, or of TensorDicts, in order."""
    from verl.protocol import DataProto

    return concat_rows(parts) if isinstance(parts[0], TensorDict) else DataProto.concat(parts)


def _take_chunk(data: DataProto | TensorDict, *, index: int, chunks: int) -> DataProto | TensorDict:
    return chunk_batch(data, chunks)[index]


@dataclass
class DataProtoFuture:
    """What a non-blocking call on DataProtos (or TensorDicts) returns: one object reference a rank.

    Handed to another worker group as an argument, the data goes from worker to worker; the driver
    never fetches it. ``collect_fn`` turns the ranks' results into one DataProto, ``dispatch_fn`` (if
    any) takes this future's part of that. ``wait`` fetches the references on the driver and raises
    :class:`~verl.single_controller.ray.WorkerDied` rather than hang; it stays behind when the future
    travels.
    """

    collect_fn: Callable[[list[DataProto]], DataProto]
    futures: list[Any]
    dispatch_fn: Callable[[DataProto], DataProto] | None = None
    wait: Callable[[list[Any]], list[Any]] | None = None

    @staticmethod
    def concat(data: list[Any]) -> DataProtoFuture:
        """The future of the concatenation of ``data`` (object references)."""
        return DataProtoFuture(collect_fn=concat_batches, futures=data)

    def chunk(self, chunks: int) -> list[DataProtoFuture]:
        """``chunks`` futures, one for each equal part of the rows."""
        if self.dispatch_fn is not None:
            raise ValueError("this DataProtoFuture is already one chunk of another: get() it before chunking again")
        return [
            DataProtoFuture(self.collect_fn, self.futures, partial(_take_chunk, index=i, chunks=chunks), self.wait)
            for i in range(chunks)
        ]

    def get(self) -> DataProto:
        """Wait for the data and fetch it."""
        import ray

        output = self.collect_fn((self.wait or ray.get)(self.futures))
        return output if self.dispatch_fn is None else self.dispatch_fn(output)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "wait": None}
