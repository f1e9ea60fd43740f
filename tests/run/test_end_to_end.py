"""The whole path with real parts: Hydra config, Ray, two FSDP2 ranks, vLLM, checkpoints, kill and resume."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STEPS = 5
SMALL = [
    "es_manager.train.env_groups=4", "es_manager.train.env_configs.n_groups=[4]", "es_manager.train.group_size=4",
    "es_manager.val.env_groups=16", "es_manager.val.env_configs.n_groups=[8,8]",
    "es_manager.train.env_configs.tags=[TicTacToe]",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4", "actor_rollout_ref.rollout.rollout_filter_ratio=0.5",
    f"trainer.total_training_steps={STEPS}", "trainer.save_freq=2", "trainer.test_freq=4", "trainer.max_actor_ckpt_to_keep=2",
    "trainer.logger=[console,file,tensorboard]", "trainer.log_val_generations=2",
    "collapse_detection.first_turn_enabled=true", "collapse_detection.compute_freq=2", "collapse_detection.num_samples=8",
]  # fmt: skip


def command(folder: Path, *extra: str) -> list[str]:
    return [sys.executable, "train.py", "--config-name", "_0_laptop", *SMALL, f"trainer.default_local_dir={folder}", *extra]


def start(folder: Path, *extra: str) -> subprocess.Popen:
    return subprocess.Popen(
        command(folder, *extra), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=420)
    assert process.returncode == 0, output[-4000:]
    return output


def metrics(folder: Path) -> list[dict]:
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def without_times(row: dict) -> dict:
    timed = ("timing_s/", "perf/time_per_step", "timing_per_token_ms/", "perf/tokens_per_s", "perf/throughput")
    return {key: value for key, value in row.items() if not key.startswith(timed)}


def children_of_session(sid: int) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getsid(int(entry.name)) == sid:
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:120])
            except (ProcessLookupError, FileNotFoundError, PermissionError):
                continue
    return found


def wait_for(condition, process: subprocess.Popen, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0][-4000:]
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory) -> Path:
    """A run never killed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    finish(start(folder))
    return folder


def test_a_run_leaves_what_it_promises(whole_run):
    rows = metrics(whole_run)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5]
    for tag in ("TicTacToe", "TicTacToePerfect"):
        for name in ("success", "draw", "loss", "invalid", "unfinished"):
            assert 0 <= rows[0][f"val/{tag}/{name}"] <= 1
    for row in rows[1:]:
        assert row["rollout/logprob_diff_max"] < 1e-4
        assert row["rollout/episodes"] == 16
        assert row["perf/balance"] < 2
    assert (whole_run / "latest_checkpointed_iteration.txt").read_text().strip() == "5"
    assert sorted(p.name for p in whole_run.glob("global_step_*")) == ["global_step_4", "global_step_5"]  # rotation
    assert (whole_run / "global_step_5/actor/huggingface/config.json").is_file()
    assert "trainer:" in (whole_run / "config.yaml").read_text()
    episodes = [json.loads(line) for line in (whole_run / "trajectories/train_step_000005.jsonl").open()]
    assert len(episodes) == 16 and any(e["kept"] for e in episodes)
    shown = next(e for e in episodes if e["tokens"])
    trained = [t for t, m in zip(shown["tokens"]["text"], shown["tokens"]["trained"], strict=True) if m]
    said = "".join(m["content"] for m in shown["messages"] if m["role"] == "assistant")
    assert "".join(trained).replace("<|im_end|>", "") == said


