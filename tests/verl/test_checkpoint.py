"""Checkpoints: any number of ranks, whole or absent, clear errors for what is damaged or does not fit."""

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import time
from collections import namedtuple

import checkpoint_ranks as ranks
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verl.utils.checkpoint import (
    CheckpointDir,
    CheckpointError,
    CorruptCheckpoint,
    DiskFull,
    find_latest_ckpt_path,
    manifest,
    resolve_resume,
)
from verl.utils.checkpoint.checkpoint_manager import read_tracker, whole_checkpoints, write_tracker
from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager
from verl.utils.checkpoint.shared_folder import check_shared_folder, confirm_shared_folder
from verl.utils.checkpoint.state_io import load_state, save_state


@pytest.fixture(scope="module", params=[False, True], ids=["full", "lora"])
def two_rank_checkpoint(request, tmp_path_factory):
    """(folder of step 2 saved by two ranks, what they had and did next, LoRA or not)."""
    root = tmp_path_factory.mktemp("two_ranks")
    checkpoints = CheckpointDir(root / "run")
    with checkpoints.saving(2, {"note": "driver"}) as folder:
        ranks.run_ranks(2, ranks.train_and_save, str(folder / "actor"), str(root / "reference"), request.param)
    return checkpoints.latest(), root / "reference", request.param


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_two_ranks_save_and_any_number_goes_on(two_rank_checkpoint, world_size):
    """Weights, optimizer, schedule and random state come back, and the next update is the one that was never interrupted."""
    folder, reference, lora = two_rank_checkpoint
    CheckpointDir(folder.parent).verify(folder)
    ranks.run_ranks(world_size, ranks.load_and_update, str(folder / "actor"), str(reference), lora)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_goes_on_from_cpu_ranks(two_rank_checkpoint):
    """Saved by two gloo ranks, loaded by one NCCL rank, and the update agrees."""
    folder, reference, lora = two_rank_checkpoint
    ranks.run_ranks(1, ranks.load_and_update, str(folder / "actor"), str(reference), lora, device="cuda")


def plain_checkpoint(root, step=1, max_to_keep=None, seed=0):
    """A checkpoint of one process with a small model; (CheckpointDir, folder, model, optimizer)."""
    torch.manual_seed(seed)
    model = torch.nn.Linear(8, 8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(2, 8)).sum().backward()
    optimizer.step()
    checkpoints = CheckpointDir(root, max_to_keep)
    with checkpoints.saving(step, lambda: {"step": step}) as temporary:
        FSDPCheckpointManager(model, optimizer).save_checkpoint(str(temporary / "actor"), step)
    return checkpoints, root / f"global_step_{step}", model, optimizer


def test_an_optimizer_that_never_stepped_stays_so(tmp_path):
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.5)
    FSDPCheckpointManager(model, optimizer).save_checkpoint(str(tmp_path), 0)
    fresh = torch.optim.AdamW(model.parameters(), lr=0.1)
    FSDPCheckpointManager(model, fresh).load_checkpoint(str(tmp_path))
    assert not fresh.state and fresh.param_groups[0]["lr"] == 0.5


def test_a_checkpoint_of_another_model_or_optimizer_is_refused(tmp_path):
    _, folder, _, _ = plain_checkpoint(tmp_path)
    wider = torch.nn.Linear(8, 9)
    with pytest.raises(CheckpointError, match=r"weight is \(8, 8\) in .* and \(9, 8\) in the model"):
        FSDPCheckpointManager(wider).load_checkpoint(str(folder / "actor"), ["model"])
    with pytest.raises(CheckpointError, match="weights that this model lacks"):
        FSDPCheckpointManager(torch.nn.Linear(8, 8, bias=False)).load_checkpoint(str(folder / "actor"), ["model"])
    model = torch.nn.Linear(8, 8)
    only_bias = torch.optim.AdamW([model.bias])
    with pytest.raises(CheckpointError, match="trains other parameters"):
        FSDPCheckpointManager(model, only_bias).load_checkpoint(str(folder / "actor"))
    with pytest.raises(ValueError, match="hf_model"):
        FSDPCheckpointManager(model, checkpoint_contents=["model", "hf_model"])


