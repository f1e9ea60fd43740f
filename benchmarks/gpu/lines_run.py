"""A run of the trainer itself in one process: episodes, engine, actor, checkpoints; no Ray."""

from __future__ import annotations

import json

from benchmarks.gpu.lines import line, row


@line("run", "three steps of training (tic-tac-toe, the starter, hf engine) in one process, then one more from the checkpoint", 40, 200)
def run(setting) -> list[dict]:
    from benchmarks.gpu.local_group import LocalGroup
    from benchmarks.gpu.setting import STARTER
    from ragen.trainer.agent_trainer import AgentTrainer
    from ragen.trainer.config import compose, validate_config
    from ragen.trainer.workers import Workers
    from ragen.workers.agent_worker import AgentWorker

    class OneProcessTrainer(AgentTrainer):
        def start_workers(self, wait_s):
            group = LocalGroup(AgentWorker(self.config))
            group.init_model()
            group.init_engine()
            return Workers(group)

    folder = setting.folder("run")
    groups, members = (2, 4) if setting.tiny else (16, 16)
    options = [
        f"model_path={STARTER}", f"trainer.device={setting.device}", f"trainer.default_local_dir={folder}", "trainer.n_gpus_per_node=1",
        "trainer.logger=[file]", "trainer.test_freq=-1", "trainer.val_before_train=false", "trainer.save_freq=3",
        f"es_manager.train.env_groups={groups}", f"es_manager.train.env_configs.n_groups=[{groups}]",
        "es_manager.train.env_configs.tags=[TicTacToe]", f"es_manager.train.group_size={members}",
        "es_manager.val.env_groups=2", "es_manager.val.env_configs.tags=[TicTacToe]", "es_manager.val.env_configs.n_groups=[2]",
        "es_manager.val.group_size=1", f"actor_rollout_ref.actor.ppo_mini_batch_size={groups * members}",
        "actor_rollout_ref.rollout.name=hf", "actor_rollout_ref.rollout.rollout_filter_ratio=1.0",
        "actor_rollout_ref.rollout.dtype=float32",
    ]  # fmt: skip

    if setting.on_gpu:  # the packed kernel and mixed precision, as large runs have them
        options.append("actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=bf16")

    def steps(total: int) -> list[dict]:
        config = compose("_0_laptop", [*options, f"trainer.total_training_steps={total}"])
        OneProcessTrainer(config, validate_config(config, check_machine=False)).fit()
        return [json.loads(text) for text in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]

    # a resumed run: its first step counts from the checkpoint of the third
    before, after = steps(3), steps(4)
    last = after[-1]
    trained = [metrics for metrics in after if metrics.get("actor/grad_norm") is not None]
    gaps = [max(metrics[f"rollout/logprob_diff_{which}"] for metrics in trained) for which in ("mean", "max")]
    name = next((key for key in last if key.startswith("train/") and key.endswith("/success")), None)
    seconds = sum(last.get(f"timing_s/{part}", 0.0) for part in ("gen", "update_actor", "sync"))
    logged = [[metrics["step"] for metrics in lines] for lines in (before, after)]
    finite = bool(trained) and all(0 < metrics["actor/grad_norm"] < 1e3 for metrics in trained)
    note = f"largest {gaps[1]:.3g}; float32 engine, the trainer in bfloat16 on a GPU"
    return [
        row("steps logged, then after the resume", logged == [[1, 2, 3], [1, 2, 3, 4]]),
        row("updates with a finite gradient", finite, note=f"{len(trained)} of 4 steps had a signal"),
        row("engine against trainer, mean log-probability difference", gaps[0], "nats", at_most=0.02 if setting.on_gpu else 1e-4, note=note),
        row("seconds of the last step", seconds, "s", note=f"{groups * members} games; success {last.get(name)}"),
    ]
