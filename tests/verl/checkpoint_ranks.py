"""Real gloo ranks for the checkpoint tests: a tiny tied Qwen2 under FSDP2, AdamW and a schedule."""

import os
import random
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

DEVICE = "cpu"  # of this rank; run_ranks(device="cuda") sets it there
PRELOAD = ["torch", "torch.distributed.fsdp", "torch.distributed.checkpoint", "transformers.models.qwen2.modeling_qwen2", "peft"]


mp.get_context("forkserver").set_forkserver_preload(PRELOAD)  # libraries are imported once, not once a rank


class Wrapped(torch.nn.Module):
    """A module around the language model, as the workers have one."""

    def __init__(self, language_model):
        super().__init__()
        self.language_model = language_model

    def forward(self, ids):
        return self.language_model(input_ids=ids, use_cache=False).logits


def tiny_config(tied=True):
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=67, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=tied, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


def tiny_model(tied=True, seed=0):
    from transformers import Qwen2ForCausalLM

    torch.manual_seed(seed)
    return Qwen2ForCausalLM(tiny_config(tied)).float()


def recorded_batch():
    return torch.randint(0, 67, (6, 12), generator=torch.Generator().manual_seed(5))


def tiny_tokenizer():
    """Words as tokens, with a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<bos>", "<eos>", "<unk>", *(f"w{index}" for index in range(63))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    template = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        chat_template=template,
    )


def build(lora=False, tied=True, seed=0):
    """Sharded model, optimizer, schedule and manager of this rank."""
    hf_model = tiny_model(tied, seed)
    if lora:
        from peft import LoraConfig, get_peft_model

        hf_model = get_peft_model(hf_model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]))
        for name, parameter in hf_model.named_parameters():  # a fresh lora_B is zero: merging would change nothing
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    hf_model.to(DEVICE)
    mesh = init_device_mesh(DEVICE, (dist.get_world_size(),))
    base = hf_model.get_base_model() if lora else hf_model
    for layer in base.model.layers:
        fully_shard(layer, mesh=mesh)
    model = Wrapped(hf_model)
    fully_shard(model, mesh=mesh)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    manager = FSDPCheckpointManager(model, optimizer, scheduler, processing_class=tiny_tokenizer(), hf_model=hf_model)
    return model, optimizer, scheduler, manager


def update(model, optimizer, scheduler):
    """One step on the recorded batch, cut over the ranks; its loss is the same on any number of them."""
    ids = recorded_batch().to(DEVICE)
    mine = ids[dist.get_rank() :: dist.get_world_size()]
    logits = model(mine)
    losses = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, 67), mine[:, 1:].reshape(-1), reduction="sum")
    loss = losses / (ids.numel() - len(ids))
    (loss * dist.get_world_size()).backward()  # FSDP averages gradients over the ranks
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad()
    total = loss.detach().clone()
    dist.all_reduce(total)
    return total.item()


def whole_state(model, optimizer):
    """Weights and optimizer state as whole tensors by name (`language_model.` in front)."""
    for module in model.modules():
        if hasattr(module, "reshard"):
            module.reshard()

    def full(tensor):
        return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().cpu().clone()

    weights = {name: full(parameter) for name, parameter in model.named_parameters()}
    moments = {
        f"{name}/{key}": full(value)
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    return weights, moments


def run_ranks(world_size, function, *args, device="cpu"):
    """Run `function(rank, world_size, *args)` in so many processes that form a gloo group; raises what a rank raised."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.start_processes(_enter, (world_size, port, function, args, device), nprocs=world_size, start_method="forkserver")