# -- whole or absent ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "survivor"),
    [
        ("among the ranks", 1),
        ("before the manifest", 1),
        ("before the rename", 1),
        ("after the rename", 1),  # 2 is whole, but the tracker file still names the one before
        ("before the tracker", 1),
        ("while removing the old", 2),
    ],
)
def test_killed_in_mid_save(tmp_path, moment, survivor):
    plain_checkpoint(tmp_path, step=1)
    process = multiprocessing.get_context("forkserver").Process(target=ranks.killed_at, args=(str(tmp_path), 2, moment))
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    assert find_latest_ckpt_path(tmp_path) == str(tmp_path / f"global_step_{survivor}")
    checkpoints = CheckpointDir(tmp_path)
    checkpoints.clean()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
    assert checkpoints.verify(checkpoints.latest()) == survivor == read_tracker(tmp_path)
    plain_checkpoint(tmp_path, step=2)  # and the run goes on, over whatever the kill left
    assert checkpoints.verify(checkpoints.latest()) == 2


def test_killed_at_random_moments(tmp_path):
    """A process that saves without pause is killed again and again; after each kill the last checkpoint is whole."""
    delays = np.random.default_rng(0).uniform(0.0, 0.25, size=6)
    step = 0
    for delay in delays:
        process = multiprocessing.get_context("forkserver").Process(target=ranks.save_for_ever, args=(str(tmp_path),))
        process.start()
        deadline = time.monotonic() + 300
        while not _advanced(tmp_path, step) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        named = read_tracker(tmp_path)
        assert named > step and named in whole_checkpoints(tmp_path)
        step = CheckpointDir(tmp_path).verify(find_latest_ckpt_path(tmp_path))
    CheckpointDir(tmp_path, 2).clean()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def _advanced(root, step):
    try:
        return (read_tracker(root) or 0) > step
    except OSError:
        return False


def test_killed_between_the_two_renames_of_a_step_saved_again(tmp_path):
    _, folder, _, _ = plain_checkpoint(tmp_path, step=1)
    folder.rename(tmp_path / ".global_step_1.replaced")
    checkpoints = CheckpointDir(tmp_path)
    checkpoints.clean()
    assert checkpoints.verify(folder) == 1


def test_an_error_leaves_nothing_behind(tmp_path):
    checkpoints, _, _, _ = plain_checkpoint(tmp_path, step=1)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(RuntimeError, match="worker died"), checkpoints.saving(2, {}) as folder:
        (folder / "half").write_text("x")
        raise RuntimeError("worker died")
    with pytest.raises(TypeError, match="state.model is a Linear"), checkpoints.saving(2, {"model": torch.nn.Linear(1, 1)}):
        pass
    assert sorted(os.listdir(tmp_path)) == before


def test_rotation_works_from_the_disk(tmp_path):
    for step in (1, 2, 3):
        plain_checkpoint(tmp_path, step)
    plain_checkpoint(tmp_path, 4, max_to_keep=2)  # another process, which remembers nothing
    assert CheckpointDir(tmp_path).steps() == [3, 4]
    write_tracker(tmp_path, 3)  # a user goes back; what lies beyond is not this run's to remove, the latest never is
    plain_checkpoint(tmp_path, 3, max_to_keep=1)
    assert CheckpointDir(tmp_path).steps() == [3, 4] and read_tracker(tmp_path) == 3
    assert CheckpointDir(tmp_path).verify(tmp_path / "global_step_3") == 3


def save_both(checkpoints, step):
    with checkpoints.saving(step, {"step": step}) as folder:
        for part in ("actor", "critic"):
            (folder / part).mkdir()
            (folder / part / "weights").write_text(f"{part} {step}")


