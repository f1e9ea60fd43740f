"""A batch cut into micro-batches that compute only what is needed.

Rows are sorted by length and cut behind their last selected token (what follows cannot change what is computed). A
micro-batch is padded to its own longest row, or packed into one row without padding, where a shared prompt may stand once;
the head is applied at selected positions only, and the result is put back into a (rows, width) matrix aligned with
`responses = input_ids[:, 1:]`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist

from verl.protocol import DataProto
from verl.utils.seqlen_balancing import length_sorted_micro_batches
from verl.workers.prefix_sharing import PromptGroup, attention_arguments, lay_out, prompt_groups, split_by_prompt


@dataclass(frozen=True)
class BatchLimits:
    """How large a micro-batch may be: tokens (`use_dynamic_bsz`), else rows, else everything at once; and its form.

    `share_prompts` computes the common prompt of rows once; it implies `packed`.
    """

    max_tokens: int | None = None
    max_rows: int | None = None
    packed: bool = False
    share_prompts: bool = False


@dataclass(frozen=True)
class MicroBatch:
    """One forward's worth of rows.

    Attributes:
        rows: (b,) which rows of the batch.
        model_inputs: keyword arguments of the backbone: `input_ids` (b, t) padded or (1, tokens) packed, and so on.
        positions: (n,) selected hidden states, counted over the flattened input; `labels`: (n,) the token after each.
        at: (n,) row and (n,) column of each selected position in the (b, width) matrix.
        width: columns of that matrix.
        real_tokens, computed_tokens: tokens of the rows that are needed, and positions computed for them (more by padding,
            fewer by shared prompts).
    """

    rows: torch.Tensor
    model_inputs: dict
    positions: torch.Tensor
    labels: torch.Tensor
    at: tuple[torch.Tensor, torch.Tensor]
    width: int
    real_tokens: int
    computed_tokens: int

    def to_matrix(self, values: torch.Tensor) -> torch.Tensor:
        """(n,) values at the selected positions -> (b, width), zero elsewhere."""
        return values.new_zeros(len(self.rows), self.width).index_put(self.at, values)

    def take(self, tensor: torch.Tensor) -> torch.Tensor:
        """The micro-batch's part of a per-token tensor (B, T-1), on the device of the micro-batch."""
        return tensor[self.rows.to(tensor.device), : self.width].to(self.positions.device)


def needed_lengths(selected: torch.Tensor) -> torch.Tensor:
    """How many input tokens of each row matter: (B, T-1) selected positions -> (B,), 0 for rows without any.

    The hidden state at index i predicts `responses[i]`, so the tokens up to the last selected index suffice.
    """
    columns = torch.arange(1, selected.shape[1] + 1, device=selected.device)
    return (selected * columns).amax(dim=1) if selected.shape[1] else selected.new_zeros(len(selected), dtype=torch.long)


def split_rows(input_ids: torch.Tensor, selected: torch.Tensor, rows: Sequence[int], limits: BatchLimits) -> list[list[int]]:
    """Those of `rows` with a selected position, in micro-batches: each row once, never above the limits.

    Args:
        input_ids: (B, T); selected: (B, T-1) bool.
    """
    lengths = needed_lengths(selected).tolist()
    rows = [row for row in rows if lengths[row] > 0]
    if not rows:
        return []
    if limits.share_prompts:
        groups = prompt_groups(input_ids, selected, rows)
        return split_by_prompt(groups, lengths, limits.max_tokens, limits.max_rows)
    if limits.max_tokens is not None:
        groups = length_sorted_micro_batches([lengths[row] for row in rows], limits.max_tokens, padded=not limits.packed)
        return [[rows[index] for index in group] for group in groups]
    rows.sort(key=lambda row: (-lengths[row], row))
    size = limits.max_rows or len(rows)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def make_micro_batch(
    input_ids: torch.Tensor, selected: torch.Tensor, rows: Sequence[int], limits: BatchLimits, device: torch.device
) -> MicroBatch:
    """Cut `rows` out of a right-padded batch.

    Args:
        input_ids: (B, T) int64, right padded.
        selected: (B, T-1) bool, the positions to compute; every row in `rows` has at least one.
    """
    index = torch.as_tensor(rows, dtype=torch.long)
    lengths = needed_lengths(selected[index])
    width = int(lengths.max())
    at = selected[index, :width].nonzero(as_tuple=True)
    if limits.packed or limits.share_prompts:
        model_inputs, positions = _packed(input_ids, selected, list(rows), lengths.tolist(), at, limits.share_prompts, device)
    else:
        # Causal attention needs no mask where padding is on the right, nor positions other than 0, 1, 2, ...
        model_inputs = {"input_ids": input_ids[index, :width]}
        positions = at[0] * width + at[1]
    return MicroBatch(
        rows=index,
        model_inputs={k: v.to(device) if torch.is_tensor(v) else v for k, v in model_inputs.items()},
        positions=positions.to(device),
        labels=input_ids[index, 1 : width + 1][at].to(device),
        at=(at[0].to(device), at[1].to(device)),
        width=width,
        real_tokens=int(lengths.sum()),
        computed_tokens=model_inputs["input_ids"].numel(),
    )


def _packed(input_ids, selected, rows, lengths, at, share_prompts, device) -> tuple[dict, torch.Tensor]:
    """The backbone's arguments for rows end to end, and where the selected positions `at` stand in them."""
    length_of = dict(zip(rows, lengths, strict=True))
    groups = prompt_groups(input_ids, selected, rows) if share_prompts else [PromptGroup(0, [row]) for row in rows]
    segments, places = lay_out(groups, length_of)
    model_inputs = {
        "input_ids": torch.cat([input_ids[s.row, s.column : s.column + s.length] for s in segments])[None],
        "position_ids": torch.cat([torch.arange(s.column, s.column + s.length) for s in segments])[None],
        **attention_arguments(segments, device),
    }
    shared, prompt_start, own_start = torch.tensor([places[row] for row in rows]).T
    row, column = at
    return model_inputs, column + torch.where(column < shared[row], prompt_start[row], own_start[row])


def empty_micro_batch(limits: BatchLimits, device: torch.device) -> MicroBatch:
    """Two tokens of no row: what a rank runs while others still have work, so that collectives match."""
    filler = make_micro_batch(torch.zeros(1, 3, dtype=torch.long), torch.tensor([[False, True]]), [0], limits, device)
    return replace(filler, rows=filler.rows[:0], real_tokens=0)


def most_over_ranks(counts: Sequence[int], device: torch.device) -> list[int]:
    """Element-wise maximum of `counts` over all ranks; every rank runs as many micro-batches as the busiest."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return list(counts)
    tensor = torch.tensor(counts, dtype=torch.long, device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor.tolist()


def selected_positions(data: DataProto) -> torch.Tensor:
    """Where values are computed, (B, T-1) bool: `response_mask`, or every real token after the first where there is none.

    Raises:
        ValueError: the batch is not right padded.
    """
    mask = data.batch["attention_mask"]
    check_right_padded(mask)
    keys = data.batch.keys()
    return (data.batch["response_mask"] if "response_mask" in keys else mask[:, 1:]).bool()


def check_right_padded(attention_mask: torch.Tensor) -> None:
    """Raise ValueError where real tokens follow padding: positions are counted from the first column."""
    mask = attention_mask.to(torch.int8)
    if mask.numel() and bool((mask.diff(dim=1) > 0).any()):
        raise ValueError(
            "attention_mask has tokens behind padding: training batches are RIGHT padded (input_ids, attention_mask (B, T); "
            "per-token tensors (B, T-1) aligned with input_ids[:, 1:])"
        )
