"""From a matrix of per-token losses to one number that does not depend on how the batch was cut.

A mini-batch is cut over ranks and micro-batches, padded or packed. A mean taken within each piece
would weigh tokens by the piece they fell into. So every piece divides by counts of the whole
mini-batch, and the pieces' losses add up: with ``dp_size`` ranks, whose gradients FSDP averages,

    loss of the mini-batch = 1/dp_size * sum over ranks and micro-batches of agg_loss(...)
"""

from __future__ import annotations

import torch

from verl.utils.torch_functional import masked_sum

LOSS_AGG_MODES = ("token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")


def batch_counts(response_mask: torch.Tensor) -> dict[str, int]:
    """What :func:`agg_loss` must know of the whole mini-batch, from its mask ``(B, T)``:
    ``batch_num_tokens`` (trained tokens) and ``global_batch_size`` (sequences with at least one).
    Take it after rejection; over several ranks add up both numbers."""
    mask = response_mask.bool()
    return {"batch_num_tokens": int(mask.sum()), "global_batch_size": int(mask.any(dim=-1).sum())}


def _count(name: str, given, local: torch.Tensor, dp_size: int):
    """The global count if given, else the local one, at least 1 so that an empty batch costs 0."""
    if given is None:
        if dp_size > 1:
            raise ValueError(f"agg_loss with dp_size={dp_size} needs {name} of the whole mini-batch (see batch_counts)")
        return local.clamp(min=1)
    return given.clamp(min=1) if torch.is_tensor(given) else max(given, 1)


def agg_loss(
    loss_mat: torch.Tensor,
    loss_mask: torch.Tensor,
    loss_agg_mode: str,
    dp_size: int = 1,
    batch_num_tokens: int | torch.Tensor | None = None,
    global_batch_size: int | torch.Tensor | None = None,
    loss_scale_factor: float | None = None,
    sequence_tokens: torch.Tensor | None = None,
) -> torch.Tensor:
    """Aggregate token losses ``loss_mat`` (B, T) under ``loss_mask`` (B, T) into a scalar.

    With ``n_i`` the trained tokens of sequence i, ``N`` = ``batch_num_tokens`` and ``S`` =
    ``global_batch_size`` (sequences with a trained token):

    - ``token-mean`` (DAPO): ``sum_it loss / N``
    - ``token-sum``: ``sum_it loss``, which grows with the mini-batch
    - ``seq-mean-token-sum``: ``sum_i sum_t loss / S``
    - ``seq-mean-token-mean`` (GRPO, GSPO): ``sum_i (sum_t loss / n_i) / S``
    - ``seq-mean-token-sum-norm`` (Dr. GRPO, arXiv:2503.20783): ``sum_i sum_t loss / (S * loss_scale_factor)``

    A sequence is a row, unless ``sequence_tokens`` (B,) gives the trained tokens of the sequence that each row is a part
    of (a trajectory whose turns are rows): its rows then share its one weight, and ``S`` counts sequences, not rows.

    ``N`` and ``S`` are those of the whole mini-batch over all ranks; left out, ``loss_mat`` is taken
    to be the whole mini-batch. The result is multiplied by ``dp_size``, because FSDP averages
    gradients over ranks. ``loss_scale_factor`` must be a constant such as the maximal response
    length; it defaults to T only where ``loss_mat`` is the whole mini-batch, since the width of a
    micro-batch depends on the cut. Values outside the mask are never read; a piece without a
    trained token gives 0 with a zero gradient.

    Raises ``ValueError`` for an unknown mode or a count that is needed and missing.
    """
    mask = loss_mask.bool()
    if loss_agg_mode == "token-sum":
        return masked_sum(loss_mat, mask) * dp_size
    if loss_agg_mode == "token-mean":
        total = masked_sum(loss_mat, mask)
        return total * dp_size / _count("batch_num_tokens", batch_num_tokens, mask.sum(), dp_size)
    if loss_agg_mode not in LOSS_AGG_MODES:
        raise ValueError(f"unknown loss_agg_mode {loss_agg_mode!r} (known: {', '.join(LOSS_AGG_MODES)})")

    row_tokens = mask.sum(dim=-1)
    sequence_tokens = row_tokens if sequence_tokens is None else sequence_tokens
    seq_losses = masked_sum(loss_mat, mask, axis=-1)
    if loss_agg_mode == "seq-mean-token-mean":
        seq_losses = seq_losses / sequence_tokens.clamp(min=1)
    elif loss_agg_mode == "seq-mean-token-sum-norm":
        if loss_scale_factor is None:
            if global_batch_size is not None or dp_size > 1:
                raise ValueError(
                    "seq-mean-token-sum-norm on a part of a mini-batch needs loss_scale_factor, a constant "
                    "such as the maximal response length: set actor.loss_scale_factor"
                )
            loss_scale_factor = loss_mat.shape[-1]
        seq_losses = seq_losses / loss_scale_factor
    return seq_losses.sum() * dp_size / _count("global_batch_size", global_batch_size, _sequences(row_tokens, sequence_tokens), dp_size)


def _sequences(row_tokens: torch.Tensor, sequence_tokens: torch.Tensor) -> torch.Tensor:
    """How many sequences with a trained token these rows make up, those that lie elsewhere in part counted in part."""
    return (row_tokens.double() / sequence_tokens.clamp(min=1)).sum().float()


def agg_seq_loss(
    seq_losses: torch.Tensor,
    response_mask: torch.Tensor,
    dp_size: int = 1,
    batch_num_tokens=None,
    global_batch_size=None,
    loss_scale_factor=None,
    sequence_tokens: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean of losses ``(B,)`` over the sequences that have a trained token, cut-invariant like
    :func:`agg_loss` and with its arguments (of which the numbers of tokens and scale are not used). A row that is a part of
    a sequence weighs by its share of the sequence's tokens."""
    row_tokens = response_mask.bool().sum(dim=-1)
    sequence_tokens = row_tokens if sequence_tokens is None else sequence_tokens
    total = masked_sum(seq_losses * row_tokens / sequence_tokens.clamp(min=1), row_tokens > 0)
    return total * dp_size / _count("global_batch_size", global_batch_size, _sequences(row_tokens, sequence_tokens), dp_size)
