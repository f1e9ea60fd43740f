"""The update: speed as a share of the peak, memory against the plan, and what packing and shared prompts save."""

from __future__ import annotations

from benchmarks.gpu.lines import line, row

GiB = 2**30
#: of the device's bf16 peak
MFU_TARGET = 0.45
#: planned over measured
PLAN = {"at_least": 0.85, "at_most": 1.15}


def verl_flops(shape, lengths: list[int]) -> float:
    """Operations of an update as VeRL's `flops_counter` counts them: 6 for every weight and token, embedding and head both at
    every token, frozen weights as trained ones, and attention's whole square (ours: `FlopsCounter.step_flops`)."""
    weights = shape.layers * shape.layer_matmul_parameters + 2 * shape.vocab * shape.hidden
    return 6.0 * weights * sum(lengths) + 12.0 * shape.layers * shape.q * sum(s * s for s in lengths)


def _update(setting, shape, load, changes: dict, **plan) -> tuple[list[dict], object]:
    """Rows of one update, and the worker."""
    from benchmarks.gpu.setting import make_batch, peak_bytes, planned_update, row_lengths
    from verl.utils.flops_counter import FlopsCounter, get_device_flops

    batch = make_batch(shape, load)
    lengths, sampled = row_lengths(batch), int(batch.batch["response_mask"].sum())
    before = _allocated(setting)
    worker = setting.worker(shape, changes, tokens=load[4])
    worker.update_actor(batch)  # the optimizer has its moments now
    held = _allocated(setting) - before
    with peak_bytes(setting) as peak:
        worker.update_actor(batch)
    moved = setting.seconds(lambda: (worker.trained.load(optimizer=True), worker.trained.offload()), warm=0, repeats=1)
    worker.trained.load(optimizer=True)
    batch.meta_info["temperature"] = 1.0
    seconds = setting.seconds(lambda: worker.actor.update_policy(batch), warm=0 if setting.tiny else 1)
    worker.trained.offload()
    ceiling = get_device_flops("B")
    ours = FlopsCounter(shape, lora=bool(changes.get("model.lora_rank"))).step_flops(lengths, sampled)
    theirs = verl_flops(shape, lengths)
    known = ceiling != float("inf")
    planned = planned_update(shape, setting, load, batch, **plan)
    measured = peak["device"] + held if peak["device"] is not None else None
    rows = [
        row("update", seconds, "s", note=f"{len(lengths)} rows, {sum(lengths)} tokens, {sampled} sampled, micro-batches of {load[4]} tokens"),
        row("tokens a second", sum(lengths) / seconds, "1/s"),
        *(
            row(f"MFU, {whose} counting", flops / seconds / ceiling if known else None, at_least=MFU_TARGET, note=f"{flops / seconds / 1e12:.1f} TFLOP/s")
            for whose, flops in (("our", ours), ("VeRL's", theirs))
        ),
        _plan_row("planned / measured peak", planned, measured),
    ]
    if plan.get("optimizer_offload") or plan.get("param_offload"):
        rows.append(row("loaded and offloaded again", moved, "s", note="weights and moments between host and device"))
    return rows, worker


def _plan_row(what: str, planned: float, measured: float | None) -> dict:
    if measured is None:
        return row(what, None, **PLAN, note="measured on a GPU alone")
    return row(what, planned / measured, **PLAN, note=f"planned {planned / GiB:.2f} GiB, measured {measured / GiB:.2f}")


def _allocated(setting) -> int:
    import torch

    return torch.cuda.memory_allocated() if setting.on_gpu else 0


@line("update-1.5b", "update of Qwen2.5-1.5B's shape, whole, with gradient checkpointing", 25, 100)
def update_small(setting) -> list[dict]:
    rows, _ = _update(setting, setting.shape("Qwen2.5-1.5B"), setting.load(64, 400, 1500, 8, 16384), {})
    return rows


@line("update-1.5b-kept", "the same with activations kept (no gradient checkpointing)", 20, 80)
def update_kept(setting) -> list[dict]:
    changes = {"model.enable_gradient_checkpointing": False}
    rows, _ = _update(setting, setting.shape("Qwen2.5-1.5B"), setting.load(64, 400, 1500, 8, 8192), changes, checkpointing=False)
    return rows