def _enter(rank, world_size, port, function, args, device):
    global DEVICE
    DEVICE = device
    torch.set_num_threads(1)
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "127.0.0.1", str(port)
    if device == "cuda":
        torch.cuda.set_device(rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", rank=rank, world_size=world_size)
    try:
        function(rank, world_size, *args)
    finally:
        dist.destroy_process_group()


def train_and_save(rank, world_size, folder, reference, lora=False, tied=True, updates=2):
    """Some updates, a checkpoint into `folder`, then one more update; rank 0 writes what came out to `reference`."""
    model, optimizer, scheduler, manager = build(lora, tied)
    for _ in range(updates):
        update(model, optimizer, scheduler)
    random.seed(100 + rank)
    torch.manual_seed(200 + rank)
    manager.save_checkpoint(folder, global_step=updates, extra_state={"rank": rank, "history": torch.arange(3.0)})
    draws = (random.random(), torch.rand(2))
    weights, moments = whole_state(model, optimizer)
    loss = update(model, optimizer, scheduler)
    after, _ = whole_state(model, optimizer)
    torch.save(draws, f"{reference}.draws_{rank}")
    if rank == 0:
        torch.save({"weights": weights, "moments": moments, "loss": loss, "after": after}, reference)
        assert manager.estimate_bytes() > 0


def load_and_update(rank, world_size, folder, reference, lora=False, tied=True):
    """Load into a model built from another seed, check state and random generators, update once and compare."""
    expected = torch.load(reference, weights_only=True)
    model, optimizer, scheduler, manager = build(lora, tied, seed=9)
    extra = manager.load_checkpoint(folder)
    if rank < 2:
        assert extra["rank"] == rank and torch.equal(extra["history"], torch.arange(3.0))
        python_draw, torch_draw = torch.load(f"{reference}.draws_{rank}", weights_only=True)
        assert random.random() == python_draw and torch.equal(torch.rand(2), torch_draw)
    else:
        assert extra == {}
    weights, moments = whole_state(model, optimizer)
    assert weights.keys() == expected["weights"].keys() and moments.keys() == expected["moments"].keys()
    assert all(torch.equal(weights[name], expected["weights"][name]) for name in weights)
    assert all(torch.equal(moments[name], expected["moments"][name]) for name in moments)
    assert scheduler.last_epoch == 2 and optimizer.param_groups[0]["lr"] == 1e-2 * (1 / 3)
    loss = update(model, optimizer, scheduler)
    after, _ = whole_state(model, optimizer)
    assert abs(loss - expected["loss"]) < 1e-5
    for name, tensor in after.items():
        torch.testing.assert_close(tensor, expected["after"][name], rtol=0, atol=1e-5)


def save_on_a_full_disk(rank, world_size, folder, where):
    """Rank 1's writes go to /dev/full, which answers ENOSPC: every rank has to say so, none may wait for ever."""
    from torch.distributed.checkpoint import filesystem

    import verl.utils.checkpoint.state_io as state_io
    from verl.utils.checkpoint import DiskFull

    *_, manager = build()
    if rank == 1 and where == "tensors":
        filesystem.FileSystem.create_stream = lambda self, path, mode: _full_disk(mode)
    if rank == 1 and where == "small files":
        state_io.write_text = None  # nothing may come before the tensors of this rank's state
        state_io.save_file = lambda tensors, path: _write_to_full_disk()
    try:
        manager.save_checkpoint(folder, global_step=1)
    except DiskFull:
        raise
    raise AssertionError("the save went through")


def _full_disk(mode):
    import contextlib

    return contextlib.closing(open("/dev/full", mode, buffering=0))


def _write_to_full_disk():
    with open("/dev/full", "wb") as file:
        file.write(b"x" * 100_000)


def save_for_ever(folder):
    """Checkpoint after checkpoint by a plain process, until somebody kills it."""
    from verl.utils.checkpoint import CheckpointDir

    torch.set_num_threads(1)
    model = torch.nn.Linear(64, 64)
    manager = FSDPCheckpointManager(model, torch.optim.AdamW(model.parameters()))
    checkpoints = CheckpointDir(folder, max_to_keep=2)
    checkpoints.clean()
    step = (checkpoints.steps() or [0])[-1]
    while True:
        step += 1
        with checkpoints.saving(step, {"step": step}) as temporary:
            manager.save_checkpoint(str(temporary / "actor"), step)


def killed_at(folder, step, moment):
    """Save `step` and die by SIGKILL at a chosen moment of it."""
    import signal
    from pathlib import Path

    from verl.utils.checkpoint import CheckpointDir, checkpoint_dir

    def die(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

    rename = Path.rename

    def rename_then_die(self, target):
        rename(self, target)
        die()

    model = torch.nn.Linear(8, 8)
    manager = FSDPCheckpointManager(model)
    if moment == "before the manifest":
        checkpoint_dir.write_manifest = die
    elif moment == "before the rename":
        Path.rename = die
    elif moment == "after the rename":
        Path.rename = rename_then_die
    elif moment == "while removing the old":
        CheckpointDir._remove = lambda self, old: (rename(old, old.with_name(f".{old.name}.removed")), die())
    elif moment == "before the tracker":
        checkpoint_dir.write_tracker = die
    with CheckpointDir(folder, max_to_keep=1).saving(step, {"step": step}) as temporary:
        manager.save_checkpoint(str(temporary / "actor"), step)
        if moment == "among the ranks":
            die()


def save_layouts(rank, world_size, root):
    """The same weights as a GIFT checkpoint (tied, untied, LoRA) and in VeRL's layout, one file a rank."""
    from pathlib import Path

    for name, options in {"tied": {}, "untied": {"tied": False}, "lora": {"lora": True}}.items():
        model, _, _, manager = build(**options)
        manager.save_checkpoint(str(Path(root, name)), 0)
        verl = Path(root, f"verl_{name}")
        verl.mkdir(exist_ok=True)
        torch.save(model.language_model.state_dict(), verl / f"model_world_size_{world_size}_rank_{rank}.pt")
        dist.barrier()


def plain_models():
    """What :func:`save_layouts` saved, as whole models; the LoRA one merged by peft."""
    from peft import LoraConfig, get_peft_model

    lora = get_peft_model(tiny_model(), LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]))
    for name, parameter in lora.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return {"tied": tiny_model(), "untied": tiny_model(tied=False), "lora": lora.merge_and_unload()}
