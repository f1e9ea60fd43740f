"""Whether the kernels of a GPU compute what the plain forms do."""

from __future__ import annotations

from benchmarks.gpu.lines import line, row


@line("chunked", "log-probabilities in chunks against whole logits, vocabulary of Qwen2.5", 10)
def chunked(setting) -> list[dict]:
    import torch

    from benchmarks.gpu.setting import peak_bytes
    from verl.utils.chunked_logprobs import chunked_logprobs_entropy

    vocab, hidden, tokens = (600, 64, 100) if setting.tiny else (151936, 1536, 8192)
    dtype = torch.bfloat16 if setting.on_gpu else torch.float32
    generator = torch.Generator(setting.device).manual_seed(0)
    make = dict(device=setting.device, generator=generator)
    states = torch.randn(tokens, hidden, **make).to(dtype).requires_grad_()
    head = (torch.randn(vocab, hidden, **make) / hidden**0.5).to(dtype).requires_grad_()
    labels = torch.randint(0, vocab, (tokens,), **make)
    pull = torch.randn(tokens, **make)

    def plain():
        logits = (states @ head.T).float()
        log_p = logits.log_softmax(-1)
        return log_p.gather(-1, labels[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)

    found, peaks, seconds = {}, {}, {}
    for name, form in (("plain", plain), ("chunked", lambda: chunked_logprobs_entropy(states, head, labels, with_entropy=True))):

        def both(form=form):
            states.grad = head.grad = None
            log_prob, entropy = form()
            ((log_prob + 0.1 * entropy) * pull).sum().backward()
            return log_prob.detach(), entropy.detach()

        with peak_bytes(setting) as peak:
            values = both()
        found[name], peaks[name] = (*values, states.grad.float(), head.grad.float()), peak["device"]
        seconds[name] = setting.seconds(both)
    rows = [
        row("seconds, chunked / plain", seconds["chunked"] / seconds["plain"], note=f"{tokens} tokens: {1000 * seconds['chunked']:.0f} ms"),
        row("peak memory, chunked / plain", peaks["chunked"] / peaks["plain"] if peaks["plain"] else None, at_most=0.5),
    ]
    for index, name in enumerate(("log-probability", "entropy", "gradient of the hidden states", "gradient of the head")):
        a, b = found["chunked"][index], found["plain"][index]
        rows.append(row(f"{name}: difference / size", float((a - b).norm() / b.norm()), at_most=0.02 if dtype == torch.bfloat16 else 1e-4))
    return rows


@line("bf16", "log-probabilities in bfloat16 against float32, the same weights", 15, 80)
def bf16(setting) -> list[dict]:
    from benchmarks.gpu.setting import log_probs, make_batch

    shape, load = setting.shape("Qwen2.5-0.5B"), setting.load(16, 200, 600, 8, 4096)
    batch, found = make_batch(shape, load), {}
    for dtype in ("fp32", "bf16"):
        worker = setting.worker(shape, {"actor.fsdp_config.mixed_precision": {"param_dtype": dtype}}, tokens=load[4])
        found[dtype] = log_probs(worker, batch).double()
        del worker
    gap = found["bf16"] - found["fp32"]
    ratio = gap.exp()
    clipped = float(((ratio < 0.8) | (ratio > 1.2)).double().mean())
    return [
        row("mean difference", float(gap.abs().mean()), "nats", at_most=0.02, note=f"of {gap.numel()} tokens; largest {float(gap.abs().max()):.3g}"),
        row("difference of the means (bias)", float(gap.mean().abs()), "nats", at_most=0.002),
        row("ratios outside 0.8 to 1.2", clipped, at_most=0.001, note="would be clipped by rounding alone"),
    ]


def _by_boundaries(q, k, v, cu_q, cu_k, max_q, max_k, scale=None, window_size=(-1, 0), enable_gqa=False):
    """What `varlen_attn` is taken to compute, one segment at a time on any device: the last query sees the last key."""
    import torch

    assert max_q == int(cu_q.diff().max()) and max_k == int(cu_k.diff().max())
    outputs = []
    for i in range(len(cu_q) - 1):
        part_q, (part_k, part_v) = q[cu_q[i] : cu_q[i + 1]], (t[cu_k[i] : cu_k[i + 1]] for t in (k, v))
        group = q.shape[1] // k.shape[1]
        part_k, part_v = (t.repeat_interleave(group, dim=1) for t in (part_k, part_v))
        scores = torch.einsum("qhd,khd->hqk", part_q.float(), part_k.float()) * (scale or q.shape[-1] ** -0.5)
        queries, keys = len(part_q), len(part_k)
        back = torch.arange(keys - queries, keys, device=q.device)[:, None] - torch.arange(keys, device=q.device)
        hidden = (back < 0) | ((back > window_size[0]) if window_size[0] >= 0 else False)
        outputs.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), part_v.float()).to(q.dtype))
    return torch.cat(outputs)