@line("update-7b-lora", "update of Qwen2.5-7B's shape, LoRA of rank 32, weights and optimizer offloaded", 60, 200)
def update_lora(setting) -> list[dict]:
    changes = {
        "model.lora_rank": 32, "model.lora_alpha": 32, "actor.fsdp_config.param_offload": True, "actor.fsdp_config.optimizer_offload": True,
    }  # fmt: skip
    load = setting.load(32, 400, 1500, 8, 16384)
    rows, _ = _update(setting, setting.shape("Qwen2.5-7B"), load, changes, lora_rank=32, param_offload=True, optimizer_offload=True)
    return rows


@line("packed", "packed rows against padded ones, and shared prompts against whole rows (0.5B)", 30, 120)
def packed(setting) -> list[dict]:
    from benchmarks.gpu.setting import log_probs, make_batch

    shape, load = setting.shape("Qwen2.5-0.5B"), setting.load(64, 800, 1500, 8, 16384)
    batch = make_batch(shape, load)
    forms = {
        "padded": {"model.use_remove_padding": False}, "packed": {"model.use_remove_padding": True},
        "shared": {"actor.use_prefix_grouper": True},
    }  # fmt: skip
    if not setting.on_gpu:  # else the CPU pads
        forms["packed"]["model.override_config"] = {"attn_implementation": "torch_varlen"}
    seconds, found, norms = {}, {}, {}
    for name, changes in forms.items():
        worker = setting.worker(shape, changes, tokens=load[4])
        found[name] = log_probs(worker, batch)
        metrics: list[dict] = []
        seconds[name] = setting.seconds(lambda w=worker, m=metrics: m.append(w.update_actor(batch).meta_info["metrics"]))
        norms[name] = metrics[0]["actor/grad_norm"]
        del worker
    rows = [row("padded update", seconds["padded"], "s")]
    for name, what in (("packed", "packed / padded, seconds"), ("shared", "shared prompts / padded, seconds")):
        gap = (found[name] - found["padded"]).abs()
        rows += [
            row(what, seconds[name] / seconds["padded"], at_most=None if setting.tiny else 1.0),
            row(f"{name}: log-probability, mean difference", float(gap.mean()), "nats", at_most=0.02, note=f"largest {float(gap.max()):.3g}"),
            row(f"{name}: gradient norm / padded's", norms[name] / norms["padded"], at_least=0.98, at_most=1.02),
        ]
    return rows


@line("memory", "planned against measured peak of an update in six forms (0.5B)", 35, 140)
def memory(setting) -> list[dict]:
    from benchmarks.gpu.setting import make_batch, peak_bytes, planned_update

    shape, load = setting.shape("Qwen2.5-0.5B"), setting.load(32, 400, 1000, 8, 8192)
    batch = make_batch(shape, load)
    forms = {
        "packed, recomputed": ({}, {}),
        "activations kept": ({"model.enable_gradient_checkpointing": False}, {"checkpointing": False}),
        "padded": ({"model.use_remove_padding": False}, {"packed": False}),
        "shared prompts": ({"actor.use_prefix_grouper": True}, {"share_prompts": True}),
        "weights stay whole": ({"actor.fsdp_config.reshard_after_forward": False}, {"reshard_after_forward": False}),
        "LoRA of rank 16": ({"model.lora_rank": 16}, {"lora_rank": 16}),
    }  # fmt: skip
    rows = []
    for name, (changes, plan) in forms.items():
        before = _allocated(setting)
        worker = setting.worker(shape, changes, tokens=load[4])
        worker.update_actor(batch)
        held = _allocated(setting) - before
        with peak_bytes(setting) as peak:
            worker.update_actor(batch)
        measured = held + peak["device"] if peak["device"] is not None else None
        planned = planned_update(shape, setting, load, batch, **plan)
        rows.append(_plan_row(f"planned / measured peak: {name}", planned, measured))
        del worker
    return rows
