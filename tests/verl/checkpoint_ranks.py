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

PRELOAD = ["torch", "torch.distributed.fsdp", "torch.distributed.checkpoint", "transformers.models.qwen2.modeling_qwen2", "peft"]


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


def build(lora=False, tied=True, seed=0):
    """Sharded model, optimizer, schedule and manager of this rank."""
    hf_model = tiny_model(tied, seed)
    if lora:
        from peft import LoraConfig, get_peft_model

        hf_model = get_peft_model(hf_model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]))
        for name, parameter in hf_model.named_parameters():  # a fresh lora_B is zero: merging would change nothing
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    base = hf_model.get_base_model() if lora else hf_model
    for layer in base.model.layers:
        fully_shard(layer, mesh=mesh)
    model = Wrapped(hf_model)
    fully_shard(model, mesh=mesh)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    manager = FSDPCheckpointManager(model, optimizer, scheduler, hf_model=hf_model)
    return model, optimizer, scheduler, manager


def update(model, optimizer, scheduler):
    """One step on the recorded batch, cut over the ranks; its loss is the same on any number of them."""
    ids = recorded_batch()
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
    full = lambda tensor: tensor.full_tensor().detach().clone() if hasattr(tensor, "full_tensor") else tensor.clone()  # noqa: E731
    weights = {name: full(parameter) for name, parameter in model.named_parameters()}
    moments = {
        f"{name}/{key}": full(value)
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    return weights, moments


def run_ranks(world_size, function, *args):
    """Run `function(rank, world_size, *args)` in so many processes that form a gloo group; raises what a rank raised."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.get_context("forkserver").set_forkserver_preload(PRELOAD)
    mp.start_processes(_enter, (world_size, port, function, args), nprocs=world_size, start_method="forkserver")


def _enter(rank, world_size, port, function, args):
    torch.set_num_threads(1)
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "127.0.0.1", str(port)
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
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
