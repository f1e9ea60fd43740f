"""Weights and optimizer on their ways: to the engine, to the host, to a checkpoint and back."""

from __future__ import annotations

from benchmarks.gpu.lines import Skipped, line, row

GiB = 2**30


@line("export", "the weights for the engine (iter_weights), with and without LoRA, and an engine that loads them", 25, 120)
def export(setting) -> list[dict]:
    import torch

    from verl.utils.lora import huggingface_model

    shape, rows = setting.shape("Qwen2.5-1.5B"), []
    for name, changes in (("whole", {}), ("LoRA", {"model.lora_rank": 16})):
        worker = setting.worker(shape, changes)
        if name == "LoRA":  # a fresh lora_B is zero: merging would change nothing
            with torch.no_grad():
                for parameter_name, parameter in worker.trained.module.named_parameters():
                    if "lora_B" in parameter_name:
                        getattr(parameter, "_local_tensor", parameter).normal_(std=0.01)
        sizes: list[int] = []

        def walk(worker=worker, sizes=sizes):
            sizes[:] = [tensor.numel() * tensor.element_size() for _, tensor in worker.iter_weights()]

        seconds = setting.seconds(walk)
        exported = dict(worker.iter_weights())
        plain = setting.worker(shape).trained.module if name == "LoRA" else worker.trained.module
        expected = {k for k, _ in huggingface_model(plain).named_parameters()}
        rows += [
            row(f"{name}: export", sum(sizes) / seconds / 1e9, "GB/s", note=f"{len(sizes)} tensors, {sum(sizes) / GiB:.2f} GiB in {seconds * 1000:.0f} ms"),
            row(f"{name}: names are the model's", set(exported) == expected),
            row(f"{name}: all finite", all(bool(t.isfinite().all()) for t in exported.values())),
        ]
        if name == "whole":
            rows.append(_engine_row(setting, shape, worker, exported))
        del worker, exported, plain
    return rows


