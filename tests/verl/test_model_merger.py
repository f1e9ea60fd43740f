"""Merging: bit-exact, the same bytes from any number of ranks and either layout, safe, and never half a folder."""

import json
import os
import pickle
import shutil
import weakref
from pathlib import Path

import checkpoint_ranks as ranks
import pytest
import torch
from safetensors.torch import load_file

from verl.model_merger.__main__ import main
from verl.model_merger.merging import MergeConfig, merge
from verl.model_merger.monitor import merge_new
from verl.model_merger.safetensors_writer import parse_size, write_file, write_safetensors
from verl.model_merger.sources import TensorFacts, open_source
from verl.utils.checkpoint import CheckpointDir, CheckpointError, CorruptCheckpoint
from verl.utils.tokenizer import hf_tokenizer

LAYOUTS = ["tied", "untied", "lora"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """{number of ranks: folder with the layouts of save_layouts}."""
    roots = {}
    for world_size in (1, 2, 3):
        roots[world_size] = tmp_path_factory.mktemp(f"ranks_{world_size}")
        ranks.run_ranks(world_size, ranks.save_layouts, str(roots[world_size]))
    return roots


@pytest.fixture(scope="module")
def models():
    return ranks.plain_models()


def folder_bytes(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_bytes_from_any_number_of_ranks_and_either_layout(saved, models, tmp_path, layout):
    """1, 2 and 3 ranks, GIFT's layout and VeRL's: one result, and it is the model, loaded by plain transformers."""
    from transformers import AutoModelForCausalLM

    results = []
    for world_size, root in saved.items():
        ours, verl = tmp_path / f"ours{world_size}", tmp_path / f"verl{world_size}"
        merge(MergeConfig(str(root / layout), str(ours), max_shard_size="20KB"))
        if layout == "lora":
            shutil.copy(root / layout / "lora_config.json", root / f"verl_{layout}")
        merge(MergeConfig(str(root / f"verl_{layout}"), str(verl), str(root / layout / "huggingface"), max_shard_size="20KB"))
        results += [folder_bytes(ours), folder_bytes(verl)]
    assert all(result == results[0] for result in results)
    assert {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "model.safetensors.index.json",
    } <= set(results[0])
    loaded, expected = AutoModelForCausalLM.from_pretrained(ours), models[layout]
    state, wanted = loaded.state_dict(), expected.state_dict()
    assert state.keys() == wanted.keys()
    for name in state:
        if layout == "lora" and ("q_proj.weight" in name or "down_proj" in name):
            torch.testing.assert_close(state[name], wanted[name], rtol=0, atol=1e-6)  # peft multiplies in another order
        else:
            assert torch.equal(state[name], wanted[name]), name
    ids = ranks.recorded_batch()
    torch.testing.assert_close(loaded(ids).logits, expected.eval()(ids).logits, rtol=0, atol=0 if layout != "lora" else 1e-5)
    assert hf_tokenizer(str(ours)).apply_chat_template([{"role": "w1", "content": "w2"}], tokenize=False) == "w1 w2 "


def test_tied_head_is_dropped_untied_kept(saved, tmp_path):
    for layout, expected in {"tied": False, "untied": True, "verl_tied": False}.items():
        merge(
            MergeConfig(
                str(saved[2] / layout), str(tmp_path / layout), str(saved[2] / layout.removeprefix("verl_") / "huggingface")
            )
        )
        weights = load_file(tmp_path / layout / "model.safetensors")
        assert ("lm_head.weight" in weights) == expected and "model.embed_tokens.weight" in weights


def test_adapter_export_is_what_peft_reads(saved, models, tmp_path):
    from peft import PeftModel

    merge(MergeConfig(str(saved[2] / "lora"), str(tmp_path / "adapter"), lora="adapter"))
    loaded = PeftModel.from_pretrained(ranks.tiny_model(), tmp_path / "adapter").merge_and_unload().state_dict()
    expected = models["lora"].state_dict()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    with pytest.raises(CheckpointError, match="holds no LoRA weights"):
        merge(MergeConfig(str(saved[2] / "tied"), str(tmp_path / "none"), lora="adapter"))


def test_dtype_and_config(saved, tmp_path):
    merge(MergeConfig(str(saved[2] / "tied"), str(tmp_path / "half"), dtype="bfloat16"))
    weights = load_file(tmp_path / "half" / "model.safetensors")
    expected = ranks.tiny_model().state_dict()
    assert all(torch.equal(tensor, expected[name].bfloat16()) for name, tensor in weights.items())
    config = json.loads((tmp_path / "half" / "config.json").read_text())
    assert config["dtype"] == "bfloat16" and config["architectures"] == ["Qwen2ForCausalLM"]


def test_command_line(saved, tmp_path, capsys):
    source, target = str(saved[3] / "tied"), str(tmp_path / "hf")
    assert main(["merge", "--backend", "fsdp", "--local_dir", source, "--target_dir", target]) == 0
    before = folder_bytes(Path(target))
    assert main(["merge", "--backend", "fsdp", "--local_dir", source, "--target_dir", target]) == 1
    assert "exists and is not empty" in capsys.readouterr().err
    assert main(["merge", "--local_dir", source, "--target_dir", target, "--overwrite"]) == 0
    assert folder_bytes(Path(target)) == before and os.listdir(tmp_path) == ["hf"]
    assert main(["test", "--backend", "fsdp", "--local_dir", source, "--test_hf_dir", target]) == 0
    assert "26 tensors are equal" in capsys.readouterr().out
    assert main(["test", "--local_dir", str(saved[3] / "lora"), "--test_hf_dir", target]) == 1
    assert "differs from" in capsys.readouterr().err
    assert main(["merge", "--local_dir", str(tmp_path), "--target_dir", target + "2"]) == 1
    assert "holds no checkpoint" in capsys.readouterr().err
    for option, value in (("max_shard_size", "much"), ("dtype", "int4"), ("lora", "both")):
        with pytest.raises(ValueError, match=option):
            merge(MergeConfig(source, target + "3", **{option: value}))
    assert os.listdir(tmp_path) == ["hf"]


def test_an_interrupted_merge_leaves_the_target_as_it_was(saved, tmp_path, monkeypatch):
    target = tmp_path / "hf"
    (tmp_path / ".hf.tmp999999999").mkdir()  # left by a merge that was killed: no process has that number
    merge(MergeConfig(str(saved[2] / "tied"), str(target)))
    before = folder_bytes(target)

    def broken(*args):
        raise OSError("disk gone")

    monkeypatch.setattr("verl.model_merger.merging.write_safetensors", broken)
    with pytest.raises(OSError, match="disk gone"):
        merge(MergeConfig(str(saved[2] / "untied"), str(target), overwrite=True))
    assert folder_bytes(target) == before and os.listdir(tmp_path) == ["hf"]


# -- VeRL's layout ------------------------------------------------------------------------------


def test_plain_shards_are_joined_along_the_first_dimension(tmp_path):
    whole = {"a": torch.randn(7, 3), "scalar": torch.tensor(2.0)}
    for rank, piece in enumerate(whole["a"].tensor_split(3)):
        torch.save({"a": piece.clone(), "scalar": whole["scalar"]}, tmp_path / f"model_world_size_3_rank_{rank}.pt")
    source = open_source(tmp_path)
    assert source.facts["a"].shape == (7, 3)
    assert torch.equal(source.read("a"), whole["a"]) and torch.equal(source.read("scalar"), whole["scalar"])


class _Evil:
    def __reduce__(self):
        return os.system, ("touch harm_was_done",)


def test_rank_files_missing_damaged_or_malicious(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(saved[2] / "verl_tied", tmp_path / "verl")
    second = folder / "model_world_size_2_rank_1.pt"
    whole = second.read_bytes()
    second.write_bytes(whole[:-100])
    with pytest.raises(CorruptCheckpoint, match="rank_1.pt cannot be read"):
        open_source(folder)
    torch.save({"a": _Evil()}, second)
    with pytest.raises(CorruptCheckpoint, match="rank_1.pt cannot be read"):
        open_source(folder)
    assert pickle and not (tmp_path / "harm_was_done").exists()
    second.unlink()
    with pytest.raises(CorruptCheckpoint, match="rank_1.pt is missing"):
        open_source(folder)


def test_a_checkpoint_that_lacks_a_weight_is_refused(tmp_path, saved):
    state = ranks.tiny_model().state_dict()
    del state["model.layers.1.mlp.up_proj.weight"]
    torch.save(state, tmp_path / "model_world_size_1_rank_0.pt")
    with pytest.raises(CheckpointError, match="lacks 1 weights of Qwen2ForCausalLM: model.layers.1.mlp.up_proj.weight"):
        merge(MergeConfig(str(tmp_path), str(tmp_path / "hf"), str(saved[1] / "tied" / "huggingface")))
    with pytest.raises(CheckpointError, match="--hf_model_path"):
        merge(MergeConfig(str(tmp_path), str(tmp_path / "hf")))


# -- the writer ---------------------------------------------------------------------------------


def test_one_tensor_in_memory_at_a_time(tmp_path):
    """Every tensor handed over is free again before the next one is asked for."""
    tensors = {f"t{index}": torch.randn(5, index + 1) for index in range(9)}
    alive: list[weakref.ref] = []

    def read(name):
        assert not [ref for ref in alive if ref() is not None]
        tensor = tensors[name].clone()
        alive.append(weakref.ref(tensor))
        return tensor

    facts = {name: TensorFacts(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    files = write_safetensors(tmp_path, facts, read, max_shard_bytes=200)
    assert len(files) > 3 and len(alive) == len(tensors)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.numel() * 4 for tensor in tensors.values())
    for file in files:
        held = load_file(tmp_path / file).values()
        assert len(held) == 1 or sum(tensor.nbytes for tensor in held) <= 200, file
    loaded = {name: load_file(tmp_path / file)[name] for name, file in index["weight_map"].items()}
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_the_library_reads_every_dtype(tmp_path, dtype):
    tensors = {"empty": torch.zeros(0, 3), "scalar": torch.tensor(1.0), "matrix": torch.randn(3, 2)}
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    facts = {name: TensorFacts(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    write_file(tmp_path / "x.safetensors", facts, tensors.__getitem__)
    loaded = load_file(tmp_path / "x.safetensors")
    assert all(loaded[name].dtype == dtype and torch.equal(loaded[name].float(), tensors[name].float()) for name in tensors)


def test_sizes():
    assert [parse_size(text) for text in ("5GB", "300MB", "2GiB", "1.5kb", 7)] == [5 * 10**9, 3 * 10**8, 2**31, 1500, 7]
    for text in ("", "5 apples", "-1GB", "0"):
        with pytest.raises(ValueError, match="max_shard_size"):
            parse_size(text)


# -- the watcher --------------------------------------------------------------------------------


def test_monitor_merges_whole_checkpoints_only_and_keeps_the_last(saved, tmp_path):
    run, merged = tmp_path / "run", tmp_path / "run" / "merged"
    checkpoints = CheckpointDir(run)
    for step in (1, 2, 3):
        with checkpoints.saving(step, {}) as folder:
            shutil.copytree(saved[2] / "tied", folder / "actor")
            assert merge_new(run, merged) == ([] if step == 1 else [step - 1])  # the one being written is not seen
    (run / "global_step_2" / "actor" / "model" / "__0_0.distcp").write_bytes(b"damaged")
    shutil.rmtree(merged / "global_step_2")
    assert merge_new(run, merged, remove_old=True) == [3]  # the damaged one is neither merged nor removed
    assert sorted(os.listdir(merged)) == ["global_step_1", "global_step_3"]
    assert checkpoints.steps() == [2, 3]
    assert main(["monitor", "--watch_dir", str(run), "--target_root", str(merged), "--once", "--remove_old"]) == 0
    assert checkpoints.steps() == [2, 3] and merge_new(run, merged) == []


def test_a_checkpoint_being_written_is_not_merged(saved, tmp_path):
    checkpoints = CheckpointDir(tmp_path / "run")
    with checkpoints.saving(1, {}) as folder:
        shutil.copytree(saved[2] / "tied", folder / "actor")
        with pytest.raises(CheckpointError, match="still being written"):
            merge(MergeConfig(str(folder / "actor"), str(tmp_path / "hf")))
    damaged = tmp_path / "run" / "global_step_1"
    (damaged / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="not whole"):
        merge(MergeConfig(str(damaged / "actor"), str(tmp_path / "hf")))
