"""The rollout engine: requests go in one by one, finished replies come out as they finish.

Life of one training step::

    engine.wake()                      # memory back (GPU; nothing to do on a CPU)
    engine.load_weights(iterator)      # the policy as it is now; the prefix cache is reset
    engine.add("0", ids, params)       # at any time, also between steps
    while engine.unfinished:
        for reply in engine.step():    # one forward pass of continuous batching
            ...
    engine.sleep()                     # memory to the trainer

An engine never touches the process's random state: every request carries its own seed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class SamplingParams:
    """How one reply is sampled. ``temperature`` 0 is greedy; ``top_k`` -1 and ``top_p`` 1 are off.
    ``seed`` makes the reply a function of the weights and the prompt alone. ``logprobs``: wanted with
    the reply (evaluation has no use for them, and they cost time)."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    seed: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    logprobs: bool = True


@dataclass(frozen=True)
class Reply:
    """A finished request. ``token_ids``: the sampled tokens, the stop token included.
    ``logprobs``: of each sampled token under the distribution it was drawn from (temperature
    included, float; the top-p/top-k cut not), empty if not wanted. ``cut``: ended by ``max_tokens``, not by a stop token."""

    request_id: str
    token_ids: list[int]
    logprobs: list[float]
    cut: bool


class RolloutEngine(ABC):
    """See the module docstring. One engine lives in one process (one tensor-parallel rank)."""

    #: longest prompt plus reply, in tokens
    max_model_len: int

    @abstractmethod
    def add(self, request_id: str, prompt_ids: list[int], params: SamplingParams) -> None:
        """Queue a request. Raises ``ValueError`` if the prompt leaves no room for a token."""

    @abstractmethod
    def step(self) -> list[Reply]:
        """Advance every running request by one token; return those that ended."""

    @property
    @abstractmethod
    def unfinished(self) -> int:
        """Requests added and not yet returned by :meth:`step`."""

    @abstractmethod
    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take over weights by their Hugging Face names, tied heads included; forget cached prefixes."""

    def reset_prefix_cache(self) -> None:
        """Forget cached prefixes; nothing may be running. (:meth:`load_weights` does it by itself.)"""

    def sleep(self, level: int | None = None) -> bool:
        """Free accelerator memory until :meth:`wake`; whether any was freed. Level 1 keeps weights in host memory, 2 drops
        them, so that :meth:`load_weights` must follow :meth:`wake`; ``None``: 2 where a sync has been seen to write all."""
        return False

    def wake(self, tags: list[str] | None = None) -> None:
        """Take the memory back."""

    def close(self) -> None:
        """Free everything; the engine cannot be used afterwards."""

    def _check_room(self, prompt_ids: list[int]) -> None:
        if len(prompt_ids) >= self.max_model_len:
            raise ValueError(
                f"a prompt of {len(prompt_ids)} tokens leaves no room in max_model_len={self.max_model_len}: "
                "raise actor_rollout_ref.rollout.max_model_len or shorten the context (agent_proxy.max_context_window)"
            )