def _engine_row(setting, shape, worker, exported) -> dict:
    """Greedy log-probabilities of the hf engine with the exported weights against the trainer's of the same tokens."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from verl.protocol import DataProto
    from verl.workers.rollout import SamplingParams
    from verl.workers.rollout.hf_rollout import HFEngine

    folder = setting.folder("engine")
    for file in setting.model_folder(shape).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    dtype = torch.bfloat16 if setting.on_gpu else torch.float32
    with torch.device(setting.device):
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=dtype).save_pretrained(folder)
    engine = HFEngine(str(folder), max_model_len=256, dtype=str(dtype).removeprefix("torch."), device=setting.device)
    engine.load_weights(exported.items())
    prompt = list(range(5, 45))
    engine.add("0", prompt, SamplingParams(max_tokens=16, temperature=1.0, seed=3))
    reply = engine.step()[0]
    ids = torch.tensor([prompt + reply.token_ids])
    mask = torch.zeros(1, ids.shape[1] - 1, dtype=torch.bool)
    mask[:, len(prompt) - 1 :] = True
    data = DataProto.from_dict(tensors={"input_ids": ids, "attention_mask": torch.ones_like(ids), "response_mask": mask})
    mine = worker.compute_log_prob(data).batch["old_log_probs"][mask]
    gap = float((mine - torch.tensor(reply.logprobs)).abs().max())
    return row("hf engine against trainer, largest difference", gap, "nats", at_most=0.1 if setting.on_gpu else 1e-4, note="of 16 sampled tokens")


@line("offload", "optimizer and weights to the host and back: seconds, and the host's peak", 30, 120)
def offload(setting) -> list[dict]:
    from benchmarks.gpu.lines_update import _allocated
    from benchmarks.gpu.setting import make_batch, peak_bytes

    shape, load = setting.shape("Qwen2.5-1.5B"), setting.load(8, 200, 600, 8, 8192)
    changes = {"actor.fsdp_config.param_offload": True, "actor.fsdp_config.optimizer_offload": True}
    batch = make_batch(shape, load)
    worker = setting.worker(shape, changes, tokens=load[4])
    worker.update_actor(batch)
    if not setting.on_gpu:
        raise Skipped("nothing is offloaded without a GPU (the update before it ran)")
    state = 12.0 * shape.parameters
    rows = [row("left on the device when offloaded", _allocated(setting) / GiB, "GiB", at_most=0.1)]
    for name, action in (("load", lambda: worker.trained.load(optimizer=True)), ("offload", worker.trained.offload)):
        with peak_bytes(setting) as peak:
            seconds = setting.seconds(action, repeats=1, warm=0)
        rows.append(row(f"{name}: rate", state / seconds / 1e9, "GB/s", note=f"{state / GiB:.1f} GiB in {seconds:.2f} s"))
        if name == "offload":
            rows.append(row("offload: host peak / what is offloaded", peak["host"] / state, at_most=1.2, note="0 to 1 where the host kept its pages"))
    worker.update_actor(batch)
    return [*rows, row("an update after it is finite", True)]


@line("checkpoint", "save, load into other weights, and the next update is the same (0.5B)", 40, 150)
def checkpoint(setting) -> list[dict]:
    import torch

    from benchmarks.gpu.setting import make_batch

    shape, load = setting.shape("Qwen2.5-0.5B"), setting.load(8, 200, 600, 8, 8192)
    batch, folder = make_batch(shape, load), setting.folder("checkpoint")
    changes = {"actor.optim.lr": 1e-4}
    first = setting.worker(shape, changes, tokens=load[4])
    first.update_actor(batch)
    saving = setting.seconds(lambda: first.save_checkpoint(str(folder), global_step=1), repeats=1, warm=0)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    kept = {name: tensor.detach().cpu().clone() for name, tensor in first.iter_weights()}
    after = first.update_actor(batch).meta_info["metrics"]
    later = {name: tensor.detach().cpu().clone() for name, tensor in first.iter_weights()}
    first = None  # its memory
    other = setting.worker(shape, changes, tokens=load[4])
    other.update_actor(make_batch(shape, load, seed=5))  # other weights, other moments
    loading = setting.seconds(lambda: other.load_checkpoint(str(folder)), repeats=1, warm=0)
    equal = all(torch.equal(kept[name], tensor.cpu()) for name, tensor in other.iter_weights())
    again = other.update_actor(batch).meta_info["metrics"]
    far = max(float((later[name] - tensor.cpu()).abs().max()) for name, tensor in other.iter_weights())
    moved = max(float((later[name] - kept[name]).abs().max()) for name in kept)
    return [
        row("saved", size / saving / 1e9, "GB/s", note=f"{size / GiB:.2f} GiB in {saving:.1f} s"),
        row("loaded", size / loading / 1e9, "GB/s", note=f"in {loading:.1f} s"),
        row("weights come back bit for bit", equal),
        row("next update: gradient norm / the uninterrupted one's", again["actor/grad_norm"] / after["actor/grad_norm"], at_least=0.99, at_most=1.01),
        row("next update: weights' difference / the step's size", far / moved, at_most=0.5, note="not 0 where a kernel adds in any order"),
    ]


@line("sleep", "vLLM's sleep and wake beside the trainer: memory given back, weights after it", 40, 150)
def sleep(setting) -> list[dict]:
    import torch
    from transformers import AutoModelForCausalLM

    from benchmarks.gpu.setting import STARTER
    from verl.workers.rollout import SamplingParams
    from verl.workers.rollout.vllm_rollout import VLLMEngine, vllm_available

    if not vllm_available():
        raise Skipped("vLLM is not installed: sleep, wake and its log-probabilities were not tried")
    if not setting.on_gpu:
        raise Skipped("vLLM sleeps on a GPU alone")
    engine = VLLMEngine(str(STARTER), max_model_len=512, dtype="bfloat16", gpu_memory_utilization=0.3, enable_sleep_mode=True)

    def used() -> float:
        free, whole = torch.cuda.mem_get_info()
        return (whole - free) / GiB

    def replies() -> list[int]:
        engine.add("0", list(range(5, 45)), SamplingParams(max_tokens=16, temperature=0.0))
        found = []
        while engine.unfinished:
            found += engine.step()
        return found[0].token_ids

    model = AutoModelForCausalLM.from_pretrained(STARTER, dtype=torch.float32)
    weights = dict(model.named_parameters())
    before, awake = replies(), used()
    engine.sleep()
    asleep = used()
    engine.wake(["weights"])
    engine.load_weights((name, tensor.detach().cuda()) for name, tensor in weights.items())
    engine.wake(["kv_cache"])
    rows = [
        row("given back by sleep", (awake - asleep) / awake, at_least=0.7, note=f"{awake:.1f} GiB awake, {asleep:.1f} asleep, {used():.1f} awake again"),
        row("the same replies after it", replies() == before),
    ]
    engine.close()
    return rows
