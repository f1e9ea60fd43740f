"""Tracking: what is written, cut back, masked, and that no tracker stops a run."""

import json
import logging
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from verl.utils.secrets import MASK, MaskingFilter, mask_secrets, mask_text
from verl.utils.tracking import FileTracker, Tracking
from verl.utils.tracking_services import WANDB_ID_FILE


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_file_tracker_writes_plain_json(tmp_path):
    tracker = FileTracker(tmp_path / "metrics.jsonl")
    tracker.log({"loss": np.float32(0.5), "norm": torch.tensor(2.0), "bad": float("nan"), "names": ("a", 1), "step": 99}, step=3)
    tracker.log({"count": np.int64(7)}, step=4)
    assert rows(tmp_path / "metrics.jsonl") == [
        {"step": 3, "loss": 0.5, "norm": 2.0, "bad": None, "names": ["a", 1]},
        {"step": 4, "count": 7},
    ]
    with pytest.raises(TypeError, match="a metric is a number"):
        tracker.log({"model": object()}, step=5)


def test_truncate_after_cuts_back_to_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tracker = FileTracker(path)
    for step in range(6):
        tracker.log({"x": step / 3}, step)
    before = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(path.read_bytes() + b'{"step": 6, "x": 0.1')  # killed in mid-line
    assert tracker.truncate_after(3) == 4
    assert path.read_bytes() == b"".join(before[:4])
    assert list(tmp_path.iterdir()) == [path]