def test_critics_are_kept_for_fewer_steps(tmp_path):
    checkpoints = CheckpointDir(tmp_path, max_to_keep=3, max_critic_to_keep=2)
    for step in (1, 2, 3, 4):
        save_both(checkpoints, step)
    assert checkpoints.steps() == [2, 3, 4]
    assert [s for s in checkpoints.steps() if (tmp_path / f"global_step_{s}" / "critic").is_dir()] == [3, 4]
    assert checkpoints.verify(checkpoints.latest()) == 4
    with pytest.raises(CheckpointError, match="no critic any more .*max_critic_ckpt_to_keep.*newer"):
        checkpoints.verify(tmp_path / "global_step_2")
    assert manifest.verify(tmp_path / "global_step_2")["files"].keys() >= {"actor/weights"}  # what is left is whole


def test_killed_while_a_critic_is_removed(tmp_path, monkeypatch):
    checkpoints = CheckpointDir(tmp_path, max_critic_to_keep=1)
    save_both(checkpoints, 1)

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CheckpointDir, "_delete", killed)
        save_both(checkpoints, 2)
    manifest.verify(tmp_path / "global_step_1")  # the files that are listed are there
    save_both(checkpoints, 3)
    assert [s for s in (1, 2, 3) if (tmp_path / f"global_step_{s}" / "critic").is_dir()] == [3]


def test_where_a_run_resumes(tmp_path):
    assert find_latest_ckpt_path(tmp_path) is None and find_latest_ckpt_path(None) is None
    for step in (9, 10):
        plain_checkpoint(tmp_path, step)
    (tmp_path / "global_step_11").mkdir()  # no manifest: not ours, or not whole
    assert resolve_resume(tmp_path, "auto") == str(tmp_path / "global_step_10")
    assert resolve_resume(tmp_path, "disable") is None
    assert resolve_resume(tmp_path, "resume_path", str(tmp_path / "global_step_9")).endswith("_9")
    write_tracker(tmp_path, 9)
    assert resolve_resume(tmp_path, "auto") == str(tmp_path / "global_step_9")
    shutil.rmtree(tmp_path / "global_step_9")
    assert resolve_resume(tmp_path, "auto") == str(tmp_path / "global_step_10")
    CheckpointDir(tmp_path).clean()
    assert read_tracker(tmp_path) == 10
    with pytest.raises(ValueError, match="trainer.resume_mode='last'"):
        resolve_resume(tmp_path, "last")
    with pytest.raises(ValueError, match="resume_from_path"):
        resolve_resume(tmp_path, "resume_path")
    with pytest.raises(CheckpointError, match="there is no such folder"):
        resolve_resume(tmp_path, "resume_path", str(tmp_path / "global_step_77"))
    with pytest.raises(CheckpointError, match="should be global_step_N"):
        resolve_resume(tmp_path, "resume_path", str(tmp_path))


# -- damage -------------------------------------------------------------------------------------


def _cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "damage", "complaint"),
    [
        ("actor/model/__0_0.distcp", _cut, "bytes instead of"),
        ("actor/model/__0_0.distcp", _flip, "SHA-256 differs"),
        ("actor/optimizer/__0_0.distcp", os.unlink, "is missing"),
        ("actor/extra/rank_0.json", os.unlink, "is missing"),
        ("actor/fsdp_config.json", _flip, "SHA-256 differs"),
        ("driver.json", _cut, "bytes instead of"),
        ("manifest.json", _cut, "cannot be read"),
        ("manifest.json", os.unlink, "is missing"),
    ],
)
def test_damage_is_found_before_a_worker_loads(tmp_path, name, damage, complaint):
    plain_checkpoint(tmp_path, step=1)
    checkpoints, folder, _, _ = plain_checkpoint(tmp_path, step=2)
    damage(folder / name)
    with pytest.raises(CorruptCheckpoint) as caught:
        checkpoints.verify(folder)
    message = str(caught.value)
    assert str(folder / name) in message and complaint in message and "Remove that folder to fall back" in message
    assert str(pickle.loads(pickle.dumps(caught.value))) == message  # it survives the way from a worker to the driver
    shutil.rmtree(folder)
    assert checkpoints.verify(checkpoints.latest()) == 1


@pytest.mark.parametrize(
    "name", ["model/.metadata", "model/__0_0.distcp", "fsdp_config.json", "optimizer.json", "extra/rank_0.safetensors"]
)
@pytest.mark.parametrize("damage", [_cut, os.unlink])
def test_a_worker_names_the_damaged_file_too(tmp_path, name, damage):
    _, folder, model, optimizer = plain_checkpoint(tmp_path)
    damage(folder / "actor" / name)
    with pytest.raises(CorruptCheckpoint, match=r"Remove that folder"):
        FSDPCheckpointManager(model, optimizer).load_checkpoint(str(folder / "actor"))


