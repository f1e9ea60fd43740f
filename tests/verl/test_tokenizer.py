"""hf_tokenizer: padding, clear errors, no code of strangers."""

import json

import pytest
from checkpoint_ranks import tiny_tokenizer

from verl.utils.tokenizer import hf_processor, hf_tokenizer


def test_a_tokenizer_without_padding_pads_with_its_end_token(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    assert hf_tokenizer(str(tmp_path)).pad_token == "<eos>"
    assert hf_tokenizer(str(tmp_path), correct_pad_token=False).pad_token is None
    assert hf_processor(str(tmp_path)) is None


def test_a_padding_token_is_left_alone(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path)
    assert hf_tokenizer(str(tmp_path)).pad_token == "<pad>"


def test_neither_padding_nor_end_token(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="neither pad_token nor eos_token"):
        hf_tokenizer(str(tmp_path))


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        hf_tokenizer(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="holds no tokenizer"):
        hf_tokenizer(str(tmp_path))


def test_code_of_its_own_is_not_run_unless_asked(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'harm')!r}, 'w')\nclass Evil: pass\n")
    with pytest.raises(ValueError, match="trust_remote_code=true"):
        hf_tokenizer(str(tmp_path))
    assert not (tmp_path / "harm").exists()
