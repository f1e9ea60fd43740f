"""Batches as TensorDicts, as newer VeRL programs hold them, against plain lists of rows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from protocol_batches import FEW, assert_same, make, rows, seeds
from tensordict import NonTensorData, TensorDict

from verl.protocol import DataProto, DataProtoError
from verl.utils import tensordict_utils as tu

#: what a row may carry beside tensors; each value stays whole
values = st.recursive(st.integers() | st.text(max_size=3) | st.none(), lambda v: st.lists(v, max_size=3), max_leaves=6)


def build(lengths: list[int], extra: list, seed: int, ragged: int | None) -> tuple[TensorDict, list[dict]]:
    """A TensorDict of ``len(lengths)`` rows and the same rows as dicts; ``ragged``: the dimension of the third entry that
    differs from row to row."""
    generator = torch.Generator().manual_seed(seed)
    plain = []
    for length, value in zip(lengths, extra, strict=True):
        shape = {1: (length, 3), 2: (2, length)}.get(ragged, (2, 2))
        ids = torch.randint(0, 99, (length,), generator=generator)
        plain.append({"dense": torch.rand(3, generator=generator), "ids": ids, "wide": torch.rand(shape, generator=generator), "value": value})
    wide = [row["wide"] for row in plain]
    entries = {
        "dense": torch.stack([row["dense"] for row in plain]),
        "ids": tu.nested_tensor_from_tensor_list([row["ids"] for row in plain]),
        "wide": torch.stack(wide) if ragged is None else tu.nested_tensor_from_tensor_list(wide, ragged_idx=ragged),
        "value": [row["value"] for row in plain],
    }
    return tu.get_tensordict(entries, {"step": 7, "names": ["x"]}), plain


def assert_rows(td: TensorDict, plain: list[dict]) -> None:
    assert len(td) == len(plain)
    assert tu.get(td, "step") == 7 and tu.get(td, "names") == ["x"]
    assert tu.get(td, "value") == [row["value"] for row in plain]
    for key in ("dense", "ids", "wide"):
        for got, row in zip(td[key].unbind(), plain, strict=True):
            assert torch.equal(got, row[key]), key


@st.composite
def batches(draw):
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=8))
    extra = draw(st.lists(values, min_size=len(lengths), max_size=len(lengths)))
    return build(lengths, extra, draw(seeds), draw(st.sampled_from([None, 1, 2])))


@FEW
@given(batches(), st.data())
def test_rows_are_chosen_as_from_a_list(batch, draw):
    td, plain = batch
    index = draw.draw(st.lists(st.integers(0, len(plain) - 1), min_size=1, max_size=10))
    assert_rows(td, plain)
    assert_rows(tu.index_select_tensor_dict(td, index), [plain[i] for i in index])
    assert_rows(tu.index_select_tensor_dict(td, torch.tensor(index)), [plain[i] for i in index])
    assert_rows(tu.contiguous(td), plain)
    tu.assert_tensordict_eq(tu.contiguous(td), td)


@FEW
@given(batches(), st.data())
def test_parts_joined_are_the_whole_and_padding_can_be_undone(batch, draw):
    td, plain = batch
    n = len(plain)
    chunks = draw.draw(st.sampled_from([d for d in range(1, n + 1) if n % d == 0]))
    parts = tu.chunk_tensordict(td, chunks)
    assert [len(part) for part in parts] == [n // chunks] * chunks
    assert_rows(tu.concat_tensordict(parts), plain)
    with pytest.raises(DataProtoError, match="equal chunks"):
        tu.chunk_tensordict(td, n + 1)
    divisor = draw.draw(st.integers(1, 11))
    padded, pad = tu.pad_to_divisor(td, divisor)
    assert len(padded) % divisor == 0 and 0 <= pad < divisor
    assert_rows(padded, [plain[i % n] for i in range(n + pad)])
    assert_rows(tu.unpad(padded, pad), plain)


def test_a_row_of_one_length_keeps_its_ragged_dimension():
    """Chunks whose rows happen to be alike must still join with others."""
    for ragged in (1, 2):
        td, plain = build([2, 2, 3, 4], [0, 1, 2, 3], seed=3, ragged=ragged)
        first, second = tu.chunk_tensordict(td, 2)
        assert first["wide"].is_nested and first["wide"].dim() == 3
        assert_rows(tu.concat_tensordict([second, first]), plain[2:] + plain[:2])


def test_the_iterator_gives_every_row_once_an_epoch():
    td, plain = build([1, 2, 3, 4, 5, 6], list("abcdef"), seed=0, ragged=2)
    shuffled = [tu.get(part, "value") for part in tu.make_iterator(td, 2, epochs=2, seed=5, dataloader_kwargs={"shuffle": True})]
    again = [tu.get(part, "value") for part in tu.make_iterator(td, 2, epochs=2, seed=5, dataloader_kwargs={"shuffle": True})]
    assert shuffled == again and shuffled[:3] != shuffled[3:]
    for epoch in (shuffled[:3], shuffled[3:]):
        assert sorted(sum(epoch, [])) == list("abcdef")
    with pytest.raises(DataProtoError, match="mini_batch_size 4 does not divide"):
        tu.make_iterator(td, 4, 1)


def test_values_go_in_and_come_out_as_they_are():
    td = TensorDict({"a": torch.zeros(2)}, batch_size=[2])
    tu.assign_non_tensor(td, note={"lr": 0.1}, turns=[[], [1, [2]]], wrapped=NonTensorData("w"))
    tu.assign_non_tensor_data(td, "one", 3)
    tu.assign_non_tensor_stack(td, "each", ["x", None])
    assert tu.get(td, "note") == {"lr": 0.1} == tu.get_non_tensor_data(td, "note", None)
    assert tu.get(td, "turns") == [[], [1, [2]]] and tu.get(td, "each") == ["x", None]
    assert (tu.get(td, "missing", 5), tu.get_non_tensor_data(td, "missing", 6), tu.unwrap_non_tensor_data(7)) == (5, 6, 7)
    kept = tu.get_keys(td, ["a", "turns", "one"])
    assert set(kept.keys()) == {"a", "turns", "one"} and len(kept) == 2
    gone = tu.pop_keys(td, ["turns", "one"])
    assert tu.get(gone, "turns") == [[], [1, [2]]] and tu.get(gone, "one") == 3
    assert tu.pop(td, "each") == ["x", None] and tu.pop(td, "each", "no") == "no"
    assert set(td.keys()) == {"a", "note", "wrapped"}
    with pytest.raises(KeyError, match=r"no key \['turns'\]"):
        tu.get_keys(td, ["turns"])
    with pytest.raises(AssertionError, match="expected a TensorDict, got dict"):
        tu.assign_non_tensor_data({}, "a", 1)


def test_entries_that_do_not_fit_together_are_refused():
    with pytest.raises(DataProtoError, match=r"one batch size, got {'a': 2, 'b': 3}"):
        tu.get_tensordict({"a": torch.zeros(2), "b": [1, 2, 3]})
    with pytest.raises(DataProtoError, match="'a' is in both"):
        tu.get_tensordict({"a": torch.zeros(2)}, {"a": 1})
    with pytest.raises(DataProtoError, match="cannot hold tensors"):
        tu.get_tensordict({"a": [torch.zeros(2)]})
    with pytest.raises(DataProtoError, match="got int"):
        tu.get_tensordict({"a": 1})
    with pytest.raises(DataProtoError, match="layout torch.jagged"):
        tu.get_tensordict({"a": torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.strided)})
    one, two = tu.get_tensordict({"a": torch.zeros(2)}), tu.get_tensordict({"a": torch.ones(2), "b": [1, 2]})
    with pytest.raises(AssertionError, match=r"\['a'\] in tensor_dict1 and tensor_dict2"):
        tu.union_tensor_dict(one, two)
    assert set(one.keys()) == {"a"}  # nothing was taken over
    with pytest.raises(DataProtoError, match=r"part 1 differs in the entries \['b'\]"):
        tu.concat_tensordict([one, two])
    with pytest.raises(AssertionError, match=r"keys \['b'\]"):
        tu.assert_tensordict_eq(one, two)
    with pytest.raises(AssertionError, match=r"differ in \['a'\]"):
        tu.assert_tensordict_eq(one, tu.get_keys(two, ["a"]))


def test_rows_of_dicts_become_columns():
    td = tu.list_of_dict_to_tensordict([{"a": torch.ones(2), "n": torch.zeros(i + 1), "v": [i]} for i in range(3)])
    assert td["a"].shape == (3, 2) and [len(row) for row in td["n"].unbind()] == [1, 2, 3] and tu.get(td, "v") == [[0], [1], [2]]
    only = tu.get_tensordict({}, {"step": 1})
    assert only.batch_size == torch.Size([]) and tu.concat_tensordict_with_none_bsz([only, only]) is only


# -- DataProto there and back ---------------------------------------------------------------------


@FEW
@given(rows, seeds)
def test_a_dataproto_comes_back_from_its_tensordict(n, seed):
    data, plain = make(n, seed)
    back = DataProto.from_tensordict(data.to_tensordict())
    assert_same(back, plain)
    assert {k: v.dtype for k, v in back.batch.items()} == {k: v.dtype for k, v in data.batch.items()}
    assert all(array.dtype == object for array in back.non_tensor_batch.values())


def test_a_tensordict_is_sorted_into_the_three_parts():
    td = tu.get_tensordict({"x": torch.arange(6).view(3, 2), "v": [[1], [], "z"]}, {"temperature": 0.7, "kept": [1, 2]})
    data = DataProto.from_tensordict(td, meta_info={"step": 3})
    assert data.batch["x"].shape == (3, 2) and data.non_tensor_batch["v"].tolist() == [[1], [], "z"]
    assert data.meta_info == {"step": 3, "temperature": 0.7, "kept": [1, 2]}
    values_only = DataProto.from_tensordict(tu.get_tensordict({"v": ["a", "b"]}))
    assert values_only.batch is None and len(values_only) == 2
    assert len(DataProto.from_tensordict(TensorDict({"a": torch.zeros(2, 3, 4)}, batch_size=[2, 3]))) == 2
    with pytest.raises(DataProtoError, match="num_batch_dims must be 1"):
        DataProto.from_tensordict(td, num_batch_dims=2)
    with pytest.raises(DataProtoError, match="one batch size"):
        DataProto.from_tensordict(TensorDict({"a": torch.zeros(2), "b": torch.zeros(3)}, batch_size=[]))


def test_what_a_batch_holds_in_words():
    data = DataProto.from_dict(
        {"ids": torch.zeros(2, 3, dtype=torch.long)},
        {"uid": ["a", "b"]},
        {"metrics": {"loss": [0.5, 1]}, "shape": (1, "x"), "none": [], "grid": np.zeros((2, 2), dtype=np.float32)},
    )
    assert data.get_data_info().splitlines() == [
        "batch",
        "  ids: (2, 3) (torch.int64) cpu",
        "non_tensor_batch",
        "  uid: ndarray(2,) (object)",
        "meta_info",
        "  metrics: dict[str: list[float|int]]",
        "  shape: tuple(int, str)",
        "  none: list[...]",
        "  grid: ndarray(2, 2) (float32)",
    ]
    assert DataProto(None, {"uid": np.array(["a"], dtype=object)}).get_data_info().splitlines()[:2] == ["batch", "non_tensor_batch"]