class _Evil:
    def __reduce__(self):
        return os.system, ("touch harm_was_done",)


def test_nothing_in_a_checkpoint_can_run_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, folder, model, _ = plain_checkpoint(tmp_path)
    (folder / "actor/model/.metadata").write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(CorruptCheckpoint, match="has no place"):
        FSDPCheckpointManager(model).load_checkpoint(str(folder / "actor"), ["model"])
    assert not (tmp_path / "harm_was_done").exists()


# -- no space -----------------------------------------------------------------------------------


def test_too_little_space_is_said_before_anything_is_written(tmp_path, monkeypatch):
    checkpoints, folder, model, optimizer = plain_checkpoint(tmp_path, step=1)
    needed = FSDPCheckpointManager(model, optimizer).estimate_bytes()
    assert needed == 72 * 4 * 3 + 2 * 4  # weights, two moments, two step counts
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10_000, 9_500, 500))
    with pytest.raises(DiskFull) as caught, checkpoints.saving(2, {}, needed_bytes=needed):
        raise AssertionError("nothing may be written")
    for part in (str(tmp_path), str(int(needed * 1.05)), "free 500 bytes", "max_actor_ckpt_to_keep"):
        assert part in str(caught.value)
    with pytest.raises(DiskFull), checkpoints.saving(2, {}):  # without an estimate: as large as the last one
        raise AssertionError("nothing may be written")
    monkeypatch.undo()
    assert checkpoints.verify(folder) == 1 and checkpoints.steps() == [1]


@pytest.mark.parametrize("where", ["tensors", "small files"])
def test_the_disk_fills_up_on_one_rank(tmp_path, where):
    """ENOSPC from the kernel on rank 1: all ranks stop, the temporary folder goes, the checkpoint before stays."""
    checkpoints, folder, _, _ = plain_checkpoint(tmp_path, step=1)
    with pytest.raises(DiskFull, match="Nothing already saved is lost"), checkpoints.saving(2, {}) as temporary:
        ranks.run_ranks(2, ranks.save_on_a_full_disk, str(temporary / "actor"), where)
    assert sorted(os.listdir(tmp_path)) == ["global_step_1", "latest_checkpointed_iteration.txt"]
    assert checkpoints.verify(folder) == 1


# -- small state --------------------------------------------------------------------------------

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=4) | st.integers() | st.just("__type__"), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(plain_values)
def test_state_comes_back_as_it_was(tmp_path_factory, value):
    stem = tmp_path_factory.mktemp("state") / "x"
    save_state(stem, value)
    assert load_state(stem) == value
    json.loads(stem.with_suffix(".json").read_text())


def test_tensors_in_state(tmp_path):
    shared = torch.arange(6.0)
    state = {"a": shared[::2], "b": (shared, np.arange(3, dtype=np.uint32)), "c": {"bf16": torch.ones(2, dtype=torch.bfloat16)}}
    save_state(tmp_path / "x", state)
    loaded = load_state(tmp_path / "x")
    assert torch.equal(loaded["a"], state["a"]) and torch.equal(loaded["b"][0], shared)
    assert isinstance(loaded["b"], tuple) and loaded["b"][1].dtype == np.uint32
    assert loaded["c"]["bf16"].dtype == torch.bfloat16


def test_shared_folder(tmp_path):
    check_shared_folder(tmp_path, lambda path, token: [confirm_shared_folder(path, token) for _ in range(3)])
    assert not os.listdir(tmp_path)
    with pytest.raises(CheckpointError, match="not one folder on all nodes"):
        check_shared_folder(tmp_path, lambda path, token: ["", confirm_shared_folder(path + "elsewhere", token)])
    with pytest.raises(CheckpointError, match="another file of that name"):
        check_shared_folder(tmp_path, lambda path, token: [confirm_shared_folder(path, "stale")])
