"""Weights from a trainer to rollout workers in processes of their own, a bounded bucket at a time.

The bytes of all tensors follow one another, cut into buckets: a tensor may span several, a bucket may hold
several, of any dtype. Before each bucket goes a header, ``{"pieces": [[name, dtype, shape, bytes], ...], "last": bool}``
as JSON, so that the receivers need to know nothing of the model. Both sides always come to the end: a sender that
fails says so in a last header, a receiver that fails reads on without keeping anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta

import torch
import torch.distributed as dist

from verl.utils.device import compute_device

Weights = Iterable[tuple[str, torch.Tensor]]


class WeightSyncGroup:
    """Rank 0 sends, all others receive: gloo between CPUs, NCCL between GPUs. Group and store are its own, so that
    the default group of either side is not touched. All members construct it together.

    Args:
        address, port: where rank 0 serves the store that the members meet in.
        rank, world_size: in this group.
        bucket_bytes: of a broadcast; a sender and a receiver each hold one bucket besides the weights.
        timeout_s: how long one member waits for another. A driver that watches its workers notices a dead one sooner.
    """

    def __init__(self, address: str, port: int, rank: int, world_size: int, bucket_bytes: int, timeout_s: float = 1800.0):
        if bucket_bytes < 1:
            raise ValueError(f"bucket_bytes must be at least 1, got {bucket_bytes}: set update_weights_bucket_megabytes above 0")
        self.rank, self.bucket_bytes, self.device = rank, bucket_bytes, compute_device()
        timeout = timedelta(seconds=timeout_s)
        store = dist.TCPStore(address, int(port), world_size, is_master=rank == 0, timeout=timeout)
        backend = dist.ProcessGroupNCCL if self.device.type == "cuda" else dist.ProcessGroupGloo
        self._group = backend(dist.PrefixStore("weights", store), rank, world_size, timeout)
        self._more = False  # buckets to come

    def send(self, weights: Weights) -> None:
        """Broadcast all of ``weights``, (name, tensor) of any dtype and shape. On rank 0 alone."""
        bucket = torch.empty(self.bucket_bytes, dtype=torch.uint8, device=self.device)
        used, pieces = 0, []
        try:
            for name, tensor in weights:
                content = _bytes_of(tensor.detach().to(self.device).contiguous())
                facts = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
                start = 0
                while True:  # at least once: a tensor without elements has a name and a shape too
                    count = min(len(content) - start, self.bucket_bytes - used)
                    bucket[used : used + count] = content[start : start + count]
                    pieces.append([*facts, count])
                    start, used = start + count, used + count
                    if start == len(content):
                        break
                    self._send_bucket(bucket[:used], pieces)
                    used, pieces = 0, []
        except BaseException as error:
            self._send_header({"error": f"{type(error).__name__}: {error}"}, 0)
            raise
        self._send_bucket(bucket[:used], pieces, last=True)

    def receive(self, load: Callable[[Weights], None]) -> None:
        """Call ``load`` with what rank 0 sends: (name, tensor) on this process's device, each tensor its own.

        Raises ``RuntimeError`` where the sender failed, and what ``load`` raises.
        """
        self._more = True
        try:
            load(self._stream())
        finally:
            while self._more:  # whatever load left, and if it closed the stream: the sender is never kept waiting
                self._receive_bucket()

    def _stream(self) -> Iterator[tuple[str, torch.Tensor]]:
        whole, filled = None, 0
        while self._more:
            pieces, bucket = self._receive_bucket()
            at = 0
            for name, dtype, shape, count in pieces:
                if whole is None:
                    whole, filled = torch.empty(shape, dtype=getattr(torch, dtype), device=self.device), 0
                content = _bytes_of(whole)
                content[filled : filled + count] = bucket[at : at + count]
                at, filled = at + count, filled + count
                if filled == len(content):
                    done, whole = whole, None
                    yield name, done

    def _send_bucket(self, bucket: torch.Tensor, pieces: list, last: bool = False) -> None:
        self._send_header({"pieces": pieces, "last": last}, len(bucket))
        if len(bucket):
            self._broadcast(bucket)

    def _send_header(self, header: dict, bucket_bytes: int) -> None:
        text = bytearray(json.dumps(header).encode())
        self._broadcast(torch.tensor([len(text), bucket_bytes], device=self.device))
        self._broadcast(torch.frombuffer(text, dtype=torch.uint8).to(self.device))

    def _receive_bucket(self) -> tuple[list, torch.Tensor]:
        self._more = False  # nothing can be read on after a failure in here
        text_bytes, bucket_bytes = self._broadcast(torch.empty(2, dtype=torch.int64, device=self.device)).tolist()
        text = self._broadcast(torch.empty(text_bytes, dtype=torch.uint8, device=self.device))
        header = json.loads(bytes(text.tolist()))
        if "error" in header:
            raise RuntimeError(f"the trainer failed while it sent its weights: {header['error']}")
        bucket = torch.empty(bucket_bytes, dtype=torch.uint8, device=self.device)
        if bucket_bytes:
            self._broadcast(bucket)
        self._more = not header["last"]
        return header["pieces"], bucket

    def _broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        self._group.broadcast(tensor, 0).wait()
        return tensor


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous tensor's own memory as (bytes,) uint8."""
    return tensor.reshape(-1).view(torch.uint8)
