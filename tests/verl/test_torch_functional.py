"""Chunked log-probabilities against torch's own log_softmax and finite differences; masked statistics,
padding and schedules against NumPy and closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ragged_batches import batches, draw, tensor

from verl.utils import chunked_logprobs
from verl.utils import torch_functional as F


def reference(logits, labels):
    """(logp, entropy) from the definition, in float64."""
    logp = torch.log_softmax(logits.double(), -1)
    return logp.gather(-1, labels[..., None])[..., 0], -(logp.exp() * logp).sum(-1)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 12),
    st.integers(2, 9),
    st.one_of(st.none(), st.integers(1, 13)),
    st.floats(0.3, 2.0),
    st.booleans(),
)
def test_chunked_head_has_the_value_and_gradient_of_the_whole(seed, n, vocab, chunk, temperature, with_entropy):
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, 4, generator=g, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(vocab, 4, generator=g, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(vocab, (n,), generator=g)
    logp, entropy = F.chunked_logprobs_entropy(hidden, weight, labels, temperature, chunk, with_entropy)
    want_logp, want_entropy = reference(hidden @ weight.T / temperature, labels)
    torch.testing.assert_close(logp, want_logp)
    assert (entropy is not None) == with_entropy
    mix = torch.randn(n, generator=g, dtype=torch.float64)
    got, want = (logp * mix).sum(), (want_logp * mix).sum()
    if with_entropy:
        torch.testing.assert_close(entropy, want_entropy)
        got, want = got + (entropy * mix.flip(0)).sum(), want + (want_entropy * mix.flip(0)).sum()
    for a, b in zip(torch.autograd.grad(got, (hidden, weight)), torch.autograd.grad(want, (hidden, weight)), strict=True):
        torch.testing.assert_close(a, b)


def test_chunked_head_by_finite_differences():
    torch.manual_seed(0)
    hidden, weight = (
        torch.randn(7, 3, dtype=torch.float64, requires_grad=True),
        torch.randn(5, 3, dtype=torch.float64, requires_grad=True),
    )
    labels = torch.randint(5, (7,))

    def in_chunks_of(chunk):
        return lambda h, w: F.chunked_logprobs_entropy(h, w, labels, 0.7, chunk, True)

    assert torch.autograd.gradcheck(in_chunks_of(None), (hidden, weight))
    assert torch.autograd.gradcheck(in_chunks_of(3), (hidden, weight))


@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_from_logits(chunk):
    torch.manual_seed(1)
    logits = torch.randn(3, 5, 11, requires_grad=True)
    labels = torch.randint(11, (3, 5))
    want_logp, want_entropy = reference(logits, labels)
    logp, entropy = F.logprobs_entropy_from_logits(logits, labels, chunk_size=chunk)
    torch.testing.assert_close(logp, want_logp.float())
    torch.testing.assert_close(entropy, want_entropy.float())
    torch.testing.assert_close(F.logprobs_from_logits(logits, labels, chunk_size=chunk), want_logp.float())
    torch.testing.assert_close(F.entropy_from_logits(logits, chunk), want_entropy.float())
    got = torch.autograd.grad((logp * 2 + entropy).sum(), logits)[0]
    torch.testing.assert_close(got, torch.autograd.grad((want_logp * 2 + want_entropy).sum(), logits)[0])


def test_inplace_backward_reuses_the_logits():
    torch.manual_seed(2)
    source = torch.randn(4, 6, requires_grad=True)
    labels = torch.randint(6, (4,))
    want = torch.autograd.grad(F.logprobs_from_logits(source * 1.0, labels).sum(), source)[0]
    logits = source * 1.0
    before = logits.detach().clone()
    got = torch.autograd.grad(F.logprobs_from_logits(logits, labels, inplace_backward=True, chunk_size=3).sum(), source)[0]
    torch.testing.assert_close(got, want)
    assert not torch.equal(logits.detach(), before)


def test_impossible_tokens_cost_no_nan():
    logits = torch.tensor([[0.0, 1.0, -math.inf]], dtype=torch.float64, requires_grad=True)
    entropy = F.entropy_from_logits(logits)
    p = 1 / (1 + math.e)
    assert entropy.item() == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p))
    entropy.sum().backward()
    slope = p * (1 - p)  # d entropy / d (l_1 - l_0) = -p (1 - p) (l_1 - l_0)
    torch.testing.assert_close(logits.grad, torch.tensor([[slope, -slope, 0.0]], dtype=torch.float64))


def test_float32_exists_for_one_chunk_at_a_time(monkeypatch):
    """No float32 tensor of more than a chunk of logits is made, forward or backward."""
    seen = []
    real = chunked_logprobs._log_softmax
    monkeypatch.setattr(
        chunked_logprobs, "_log_softmax", lambda logits, *rest: (seen.append(tuple(logits.shape)), real(logits, *rest))[1]
    )
    hidden, weight = torch.randn(10, 4, dtype=torch.bfloat16, requires_grad=True), torch.randn(50, 4, dtype=torch.bfloat16)
    logp, entropy = F.chunked_logprobs_entropy(hidden, weight, torch.randint(50, (10,)), chunk_size=4, with_entropy=True)
    saved = [t.shape for t in logp.grad_fn.saved_tensors if t is not None]
    (logp + entropy).sum().backward()
    assert logp.dtype == torch.float32 and hidden.grad.dtype == torch.bfloat16
    assert seen == [(4, 50), (4, 50), (2, 50)] * 2
    assert saved and all(50 not in shape or tuple(shape) == (50, 4) for shape in saved)  # no logits kept, only the weight


def test_autocast_runs_the_head_in_the_autocast_dtype():
    torch.manual_seed(3)
    hidden, weight = torch.randn(6, 8, requires_grad=True), torch.randn(9, 8, requires_grad=True)
    labels = torch.randint(9, (6,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logp = F.chunked_logprobs_entropy(hidden, weight, labels, chunk_size=4)[0]
        want = torch.log_softmax(torch.nn.functional.linear(hidden, weight).float(), -1).gather(-1, labels[:, None])[:, 0]
    torch.testing.assert_close(logp, want)
    logp.sum().backward()
    assert hidden.grad.dtype == weight.grad.dtype == torch.float32


def test_what_does_not_fit_is_named():
    hidden, weight, labels = torch.zeros(3, 4), torch.zeros(5, 4), torch.zeros(3, dtype=torch.long)
    with pytest.raises(ValueError, match="temperature"):
        F.chunked_logprobs_entropy(hidden, weight, labels, temperature=0)
    with pytest.raises(ValueError, match="labels"):
        F.chunked_logprobs_entropy(hidden, weight, labels[:2])
    with pytest.raises(ValueError, match="head_weight"):
        F.chunked_logprobs_entropy(hidden, weight.T, labels)
    with pytest.raises(ValueError, match="chunk_size"):
        F.chunked_logprobs_entropy(hidden, weight, labels, chunk_size=0)


@settings(max_examples=30, deadline=None)
@given(batches)
def test_masked_statistics(params):
    b = draw(params)
    values, mask = tensor(b.values), tensor(b.mask)
    chosen = b.values[b.mask]
    assert F.masked_sum(values, mask).item() == pytest.approx(chosen.sum())
    assert F.masked_mean(values, mask).item() == pytest.approx(chosen.mean() if len(chosen) else 0.0)
    rows = [row[m].mean() if m.any() else 0.0 for row, m in zip(b.values, b.mask, strict=True)]
    np.testing.assert_allclose(F.masked_mean(values, mask, axis=-1).numpy(), rows)
    if len(chosen) > 1:
        assert F.masked_var(values, mask).item() == pytest.approx(chosen.var(ddof=1))
        white = F.masked_whiten(values, mask)[mask].numpy()
        np.testing.assert_allclose(white, (chosen - chosen.mean()) / np.sqrt(chosen.var(ddof=1) + 1e-8), atol=1e-10)
        np.testing.assert_allclose(
            F.masked_whiten(values, mask, shift_mean=False)[mask].numpy(), white + chosen.mean(), atol=1e-10
        )
    else:
        with pytest.raises(ValueError, match="at least 2"):
            F.masked_var(values, mask)
        assert F.masked_whiten(values, mask)[mask].abs().sum() == 0


def test_nan_outside_the_mask_stays_there():
    values = torch.tensor([1.0, math.nan, 3.0], requires_grad=True)
    mask = torch.tensor([True, False, True])
    F.masked_mean(values, mask).backward()
    assert values.grad.tolist() == [0.5, 0.0, 0.5]


def test_padding_and_masks():
    assert F.pad_2d_list_to_length([[1, 2], [3]], 0, max_length=4).tolist() == [[1, 2, 0, 0], [3, 0, 0, 0]]
    assert F.pad_2d_list_to_length([[1, 2], [3]], 9).tolist() == [[1, 2], [3, 9]]
    assert F.pad_sequence_to_length(torch.tensor([[1, 2]]), 3, 7, left_pad=True).tolist() == [[7, 1, 2]]
    assert F.pad_sequence_to_length(torch.tensor([[1, 2]]), 2, 7).tolist() == [[1, 2]]
    assert F.get_response_mask(torch.tensor([[5, 2, 2, 0], [1, 1, 1, 1]]), 2).tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert F.get_response_mask(torch.tensor([[5, 3, 2]]), [2, 3]).tolist() == [[1, 1, 0]]


def test_schedules():
    def rates(make):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
        schedule = make(optimizer)
        seen = []
        for _ in range(10):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return seen

    assert rates(lambda o: F.get_constant_schedule_with_warmup(o, 4)) == pytest.approx([0.5, 1.0, 1.5] + [2.0] * 7)
    assert rates(lambda o: F.get_constant_schedule_with_warmup(o, 0)) == [2.0] * 10
    cosine = [2 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * k / 8))) for k in range(8)]
    assert rates(lambda o: F.get_cosine_schedule_with_warmup(o, 2, 10, 0.1)) == pytest.approx([1.0, 2.0] + cosine)
    with pytest.raises(ValueError, match="min_lr_ratio"):
        F.get_cosine_schedule_with_warmup(None, 0, 1, 2.0)
