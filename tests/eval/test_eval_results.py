"""Result files: whole or absent, resumed at chunk boundaries, refused when they are not what they seem."""

import json

import pytest

from ragen.eval.results import Chunks, ResultFiles, hash_model, read_result, read_rows


def test_chunks_survive_a_kill_and_lose_a_torn_line(tmp_path):
    path = tmp_path / "a.partial.jsonl"
    chunks = Chunks(path, "run 1")
    chunks.add({"rows": [1]})
    chunks.add({"rows": [2]})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"rows": [3')  # killed while writing
    assert Chunks(path, "run 1").done == [{"rows": [1]}, {"rows": [2]}]
    assert path.read_bytes() == whole


@pytest.mark.parametrize("text", ["", "{", '{"run_hash": "run 2"}\n{"rows": []}\n', '{"run_hash": "run 1"}\nxx\n'])
def test_chunks_of_another_run_or_damaged_ones_are_left(tmp_path, text):
    path = tmp_path / "a.partial.jsonl"
    path.write_text(text)
    assert Chunks(path, "run 1").done == []
    assert json.loads(path.read_text()) == {"run_hash": "run 1"}


def test_result_is_found_again_only_for_the_same_run(tmp_path):
    files = ResultFiles(tmp_path / "out", "bench")
    run = {"benchmark": "bench", "seed": 1}
    files.open_chunks(run)
    files.write(run, {"scores": {}}, [{"id": 0, "text": "é"}], "samples")
    assert files.finished(run)["seed"] == 1
    assert files.finished({**run, "seed": 2}) is None
    assert read_rows(files.result) == [{"id": 0, "text": "é"}]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["bench.json", "bench.rows.jsonl", "bench.samples.txt"]


def test_output_may_be_a_file(tmp_path):
    assert ResultFiles(tmp_path / "x.json", "bench").rows == tmp_path / "x.rows.jsonl"


def test_what_is_no_result_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no result file"):
        read_result(tmp_path / "none.json")
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(ValueError, match="no result of reason_test"):
        read_result(tmp_path / "a.json")


def test_model_hash_follows_the_weights_and_the_tokenizer(tmp_path):
    with pytest.raises(ValueError, match="holds no weights"):
        hash_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"1")
    (tmp_path / "tokenizer.json").write_text("{}")
    first = hash_model(tmp_path)
    assert hash_model(tmp_path) == first
    (tmp_path / "tokenizer.json").write_text("{ }")
    second = hash_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert len({first, second, hash_model(tmp_path)}) == 3
