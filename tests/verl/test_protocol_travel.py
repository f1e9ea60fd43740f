"""DataProto between processes, as a future, and on disk."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from protocol_batches import FEW, assert_same, make, rows, seeds
from tensordict import TensorDict

from verl._protocol import buffers
from verl.protocol import (
    DataProto,
    DataProtoError,
    DataProtoFuture,
    deserialize_single_tensor,
    deserialize_tensordict,
    serialize_single_tensor,
    serialize_tensordict,
    union_numpy_dict,
    union_two_dict,
)


@FEW
@given(rows, seeds)
def test_pickle_round_trip_out_of_band(n, seed):
    data, plain = make(n, seed)
    kept = []
    message = pickle.dumps(data, protocol=5, buffer_callback=kept.append)
    read_only = [bytes(buffer.raw()) for buffer in kept]  # what Ray hands to a reader
    for _ in range(2):
        back = pickle.loads(message, buffers=read_only)
        assert_same(back, plain)
        for tensor in back.batch.values():  # written to in place: must reach neither the buffer nor the next reader
            tensor.zero_()
        back.non_tensor_batch["turns"] += 1
    assert_same(pickle.loads(message, buffers=read_only), plain)
    assert_same(copy.deepcopy(data), plain)


def test_a_chunk_sends_its_own_rows_only_and_without_copying():
    data = DataProto.from_dict({"x": torch.arange(100_000).reshape(1000, 100), "h": torch.ones(1000, 100).bfloat16()})
    kept = []
    message = pickle.dumps(data.chunk(10)[3], protocol=5, buffer_callback=kept.append)
    raw = [buffer.raw() for buffer in kept]
    assert sorted(len(r) for r in raw) == [100 * 100 * 2, 100 * 100 * 8]
    assert len(message) < 10_000
    addresses = {np.frombuffer(r, dtype=np.uint8).ctypes.data for r in raw}
    assert data.batch["x"][300].data_ptr() in addresses and data.batch["h"][300].data_ptr() in addresses


class Extended(DataProto):
    pass


def test_a_subclass_keeps_its_class_and_attributes():
    data = Extended.from_single_dict({"x": torch.zeros(2)})
    data.note = "kept"
    back = pickle.loads(pickle.dumps(data))
    assert type(back) is Extended and back.note == "kept"
    for derived in (data[:1], data.repeat(2), data.select(), Extended.concat([data, data])):
        assert type(derived) is Extended


def test_single_tensors_and_tensordicts_travel():
    dtypes = [torch.float64, torch.bfloat16, torch.float8_e4m3fn, torch.int8, torch.bool, torch.complex64]
    for dtype in dtypes:
        tensor = torch.tensor([[0, 1], [1, 0]]).to(dtype).t()  # not contiguous
        back = deserialize_single_tensor(serialize_single_tensor(tensor))
        assert back.dtype == dtype and back.tolist() == tensor.tolist()
    parts = [torch.randn(2, 3), torch.randn(4, 3)]
    for layout in (torch.strided, torch.jagged):
        batch = TensorDict({"n": torch.nested.as_nested_tensor(parts, layout=layout), "r": torch.randn(2, 1)}, [2])
        back = deserialize_tensordict(pickle.loads(pickle.dumps(serialize_tensordict(batch))))
        assert back.batch_size == batch.batch_size and back["n"].layout == layout
        for a, b in zip(back["n"].unbind(), parts, strict=True):
            assert torch.equal(a, b)


def test_receive_buffers_are_used_again_but_never_while_visible():
    source = np.arange(1 << 20, dtype=np.int64)
    source.flags.writeable = False
    first = buffers.copy(source)
    address, tail = first.ctypes.data, torch.from_numpy(first)[-10:]
    del first
    second = buffers.copy(source)  # a view of the first is alive: its memory is taken
    assert second.ctypes.data != address
    second[:] = 0
    assert tail.tolist() == list(range((1 << 20) - 10, 1 << 20))
    del tail
    third = buffers.copy(source[: 1 << 19 | 1])
    assert third.ctypes.data == address and np.array_equal(third, source[: len(third)])


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.bfloat16, torch.float32])
def test_joined_parts_take_reused_memory_but_never_what_is_visible(dtype):
    buffers._free.clear()  # of other tests
    parts = [torch.randint(0, 2, (rows, 1 << 12)).to(dtype) for rows in (300, 0, 401)]
    joined = buffers.cat(parts)
    assert joined.dtype == dtype and torch.equal(joined, torch.cat(parts))
    address, row = joined.data_ptr(), joined[-1]
    del joined
    again = buffers.cat(parts)  # a row of the first is alive
    assert again.data_ptr() != address
    again.zero_()
    assert torch.equal(row, parts[2][-1])
    known = {address, again.data_ptr()}
    del row, again
    assert buffers.cat(parts).data_ptr() in known


def test_what_is_no_plain_array_is_joined_by_torch():
    weights = torch.ones(600, 1 << 10, requires_grad=True)
    joined = buffers.cat([weights, weights])
    joined.sum().backward()
    assert torch.equal(weights.grad, torch.full_like(weights, 2.0))
    mixed = buffers.cat([weights.detach(), torch.ones(600, 1 << 10, dtype=torch.float64)])
    assert mixed.dtype == torch.float64 and len(mixed) == 1200


def test_future_collects_chunks_and_waits(monkeypatch):
    data, plain = make(6)
    halves = data.chunk(2)
    waited = []

    def wait(refs):
        waited.append(refs)
        return [halves[ref] for ref in refs]

    future = DataProtoFuture.concat([0, 1])
    future.wait = wait
    assert_same(future.get(), plain)
    thirds = future.chunk(3)
    assert_same(thirds[2].get(), {k: v[4:] for k, v in plain.items()})
    assert waited == [[0, 1], [0, 1]]
    assert pickle.loads(pickle.dumps(thirds[0])).futures == [0, 1]  # and without `wait`, a local function
    with pytest.raises(ValueError, match="already one chunk"):
        thirds[0].chunk(2)


# -- on disk --------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(rows, seeds)
def test_disk_round_trip(tmp_path_factory, n, seed):
    path = tmp_path_factory.mktemp("disk") / "batch.pt"
    data, plain = make(n, seed)
    data[:].save_to_disk(path)  # views share storage, which safetensors itself refuses
    assert_same(DataProto.load_from_disk(path), plain)
    assert [p.name for p in path.parent.iterdir()] == ["batch.pt"]


def test_disk_keeps_types(tmp_path):
    meta = {
        "nested": {"a": [1, 2.5, None, True], "t": (1, "x"), 3: b"\x00\xff"},
        "nan": float("nan"),
        "tensor": torch.arange(3).bfloat16(),
        "array": np.array(["é", "b"]),
        "scalar": np.float32(0.1),
        "$": "a key like the tag",
        "empty": np.zeros((0, 3)),
    }
    objects = np.empty((2, 2), dtype=object)
    objects[:] = [[np.arange(2), {"k": 1}], [None, "text"]]
    data = DataProto.from_dict(non_tensors={"objects": objects}, meta_info=meta)
    data.save_to_disk(str(tmp_path / "x"))
    back = DataProto.load_from_disk(str(tmp_path / "x"))
    assert back.batch is None
    union_two_dict(dict(meta), back.meta_info)  # deep comparison: types, dtypes, NaN
    union_numpy_dict({"objects": objects}, back.non_tensor_batch)
    assert type(back.meta_info["scalar"]) is np.float32


class Opaque:
    pass


def test_disk_refuses_what_would_need_pickle_and_foreign_files(tmp_path):
    path = tmp_path / "x.pt"
    data, plain = make(2)
    data.save_to_disk(path)
    for bad, where in (
        (DataProto(meta_info={"cfg": {"deep": [Opaque()]}}), r"meta_info\['cfg'\]\['deep'\]\[0\].*Opaque"),
        (DataProto.from_dict(non_tensors={"o": [Opaque()]}), r"non_tensor_batch\['o'\].*Opaque"),
        (DataProto.from_dict({"c": torch.zeros(1, dtype=torch.complex128)}), "'c'"),
        (DataProto.from_dict(non_tensors={"s": np.zeros(1, dtype=[("a", "i4")])}), "structured"),
    ):
        with pytest.raises(DataProtoError, match=where):
            bad.save_to_disk(path)
    assert_same(DataProto.load_from_disk(path), plain)  # the file of before is whole
    with pytest.raises(FileNotFoundError, match="nothing.pt"):
        DataProto.load_from_disk(tmp_path / "nothing.pt")
    path.write_bytes(pickle.dumps(Opaque()))
    with pytest.raises(DataProtoError, match=r"x\.pt"):
        DataProto.load_from_disk(path)


def test_to_tensordict_and_size(capsys):
    data = DataProto.from_dict({"obs": torch.arange(3)}, {"label": list("abc")}, {"name": "n"})
    flat = data.to_tensordict()
    assert torch.equal(flat["obs"], torch.arange(3)) and flat["label"] == list("abc") and flat["name"] == "n"
    data.meta_info["obs"] = 1
    with pytest.raises(DataProtoError, match="obs"):
        data.to_tensordict()
    DataProto.from_dict({"x": torch.zeros(2**18)}).print_size("now")
    assert capsys.readouterr().out.startswith("now, Size of tensordict: 0.0009765625 GB")


def test_to_moves_in_place():
    data, plain = make(2)
    assert data.to("meta") is data and data.batch["ids"].device.type == "meta"
