"""A prompt that several rows share is computed once (`actor.use_prefix_grouper`).

The members of a group have one prompt. Laid end to end, its tokens stand once, followed by what each row adds; a row's own
tokens attend to the prompt and to themselves (`verl.utils.attention`). There is no padding, and the result and its gradient
are those of separate rows, to float noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class PromptGroup:
    """Rows whose first `prompt_length` tokens are the same and hold no token that was sampled."""

    prompt_length: int
    rows: list[int]


@dataclass(frozen=True)
class Segment:
    """Columns `column` to `column + length` of a row, standing at `start` in the packed row; they continue segment `prefix`
    (-1: none)."""

    row: int
    column: int
    length: int
    start: int
    prefix: int


def prompt_groups(input_ids: torch.Tensor, selected: torch.Tensor, rows: Sequence[int]) -> list[PromptGroup]:
    """Rows by their prompt, that is by all tokens up to the one that the first selected token follows.

    Args:
        input_ids: (B, T); selected: (B, T-1) bool; every row in `rows` has a selected position.
    """
    found: dict[bytes, PromptGroup] = {}
    first = selected.int().argmax(dim=1).tolist()
    for row in rows:
        prompt = input_ids[row, : first[row] + 1]
        found.setdefault(prompt.numpy().tobytes(), PromptGroup(len(prompt), [])).rows.append(row)
    return list(found.values())


def split_by_prompt(
    groups: list[PromptGroup], lengths: Sequence[int], max_tokens: int | None, max_rows: int | None
) -> list[list[int]]:
    """Rows in micro-batches of at most `max_tokens` tokens (each prompt counted once a micro-batch), or at most `max_rows` rows.

    Raises:
        ValueError: a row alone has more tokens than the budget.
    """
    micro_batches: list[list[int]] = []
    tokens = 0
    for group in groups:
        is_open = False  # whether this prompt is already in the current micro-batch
        for row in group.rows:
            if max_tokens is not None and lengths[row] > max_tokens:
                raise ValueError(
                    f"a sequence of {lengths[row]} tokens exceeds the budget of {max_tokens} a micro-batch: raise "
                    "ppo_max_token_len_per_gpu (log_prob_max_token_len_per_gpu) or shorten episodes (max_model_len)"
                )
            more = lengths[row] - (group.prompt_length if is_open else 0)
            over_tokens = max_tokens is not None and tokens + more > max_tokens
            over_rows = max_tokens is None and max_rows is not None and micro_batches and len(micro_batches[-1]) == max_rows
            if not micro_batches or over_tokens or over_rows:
                micro_batches.append([])
                tokens, more = 0, lengths[row]
            micro_batches[-1].append(row)
            tokens, is_open = tokens + more, True
    return micro_batches


def lay_out(groups: list[PromptGroup], lengths: Mapping[int, int]) -> tuple[list[Segment], dict[int, tuple[int, int, int]]]:
    """Where everything stands in the packed row.

    Returns:
        the segments in order, and for each row (P, where its column 0 stands, where column P would stand, less P), with P its
        shared columns: column c stands at the second number + c below P, at the third + c from there on.
    """
    segments: list[Segment] = []
    places: dict[int, tuple[int, int, int]] = {}
    position = 0
    for group in groups:
        shared = group.prompt_length if len(group.rows) > 1 else 0
        prompt, prompt_start = -1, position
        if shared:
            prompt = len(segments)
            segments.append(Segment(group.rows[0], 0, shared, position, -1))
            position += shared
        for row in group.rows:
            own = lengths[row] - shared
            places[row] = (shared, prompt_start, position - shared)
            if own:
                segments.append(Segment(row, shared, own, position, prompt))
                position += own
    return segments, places


def attention_arguments(segments: list[Segment], device: torch.device, for_kernel: bool | None = None) -> dict:
    """What `torch_varlen` needs to know of the segments: query and key lengths, and for the kernel (by default: on a GPU)
    which keys a query sees."""
    for_kernel = device.type == "cuda" if for_kernel is None else for_kernel
    lengths = [segment.length for segment in segments]
    key_lengths = [s.length + (segments[s.prefix].length if s.prefix >= 0 else 0) for s in segments]
    arguments = {
        "segment_lengths": tuple(lengths),
        "segment_prefixes": tuple(segment.prefix for segment in segments),
        "cu_seq_lens_q": _boundaries(lengths).to(device),
        "cu_seq_lens_k": _boundaries(key_lengths).to(device),
        "max_length_q": max(lengths),
        "max_length_k": max(key_lengths),
    }
    if for_kernel and key_lengths != lengths:
        keys = []
        for segment in segments:
            for part in ([segments[segment.prefix]] if segment.prefix >= 0 else []) + [segment]:
                keys.append(torch.arange(part.start, part.start + part.length))
        arguments["key_index"] = torch.cat(keys).to(device)
    return arguments


def _boundaries(lengths: list[int]) -> torch.Tensor:
    return torch.nn.functional.pad(torch.tensor(lengths).cumsum(0), (1, 0)).to(torch.int32)
