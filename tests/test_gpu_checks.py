"""The checks that a GPU is waiting for: those that run without one are run here, all of them where there is one."""

import pytest
import torch

from benchmarks.gpu import checks17

ON_GPU = torch.cuda.is_available()
LIGHT = [
    checks17.check_groups_that_are_no_partition, checks17.check_weight_sync_group, checks17.check_varlen_attention, checks17.check_7b_plan,
]  # fmt: skip


@pytest.mark.parametrize("check", LIGHT, ids=lambda check: check.__name__)
def test_a_check_runs_without_a_gpu(check):
    found = check()
    assert found["ok"] is not False and {"check", "device", "ok"} <= set(found), found


def test_the_attention_check_notices_a_wrong_mask(monkeypatch):
    """Each segment for itself, not behind its prompt."""
    import verl.utils.attention as attention

    right = attention._by_segment
    alone = lambda q, k, v, scaling, window, lengths, prefixes: right(q, k, v, scaling, window, lengths, (-1,) * len(lengths))  # noqa: E731
    monkeypatch.setattr(attention, "_by_segment", alone)
    wrong = checks17.check_varlen_attention
    monkeypatch.setattr(attention, "torch_varlen_attention", lambda *a, **k: (right(*a[1:4], k["scaling"], None, k["segment_lengths"], k["segment_prefixes"]), None))
    assert wrong()["ok"] is False


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="needs a CUDA device")
@pytest.mark.parametrize("check", checks17.CHECKS, ids=lambda check: check.__name__)
def test_every_check_holds_on_a_gpu(check):
    found = check()
    assert found["ok"] is not False, found