def test_killed_in_mid_step_and_resumed_is_the_run_never_killed(whole_run, tmp_path):
    folder = tmp_path / "run"
    process = start(folder)
    wait_for(lambda: any(row["step"] == 3 for row in metrics(folder)), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    resumed = finish(start(folder))
    assert "global_step_2" in resumed
    assert [without_times(row) for row in metrics(folder)] == [without_times(row) for row in metrics(whole_run)]


def test_killed_in_mid_save_and_resumed_is_the_run_never_killed(whole_run, tmp_path):
    folder = tmp_path / "run"
    process = start(folder)
    wait_for((folder / ".global_step_4.tmp").exists, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "global_step_4").exists()
    assert (folder / "latest_checkpointed_iteration.txt").read_text().strip() == "2"
    finish(start(folder))
    assert [without_times(row) for row in metrics(folder)] == [without_times(row) for row in metrics(whole_run)]


def test_interrupt_leaves_no_process(tmp_path):
    folder = tmp_path / "run"
    process = start(folder, "trainer.total_training_steps=100000")
    wait_for(lambda: any(row["step"] == 1 for row in metrics(folder)), process)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "goes on from the last checkpoint" in output, output[-2000:]
    end = time.monotonic() + 20
    while (left := children_of_session(process.pid)) and time.monotonic() < end:
        time.sleep(0.2)
    assert not left


def test_the_merged_folder_is_the_trainers_policy_in_transformers_and_in_vllm(whole_run, tmp_path):
    """The engine's log-probabilities of the last step's replies were the trainer's; a merge of the checkpoint
    before that step's update must give them again, token by token."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from verl.workers.rollout.base import SamplingParams
    from verl.workers.rollout.vllm_rollout import VLLMEngine, vllm_available

    merged = tmp_path / "merged"
    subprocess.run(
        [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp",
         "--local_dir", str(whole_run / "global_step_4/actor"), "--target_dir", str(merged)], cwd=ROOT, check=True,
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(merged)
    model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()
    pieces = {tokenizer.decode([i]): i for i in range(len(tokenizer))}
    checked = 0
    for line in (whole_run / "trajectories/train_step_000005.jsonl").open():
        tokens = json.loads(line)["tokens"]
        if not tokens or any(t not in pieces for t in tokens["text"]):
            continue
        ids = torch.tensor([[pieces[t] for t in tokens["text"]]])
        with torch.no_grad():
            logprobs = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        for at, (trained, seen) in enumerate(zip(tokens["trained"], tokens["logprob"], strict=True)):
            if trained:
                assert abs(float(logprobs[at - 1]) - seen) < 2e-4  # logged with four digits
                checked += 1
    assert checked > 20
    if not vllm_available():
        pytest.skip("vLLM is not installed: compared with transformers alone")
    engine = VLLMEngine(str(merged), max_model_len=256)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "(1,1)O (1,2)-"}], add_generation_prompt=True)["input_ids"]
    engine.add("0", prompt, SamplingParams(max_tokens=8, seed=1))
    replies = []
    while engine.unfinished:
        replies += engine.step()
    engine.close()
    ids = torch.tensor([prompt + replies[0].token_ids])
    with torch.no_grad():
        logprobs = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    expected = logprobs.gather(1, torch.tensor(replies[0].token_ids)[:, None])[:, 0]
    assert torch.allclose(expected, torch.tensor(replies[0].logprobs), atol=1e-4)


def worker_pids(session: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name = (entry / "cmdline").read_bytes().decode(errors="replace")
                environment = (entry / "environ").read_bytes().decode(errors="replace")
            except (FileNotFoundError, PermissionError, ProcessLookupError):
                continue
            if "AgentWorker" in name and f"GIFT_DRIVER={session}\0" in environment:
                found.append(int(entry.name))
    return found


def test_a_dead_worker_is_named_and_the_run_goes_on_from_the_last_checkpoint(whole_run, tmp_path):
    folder = tmp_path / "run"
    process = start(folder, "trainer.max_restarts=1")
    wait_for(lambda: any(row["step"] == 3 for row in metrics(folder)), process)
    pids = worker_pids(process.pid)
    assert len(pids) == 2
    os.kill(pids[1], signal.SIGKILL)
    output = finish(process)
    assert f"pid {pids[1]}" in output and "starting new workers" in output, output[-3000:]
    assert [without_times(row) for row in metrics(folder)] == [without_times(row) for row in metrics(whole_run)]