@line("varlen", "packed attention's outputs and gradients against segment by segment: fewer key heads, more keys than queries, a window", 10)
def varlen(setting) -> list[dict]:
    import unittest.mock

    import torch

    from verl.utils import attention
    from verl.workers.prefix_sharing import Segment, attention_arguments

    cases = {"as many key heads": (4, 4, 64, None), "7 query heads a key head": (28, 4, 128, None), "a window of 100": (8, 2, 64, 100)}
    prompt, tails, alone = (20, (5, 9, 1), 12) if setting.tiny else (700, (300, 129, 1), 512)
    segments, tokens = [Segment(0, 0, prompt, 0, -1)], prompt
    for number, length in enumerate(tails):
        segments.append(Segment(number, prompt, length, tokens, 0))
        tokens += length
    segments.append(Segment(len(tails), 0, alone, tokens, -1))
    tokens += alone
    arguments = attention_arguments(segments, torch.device(setting.device), for_kernel=True)
    # without a GPU a plain form stands for the kernel, so that what it is given is tried
    stand_in = {} if setting.on_gpu else {"varlen_attn": _by_boundaries}

    def outcome(form, dtype, exact, pull):
        tensors = [t.to(dtype).detach().requires_grad_() for t in exact]
        out = form(*tensors)
        (out.float() * pull).sum().backward()
        return [out.detach().float(), *(t.grad.float() for t in tensors)]

    rows = []
    for name, (heads, kv_heads, size, window) in cases.items():
        make = dict(device=setting.device, generator=torch.Generator(setting.device).manual_seed(1))
        exact = [torch.randn(1, n, tokens, size, **make) for n in (heads, kv_heads, kv_heads)]
        pull = torch.randn(1, tokens, heads, size, **make)

        def by_segment(q, k, v, window=window):
            lengths, prefixes = arguments["segment_lengths"], arguments["segment_prefixes"]
            return attention._by_segment(q, k, v, None, window, lengths, prefixes)

        def by_kernel(q, k, v, window=window):
            names = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "key_index")
            return attention._by_kernel(q, k, v, None, window, *(arguments[n] for n in names))

        truth, rounded = (outcome(by_segment, dtype, exact, pull) for dtype in (torch.float32, torch.bfloat16))
        with unittest.mock.patch.multiple("torch.nn.attention.varlen", **stand_in):
            found = outcome(by_kernel, torch.bfloat16, exact, pull)
        parts = ("output", "queries' gradient", "keys' gradient", "values' gradient")
        for part, true, plain, kernel in zip(parts, truth, rounded, found, strict=True):
            floor, error = (float((tensor - true).norm() / true.norm()) for tensor in (plain, kernel))
            rows.append(row(f"{name}: {part}, error / bfloat16's by segment", error / max(floor, 1e-4), at_most=2.0, note=f"{error:.2g} of its size"))
    return rows
