"""DataProto against plain NumPy and torch indexing, and what it refuses."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from protocol_batches import FEW, assert_same, make, rows, seeds
from tensordict import TensorDict

import verl
from verl.protocol import (
    DataProto,
    DataProtoConfig,
    DataProtoError,
    DataProtoItem,
    MissingKeyError,
    collate_fn,
    fold_batch_dim,
    pad_dataproto_to_divisor,
    unfold_batch_dim,
    union_numpy_dict,
    union_tensor_dict,
    union_two_dict,
    unpad_dataproto,
)

# -- rows -----------------------------------------------------------------------------------------


@FEW
@given(rows, seeds, st.data())
def test_indexing_is_numpys(n, seed, draw):
    data, plain = make(n, seed)
    index = draw.draw(st.lists(st.integers(-n, n - 1), max_size=15))
    mask = draw.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    start, stop, step = (draw.draw(st.none() | st.integers(-15, 15)) for _ in range(3))
    for form in (list, np.array, torch.tensor):
        if index:
            assert_same(data[form(index)], {k: v[index] for k, v in plain.items()})
        assert_same(data[form(mask)], {k: v[np.array(mask)] for k, v in plain.items()})
    assert_same(data[[]], {k: v[:0] for k, v in plain.items()})
    if step != 0:
        assert_same(data[start:stop:step], {k: v[start:stop:step] for k, v in plain.items()})
    for i in index[:3]:
        item = data[i]
        assert isinstance(item, DataProtoItem) and item.meta_info == data.meta_info
        np.testing.assert_array_equal(item.batch["ids"].numpy(), plain["ids"][i])
        assert item.non_tensor_batch["uid"] == plain["uid"][i]


@FEW
@given(rows, seeds, st.data())
def test_repeat_and_reorder_are_numpys(n, seed, draw):
    data, plain = make(n, seed)
    times = draw.draw(st.integers(1, 4))
    counts = draw.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    order = draw.draw(st.permutations(range(n)))
    assert_same(data.repeat(times), {k: np.repeat(v, times, axis=0) for k, v in plain.items()})
    assert_same(data.repeat(times, interleave=False), {k: np.concatenate([v] * times) for k, v in plain.items()})
    for form in (list, tuple, np.array, torch.tensor):
        assert_same(data.sample_level_repeat(form(counts)), {k: np.repeat(v, counts, axis=0) for k, v in plain.items()})
    assert data.reorder(torch.tensor(order)) is None
    assert_same(data, {k: v[order] for k, v in plain.items()})


@FEW
@given(rows, st.integers(1, 5), st.integers(1, 5), seeds)
def test_parts_put_together_are_the_whole(n, chunks, size, seed):
    data, plain = make(n, seed)
    assert_same(DataProto.concat(data.split(size)), plain)
    assert [len(part) for part in data.split(size)] == [size] * (n // size) + ([n % size] if n % size else [])
    if n % chunks == 0:
        parts = data.chunk(chunks)
        assert [len(part) for part in parts] == [n // chunks] * chunks
        assert_same(DataProto.concat(parts), plain)
    else:
        with pytest.raises(DataProtoError, match=f"{n} rows do not make {chunks} equal chunks"):
            data.chunk(chunks)
    padded, pad = pad_dataproto_to_divisor(data, chunks)
    assert len(padded) % chunks == 0 and pad < chunks
    assert_same(padded, {k: v[np.arange(n + pad) % n] for k, v in plain.items()})
    assert_same(unpad_dataproto(padded, pad), plain)


@FEW
@given(st.integers(1, 5), st.integers(1, 4), seeds)
def test_folding_and_unfolding(n, k, seed):
    data, plain = make(n * k, seed)
    folded = fold_batch_dim(data, n)
    assert len(folded) == n
    assert folded.batch["ids"].shape == (n, k, 4)
    np.testing.assert_array_equal(folded.non_tensor_batch["uid"], plain["uid"].reshape(n, k))
    assert_same(data, plain)  # the source keeps its shape
    assert_same(unfold_batch_dim(folded, batch_dims=2), plain)
    with pytest.raises(DataProtoError, match="do not fold"):
        fold_batch_dim(data, n * k + 1)
    with pytest.raises(DataProtoError, match="3 leading dimensions"):
        unfold_batch_dim(data, batch_dims=3)


def test_column_chunks_become_rows():
    data = DataProto.from_dict(
        {"pair": torch.arange(12).reshape(3, 4), "obs": torch.arange(3)}, {"label": [["a", "b"], ["c", "d"], ["e", "f"]]}
    )
    out = data.unfold_column_chunks(2, split_keys=["pair", "label"])
    assert out.batch["pair"].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]
    assert out.batch["obs"].tolist() == [0, 0, 1, 1, 2, 2]
    assert out.non_tensor_batch["label"].tolist() == [["a"], ["b"], ["c"], ["d"], ["e"], ["f"]]
    with pytest.raises(DataProtoError, match=r"'pair' of shape \(3, 4\)"):
        data.unfold_column_chunks(3, split_keys=["pair"])


@pytest.mark.parametrize("shuffle", [False, True])
def test_iterator_covers_each_epoch_and_repeats_by_seed(shuffle):
    data, plain = make(12)

    def epochs():
        kwargs = {"shuffle": True} if shuffle else None
        return list(data.make_iterator(mini_batch_size=3, epochs=2, seed=7, dataloader_kwargs=kwargs))

    parts = epochs()
    assert len(parts) == 8 and all(part.meta_info == data.meta_info for part in parts)
    for epoch in (parts[:4], parts[4:]):
        ids = torch.cat([part.batch["ids"] for part in epoch]).numpy()
        if shuffle:
            assert not np.array_equal(ids, plain["ids"])
            ids = ids[np.lexsort(ids.T)]
            np.testing.assert_array_equal(ids, plain["ids"][np.lexsort(plain["ids"].T)])
        else:
            np.testing.assert_array_equal(ids, plain["ids"])
    for a, b in zip(parts, epochs(), strict=True):
        assert torch.equal(a.batch["ids"], b.batch["ids"])
    with pytest.raises(DataProtoError, match="mini_batch_size 5 does not divide the batch of 12 rows"):
        data.make_iterator(5, 1)


def test_padding_in_place_and_by_config(monkeypatch):
    data, plain = make(3)
    data.padding(2)
    assert_same(data, {k: v[[0, 1, 2, 2, 2]] for k, v in plain.items()})
    data.padding(1, "first")
    assert_same(data, {k: v[[0, 1, 2, 2, 2, 0]] for k, v in plain.items()})
    assert not data.is_padding_enabled()
    assert DataProto.from_dict({"a": torch.zeros(1)}, auto_padding=True).is_padding_enabled()
    monkeypatch.setenv("VERL_AUTO_PADDING", "1")
    assert data.is_padding_enabled()
    assert [len(part) for part in data.chunk(4)] == [2, 2, 1, 1]
    monkeypatch.delenv("VERL_AUTO_PADDING")
    DataProtoConfig.auto_padding = True
    try:
        assert data.is_padding_enabled()
    finally:
        DataProtoConfig.auto_padding = False
    with pytest.raises(DataProtoError, match="True or False"):
        DataProtoConfig.auto_padding = 1


def test_collate_undoes_single_rows():
    data, plain = make(4)
    data.meta_info = {}
    back = collate_fn([data[i] for i in range(4)])
    np.testing.assert_array_equal(back.batch["logp"].numpy(), plain["logp"])
    assert back.non_tensor_batch["uid"].tolist() == plain["uid"].tolist()


# -- keys -----------------------------------------------------------------------------------------


def test_select_pop_rename():
    data, plain = make(4)
    part = data.select(batch_keys=["ids"], non_tensor_batch_keys=["uid"], meta_info_keys=[])
    assert (list(part.batch.keys()), list(part.non_tensor_batch), part.meta_info) == (["ids"], ["uid"], {})
    assert part.batch["ids"].data_ptr() == data.batch["ids"].data_ptr()
    assert data.select(["ids"], deepcopy=True).batch["ids"].data_ptr() != data.batch["ids"].data_ptr()

    popped = data.pop(["mask"], ["turns"], ["temperature"])
    assert (set(popped.batch.keys()), set(popped.non_tensor_batch)) == ({"mask"}, {"turns"})
    assert popped.meta_info == {"temperature": 0.5} and data.meta_info == {}
    assert set(data.batch.keys()) == {"ids", "logp", "half"} and set(data.non_tensor_batch) == {"uid"}
    assert data.pop(non_tensor_batch_keys=["uid"]).batch is None

    assert data.rename("ids", "input_ids") is data
    assert data.rename(["input_ids", "logp"], ["logp", "input_ids"])  # a swap
    np.testing.assert_array_equal(data.batch["input_ids"].numpy(), plain["logp"])
    with pytest.raises(DataProtoError, match="one name"):
        data.rename("half", "logp")
    with pytest.raises(ValueError, match="one each"):
        data.rename(["half"], ["a", "b"])
    with pytest.raises(TypeError, match="string or a list"):
        data.rename(("half",), "a")


@pytest.mark.parametrize(
    "call",
    [
        lambda d: d.select(["nope"]),
        lambda d: d.select(non_tensor_batch_keys=["nope"]),
        lambda d: d.select(meta_info_keys=["nope"]),
        lambda d: d.pop(["nope"]),
        lambda d: d.rename("nope", "x"),
        lambda d: d.unfold_column_chunks(2, ["nope"]),
    ],
)
def test_a_missing_key_is_named_and_nothing_is_lost(call):
    data, plain = make(2)
    with pytest.raises(MissingKeyError, match="nope") as error:
        call(data)
    assert isinstance(error.value, KeyError) and isinstance(error.value, AssertionError)
    assert_same(data, plain)


def test_derived_batches_have_containers_of_their_own():
    data, plain = make(4)
    for derived in (data[:2], data[[0, 1]], data.chunk(2)[0], data.select(), data.repeat(2), copy.copy(data).select()):
        derived.meta_info["extra"] = 1
        derived.batch["extra"] = torch.zeros(len(derived))
        derived.pop(["ids"], ["uid"])
    assert_same(data, plain)


# -- union and concat -----------------------------------------------------------------------------


@FEW
@given(rows, seeds)
def test_union(n, seed):
    data, plain = make(n, seed)
    a = data.select(["ids", "logp"], ["uid"])
    b = data.select(["logp", "mask", "half"], ["uid", "turns"], deepcopy=True)
    assert a.union(b) is a
    assert_same(a, plain)


def test_union_of_nan_and_of_empty_parts():
    nan = DataProto.from_dict({"x": torch.tensor([1.0, float("nan")])})
    nan.union(copy.deepcopy(nan))
    only_arrays = DataProto.from_dict(non_tensors={"uid": ["a", "b"]})
    only_arrays.union(nan)
    assert set(only_arrays.batch.keys()) == {"x"}
    DataProto(meta_info={"step": 1}).union(nan)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (DataProto.from_dict({"ids": torch.zeros(4, 4, dtype=torch.long)}), "ids"),
        (DataProto.from_dict(non_tensors={"uid": list("abcd")}), "uid"),
        (DataProto.from_dict({"new": torch.zeros(4)}, meta_info={"temperature": 1.0}), "temperature"),
        (DataProto.from_dict({"new": torch.zeros(5)}), "sizes 4 and 5"),
    ],
)
def test_union_refuses_conflicts_and_changes_nothing(other, named):
    data, plain = make(4)
    with pytest.raises(AssertionError, match=named):
        data.union(other)
    assert_same(data, plain)


def test_union_tensor_dict():
    first = TensorDict({"obs": torch.ones(3), "act": torch.zeros(3)}, batch_size=[3])
    assert union_tensor_dict(first, TensorDict({"obs": torch.ones(3), "rew": torch.ones(3)}, [3])) is first
    assert set(first.keys()) == {"obs", "act", "rew"}
    for other in ({"obs": torch.zeros(3)}, {"obs": torch.ones(3).double()}, {"obs": torch.ones(3, 1)}):
        with pytest.raises(DataProtoError, match="`obs` in tensor_dict1 and tensor_dict2 are not the same object"):
            union_tensor_dict(first, TensorDict(other, [3]))


def test_union_numpy_dict_compares_deeply():
    circle, other_circle = np.array([None], dtype=object), np.array([None], dtype=object)
    circle[0], other_circle[0] = circle, other_circle
    values = [
        np.array([float("nan"), "nan", np.array([1.0, np.nan]), {"k": [1, 2]}, None], dtype=object),
        np.arange(24.0).reshape(2, 3, 4),
        np.array([1.0, np.nan]),
        np.array(["a", "b"]),
        circle,
    ]
    for value in values:
        twin = other_circle if value is circle else copy.deepcopy(value)
        assert union_numpy_dict({"x": value}, {"x": twin})["x"] is twin
    different = [
        np.array(["nan", "nan", np.array([1.0, np.nan]), {"k": [1, 2]}, None], dtype=object),
        np.arange(24.0).reshape(2, 3, 4) + 1,
        np.array([np.nan, 1.0]),
        np.array(["a", "c"]),
        np.array([None], dtype=object),
    ]
    for value, other in zip(values, different, strict=True):
        with pytest.raises(DataProtoError, match="`x` in tensor_dict1 and tensor_dict2 are not the same object"):
            union_numpy_dict({"x": value}, {"x": other})
    with pytest.raises(DataProtoError, match="expected np.ndarray"):
        union_numpy_dict({}, {"x": [1]})
    with pytest.raises(DataProtoError, match="`a`"):
        union_two_dict({"a": 1}, {"a": 2})


def test_concat_merges_meta_info_and_gathers_metrics():
    parts = [
        DataProto.from_dict({"x": torch.ones(1)}, meta_info={"step": 3, "metrics": {"loss": 0.1, "n": [1, 2]}}),
        DataProto.from_dict({"x": torch.ones(1)}, meta_info={"step": 3, "only": "b", "metrics": {"loss": 0.2}}),
        DataProto.from_dict({"x": torch.ones(1)}, meta_info={"metrics": [{"loss": 0.3}, {"n": 4}]}),
    ]
    merged = DataProto.concat(parts)
    expected = {"step": 3, "only": "b", "metrics": {"loss": [0.1, 0.2, 0.3], "n": [1, 2, 4]}}
    assert merged.meta_info == expected
    stepwise = DataProto.concat([DataProto.concat(parts[:2]), parts[2]])
    assert stepwise.meta_info == expected
    assert parts[0].meta_info["metrics"] == {"loss": 0.1, "n": [1, 2]}


def one(**kwargs):
    return DataProto.from_dict(**kwargs)


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ([one(tensors={"x": torch.ones(1)}, meta_info={"k": 1}), one(tensors={"x": torch.ones(1)}, meta_info={"k": 2})], "'k'"),
        ([one(tensors={"x": torch.ones(1, 2)}), one(tensors={"x": torch.ones(1, 3)})], r"'x' has shape \(1, 2\).*\(1, 3\)"),
        ([one(tensors={"x": torch.ones(1)}), one(tensors={"y": torch.ones(1)})], "'x', 'y'"),
        ([one(non_tensors={"x": ["a"]}), one(non_tensors={"y": ["a"]})], "'x', 'y'"),
        ([one(tensors={"x": torch.ones(1)}), one(non_tensors={"x": ["a"]})], "some have none"),
        ([], "no parts"),
    ],
)
def test_concat_refuses_what_does_not_fit(parts, named):
    with pytest.raises(DataProtoError, match=named):
        DataProto.concat(parts)


# -- building -------------------------------------------------------------------------------------


def test_building_leaves_the_callers_dicts_alone():
    tensors, arrays, meta = {"x": torch.zeros(2)}, {"uid": ["a", "b"]}, {"k": 1}
    data = DataProto.from_dict(tensors, arrays, meta, auto_padding=True)
    data.batch["y"] = torch.zeros(2)
    assert (list(tensors), arrays, meta) == (["x"], {"uid": ["a", "b"]}, {"k": 1})
    assert data.non_tensor_batch["uid"].dtype == object
    single = DataProto.from_single_dict({"x": torch.zeros(2), "uid": np.array(["a", "b"])})
    assert (list(single.batch.keys()), list(single.non_tensor_batch)) == (["x"], ["uid"])


def test_ragged_and_tensor_rows_stay_whole():
    ragged = [np.zeros((2, 3)), np.zeros((2, 4))]
    data = DataProto.from_dict(non_tensors={"r": ragged, "t": [torch.zeros(2), torch.zeros(2)], "l": [[1], [1, 2]]})
    assert all(v.shape == (2,) for v in data.non_tensor_batch.values())
    assert data.non_tensor_batch["r"][1].shape == (2, 4)


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"tensors": {"x": torch.zeros(2), "y": torch.zeros(3)}}, "'x' has batch size"),
        ({"tensors": {"x": torch.tensor(1.0)}}, "'x'"),
        ({"tensors": {"x": [1, 2]}}, "'x'"),
        ({"tensors": {"x": torch.zeros(2, 3)}, "num_batch_dims": 2}, "one batch dimension"),
        ({"num_batch_dims": 0}, "num_batch_dims"),
        ({"tensors": {"x": torch.zeros(2)}, "non_tensors": {"uid": ["a"]}}, "'uid'.*1 rows.*has 2"),
        ({"non_tensors": {"x": np.array(3)}}, "'x'"),
    ],
)
def test_building_refuses_what_has_no_rows_in_common(kwargs, named):
    with pytest.raises(AssertionError, match=named):
        DataProto.from_dict(**kwargs)


def test_lengths_of_partial_batches():
    assert len(DataProto()) == len(DataProto(None, None, None)) == 0
    assert len(DataProto(non_tensor_batch={"x": np.zeros(3)})) == 3
    assert verl.DataProto is DataProto


@pytest.mark.parametrize(
    ("index", "error"),
    [
        ([5], IndexError),
        (5, IndexError),
        ([True, False], DataProtoError),
        ([0.5], TypeError),
        ("ids", TypeError),
        (True, TypeError),
        (np.zeros((2, 2), dtype=int), TypeError),
    ],
)
def test_indices_that_make_no_sense(index, error):
    data, _ = make(4)
    with pytest.raises(error):
        data[index]


def test_reorder_and_repeat_refuse_to_lose_rows():
    data, _ = make(3)
    with pytest.raises(DataProtoError, match="every one of the 3 rows once"):
        data.reorder(torch.tensor([0, 0, 1]))
    for counts in ([1, 2], [1, 2, -1], [0.5, 1, 1], 2):
        with pytest.raises(DataProtoError, match="repeat_times"):
            data.sample_level_repeat(counts)