def test_a_line_cut_short_spoils_no_later_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "x": 1}\n{"step": 2, "x')
    tracker = FileTracker(path)
    tracker.log({"x": 3}, step=3)
    assert [row["step"] for row in tracker.read()] == [1, 3]


def test_resume_step_of_tracking(tmp_path):
    def steps(resume_step):
        with Tracking("p", "e", ["file"], {}, folder=tmp_path, resume_step=resume_step) as tracking:
            return [row["step"] for row in tracking.history()]

    for step in range(4):
        FileTracker(tmp_path / "metrics.jsonl").log({"x": 1}, step)
    assert steps(None) == [0, 1, 2, 3]
    assert steps(2) == [0, 1, 2]
    assert steps(0) == []


def test_unknown_and_missing_backends(tmp_path):
    with pytest.raises(ValueError, match="clearml"):
        Tracking("p", "e", ["console", "clearml"], {})
    sys.modules["swanlab"] = None  # import raises ImportError
    try:
        with pytest.raises(ImportError, match="pip install swanlab"):
            Tracking("p", "e", ["swanlab"], {}, folder=tmp_path)
    finally:
        del sys.modules["swanlab"]


def test_a_failing_tracker_is_named_once_and_the_run_goes_on(tmp_path, caplog):
    class Broken:
        calls = 0

        def log(self, data, step):
            self.calls += 1
            raise ConnectionError("no route to host, api_key=abcdefgh12345678")

        def finish(self):
            raise ConnectionError("no route to host")

    tracking = Tracking("p", "e", ["file"], {}, folder=tmp_path)
    broken = tracking.logger["wandb"] = Broken()
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            tracking.log({"x": step}, step)
        tracking.finish()
    assert broken.calls == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "wandb" in caplog.text and "abcdefgh12345678" not in caplog.text
    assert len(rows(tmp_path / "metrics.jsonl")) == 3


def test_console_and_tensorboard(tmp_path, caplog):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with caplog.at_level(logging.INFO), Tracking("p", "e", ["console", "tensorboard"], {}, folder=tmp_path) as tracking:
        tracking.log({"train/success": 0.123456, "tag": "x"}, step=7)
    assert "step:7 - train/success:0.1235 - tag:x" in caplog.text
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (scalar,) = events.Scalars("train/success")
    assert (scalar.step, round(scalar.value, 6)) == (7, 0.123456)


SAMPLES = [("user: a <b>", "assistant: 1\n# no title", 1.0), ("user: c", "assistant: 2", -0.5)]


def test_validation_episodes_in_the_run_folder_are_cut_back_too(tmp_path):
    with Tracking("p", "e", ["file", "console"], {}, folder=tmp_path) as tracking:
        for step in (1, 2):
            tracking.log({"x": step}, step)
            tracking.log_generations(SAMPLES, step)
        tracking.log_generations([], 3)
    found = rows(tmp_path / "val_generations.jsonl")
    assert [row["step"] for row in found] == [1, 1, 2, 2]
    assert [(row["input"], row["output"], row["score"]) for row in found[:2]] == SAMPLES
    Tracking("p", "e", ["file"], {}, folder=tmp_path, resume_step=1)
    assert [row["step"] for row in rows(tmp_path / "val_generations.jsonl")] == [1, 1]


def test_validation_episodes_in_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Tracking("p", "e", ["tensorboard"], {}, folder=tmp_path) as tracking:
        tracking.log_generations(SAMPLES, step=7)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (event,) = events.Tensors("val/generations/text_summary")
    (text,) = event.tensor_proto.string_val
    assert event.step == 7 and b"**score 1**" in text and b"    # no title" in text and b"**score -0.5**" in text


def test_validation_episodes_in_wandb(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    with Tracking("p", "e", ["wandb"], {}, folder=tmp_path) as tracking:
        for step in (1, 2):
            tracking.log_generations(SAMPLES, step)
        assert "wandb" in tracking.logger  # it did not fail
    tables = [json.loads(path.read_text()) for path in (tmp_path / "wandb").rglob("*.table.json")]
    latest = max(tables, key=lambda table: len(table["data"]))
    assert latest["columns"] == ["step", "input_1", "output_1", "score_1", "input_2", "output_2", "score_2"]
    assert latest["data"] == [[step, *SAMPLES[0], *SAMPLES[1]] for step in (1, 2)]


def test_wandb_offline_keeps_its_run_and_sees_no_secret(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))
    config = {"players": [{"api_key": "sk-abcdefghijklmnopqrstuvwxyz"}], "lr": 0.1}
    ids = []  # no key: offline, by itself
    for step in (1, 2):
        with Tracking("p", "e", ["wandb"], config, folder=tmp_path) as tracking:
            run = tracking.logger["wandb"].run
            assert dict(run.config) == {"players": [{"api_key": MASK}], "lr": 0.1}
            tracking.log({"x": 1.0}, step)
            ids.append(run.id)
    assert ids[0] == ids[1] == (tmp_path / WANDB_ID_FILE).read_text()
    written = b"".join(path.read_bytes() for path in (tmp_path / "wandb").rglob("*") if path.is_file())
    assert written and b"sk-abcdef" not in written


def test_mask_secrets_by_name_and_by_look():
    config = OmegaConf.create(
        {
            "player_info": [{"provider": "deepseek", "api_key": "abc", "max_tokens": 5}],
            "rollout": {"max_num_batched_tokens": 8192, "eos_token": "<|end|>"},
            "data": {"prompt_key": "prompt"},
            "hf_token": "hf_x", "password": 12345, "secret": None, "token": "",
            "url": "https://user:pass@example.org/v1", "note": "use sk-0123456789abcdefghij now",
        }
    )  # fmt: skip
    masked = mask_secrets(config)
    assert masked["player_info"] == [{"provider": "deepseek", "api_key": MASK, "max_tokens": 5}]
    assert masked["rollout"] == {"max_num_batched_tokens": 8192, "eos_token": "<|end|>"}
    assert masked["data"] == {"prompt_key": "prompt"}
    assert (masked["hf_token"], masked["password"], masked["secret"], masked["token"]) == (MASK, MASK, None, "")
    assert masked["url"] == f"https://{MASK}@example.org/v1"
    assert masked["note"] == f"use {MASK} now"
    assert config.password == 12345  # a copy was masked


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(["api_key", "OPENAI_API_KEY", "deepseek-api-key", "access_token", "client_secret", "DB_PASSWORD"]),
    st.text("abcXYZ0123456789", min_size=8, max_size=40).map(lambda text: f"q{text}"),
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=3),
)
def test_no_secret_survives_at_any_depth(name, secret, path):
    config = {name: secret, "headers": [f"Authorization: Bearer {secret}"], "line": f"{name}={secret}"}
    for key in path:
        config = {key: [config]}
    assert secret not in json.dumps(mask_secrets(config))


def test_log_records_are_masked(monkeypatch, capsys):
    monkeypatch.setenv("SOME_API_KEY", "plain-words-as-key")
    assert mask_text("it is plain-words-as-key") == f"it is {MASK}"
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(MaskingFilter())
    log = logging.getLogger("masked")
    log.addHandler(handler)
    try:
        raise ValueError("bad key plain-words-as-key")
    except ValueError:
        log.exception("key %s failed", "plain-words-as-key")
    finally:
        log.removeHandler(handler)
    shown = capsys.readouterr().out
    assert f"key {MASK} failed" in shown and f"bad key {MASK}" in shown and "plain-words" not in shown
