"""Sections of VeRL that are absent as a whole: the keys of each and VeRL's defaults for them (VeRL 0.9.1).

The reason why a section is absent is in ``verl.utils.verl_keys_absent``. Keys are relative to their section; what VeRL
repeats under several workers or models is written once.
"""

from __future__ import annotations

# -- sections that VeRL repeats under several models or workers ------------------------------------

#: where a training engine's section is, and a profiler's
ENGINES = ("actor_rollout_ref.actor.fsdp_config", "actor_rollout_ref.ref.fsdp_config", "critic.fsdp")
PROFILED = ("actor_rollout_ref.actor.profiler", "actor_rollout_ref.ref.profiler", "critic.profiler")

_ANY_PROFILER = {
    "tool": None, "enable": False, "all_ranks": False, "ranks": [], "save_path": "outputs/profile", "relocate_results": False,
    "finish_hook_cmd": None, "finish_hook_all_ranks": False, "finish_hook_ranks": [], "tool_config.npu.contents": [],
    "tool_config.npu.level": "level0", "tool_config.npu.analysis": True, "tool_config.npu.discrete": False, "tool_config.torch.contents": [],
    "tool_config.torch.discrete": False, "tool_config.precision_debugger.config_path": None, "tool_config.precision_debugger.steps": None,
    "tool_config.precision_debugger.stages": None, "tool_config.precision_debugger.strict": False,
}  # fmt: skip
#: of actor, reference and critic
PROFILER = {
    **_ANY_PROFILER,
    "tool_config.nsys.discrete": False, "tool_config.torch.schedule.skip_first": 0, "tool_config.torch.schedule.wait": 0,
    "tool_config.torch.schedule.warmup": 0, "tool_config.torch.schedule.active": 0, "tool_config.torch.schedule.repeat": 0,
    "tool_config.torch_memory.trace_alloc_max_entries": 100000, "tool_config.torch_memory.stack_depth": 32,
    "tool_config.torch_memory.memory_snapshot_num_steps": 1,
}  # fmt: skip
ROLLOUT_PROFILER = {
    **_ANY_PROFILER,
    "tool_config.npu.profile_token_start": None, "tool_config.npu.profile_token_end": None, "tool_config.torch.profile_token_start": None,
    "tool_config.torch.profile_token_end": None,
}  # fmt: skip
QAT = {
    "enable": False, "mode": "w4a16", "group_size": 16, "ignore_patterns": ["lm_head", "embed_tokens", "re:.*mlp.gate$"],
    "activation_observer": "static_minmax", "quantization_config_path": None,
}  # fmt: skip
#: the fsdp_turbo engine's
TURBO = {
    "distributed.fully_shard_parallel_size": 16, "distributed.tensor_parallel_size": 1, "distributed.expert_parallel_size": 1,
    "distributed.expert_fully_shard_parallel_size": 1, "distributed.ulysses_parallel_size": 1, "distributed.fsdp_plan.param_dtype": "bf16",
    "distributed.fsdp_plan.reduce_dtype": "fp32", "distributed.fsdp_plan.output_dtype": "bf16",
    "distributed.fsdp_plan.fsdp_implementation": "native", "distributed.fsdp_plan.num_to_forward_prefetch": 1,
    "distributed.fsdp_plan.num_to_backward_prefetch": 1,
}  # fmt: skip
MULTI_TOKEN_PREDICTION = {
    "enable": False, "enable_train": False, "enable_rollout": False, "detach_encoder": False, "mtp_loss_scaling_factor": 0.1,
    "speculative_algorithm": "EAGLE", "speculative_num_steps": 3, "speculative_eagle_topk": 1, "speculative_num_draft_tokens": 4, "method": "mtp",
    "num_speculative_tokens": 1,
}  # fmt: skip
#: of Megatron's models; FSDP's LoRA keys are beside it
MEGATRON_LORA = {
    "type": "lora", "merge": False, "rank": 0, "alpha": 32, "dropout": 0.0,
    "target_modules": ["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"], "exclude_modules": [], "dropout_position": "pre",
    "lora_A_init_method": "xavier", "lora_B_init_method": "zero", "a2a_experimental": False, "dtype": None, "adapter_path": None,
    "freeze_vision_model": True, "freeze_vision_projection": True, "freeze_language_model": True,
}  # fmt: skip
DISAGGREGATION = {
    "enabled": False, "prefill_replicas": 1, "decode_replicas": 1, "decode_tensor_model_parallel_size": None, "transfer_backend": "nixl",
    "bootstrap_port": None, "ib_device": None,
}  # fmt: skip
#: an engine that judges or teaches
_ENGINE = {
    "dtype": "bfloat16", "gpu_memory_utilization": 0.5, "enforce_eager": True, "cudagraph_capture_sizes": None, "free_cache_engine": True,
    "data_parallel_size": 1, "expert_parallel_size": 1, "tensor_model_parallel_size": 2, "max_num_batched_tokens": 8192, "max_model_len": None,
    "max_num_seqs": 1024, "load_format": "auto", "engine_kwargs": {}, "limit_images": None, "enable_chunked_prefill": True,
    "enable_prefix_caching": True, "disable_log_stats": True, "temperature": 1.0,
}  # fmt: skip

# -- sections of their own -------------------------------------------------------------------------

DATA = {
    "tokenizer": None, "use_shm": False, "train_files": "~/data/rlhf/gsm8k/train.parquet", "val_files": "~/data/rlhf/gsm8k/test.parquet",
    "train_max_samples": -1, "val_max_samples": -1, "prompt_key": "prompt", "reward_fn_key": "data_source", "max_prompt_length": 512,
    "max_response_length": 512, "train_batch_size": 1024, "gen_batch_size": None, "val_batch_size": None, "tool_config_path": None,
    "function_tool_path": None, "return_raw_input_ids": False, "return_raw_chat": True, "return_full_prompt": False, "shuffle": True, "seed": None,
    "dataloader_num_workers": 8, "image_patch_size": 14, "validation_shuffle": False, "filter_overlong_prompts": False,
    "filter_overlong_prompts_workers": 1, "truncation": "error", "image_key": "images", "video_key": "videos", "audio_key": "audios",
    "trust_remote_code": False, "custom_cls.path": None, "custom_cls.name": None, "return_multi_modal_inputs": True,
    "mm_processor_kwargs": {},
}  # fmt: skip
MULTI_TURN = {
    "enable": False, "max_assistant_turns": None, "tool_config_path": None, "function_tool_path": None, "max_user_turns": None,
    "max_parallel_calls": 1, "max_tool_response_length": 256, "tool_response_truncate_side": "middle", "use_inference_chat_template": False,
    "tokenization_sanity_check_mode": "strict", "format": "hermes", "num_repeat_rollouts": None,
}  # fmt: skip
AGENT = {
    "num_workers": 8, "default_agent_loop": "single_turn_agent", "agent_loop_config_path": None, "custom_async_server.path": None,
    "custom_async_server.name": None,
}  # fmt: skip
CHECKPOINT_ENGINE = {
    "backend": "naive", "update_weights_bucket_megabytes": 2048, "engine_kwargs": {}, "custom_backend_module": None,
}  # fmt: skip
PROMETHEUS = {
    "enable": False, "port": 9090, "file": "/tmp/ray/session_latest/metrics/prometheus/prometheus.yml",
    "served_model_name": "~/models/deepseek-llm-7b-chat",
}  # fmt: skip
TRACE = {
    "project_name": "verl_examples", "experiment_name": "gsm8k", "backend": None, "token2text": False, "max_samples_per_step_per_worker": None,
}  # fmt: skip
REWARD = {
    "num_workers": 8, "custom_reward_function.path": None, "custom_reward_function.name": "compute_score", "reward_manager.source": "register",
    "reward_manager.name": "naive", "reward_manager.module.path": None, "reward_manager.module.name": "custom_reward_manager",
    "reward_model.enable": False, "reward_model.enable_resource_pool": False, "reward_model.n_gpus_per_node": 8, "reward_model.nnodes": 0,
    "reward_model.model_path": None, "sandbox_fusion.url": None, "sandbox_fusion.max_concurrent": 64, "sandbox_fusion.memory_limit_mb": 1024,
}  # fmt: skip
REWARD_ROLLOUT = {
    **_ENGINE,
    "name": "???", "pipeline_model_parallel_size": 1, "layered_summon": False, "scheduling_policy": "fcfs", "full_determinism": False, "seed": 42,
    "multi_stage_wake_up": False, "skip_tokenizer_init": False, "ignore_eos": False, "top_k": -1, "top_p": 1, "do_sample": True, "n": 1,
    "prompt_length": 2048, "response_length": 2048, "quantization": None, "quantization_config_file": None, "mtp": None,
    **{f"disaggregation.{name}": value for name, value in DISAGGREGATION.items()},
}  # fmt: skip
#: the older names of the section above; null: not set
REWARD_MODEL: dict[str, object] = dict.fromkeys(
    [
        "num_workers", "reward_manager", "enable", "enable_resource_pool", "n_gpus_per_node", "nnodes", "reward_loop_source",
        "reward_loop_module_path", "reward_loop_class_name", "model.path", "model.external_lib", "model.trust_remote_code",
        "rollout.name", "rollout.skip_tokenizer_init", "rollout.prompt_length", "rollout.response_length",
        *(f"rollout.{name}" for name in _ENGINE if name != "temperature"),
    ]
)  # fmt: skip
DISTILLATION = {
    "enabled": False, "distillation_loss.loss_mode": "k3", "distillation_loss.topk": 32, "distillation_loss.use_task_rewards": True,
    "distillation_loss.distillation_loss_coef": 1.0, "distillation_loss.loss_max_clamp": None, "distillation_loss.log_prob_min_clamp": None,
    "distillation_loss.use_policy_gradient": False, "distillation_loss.policy_loss_mode": "vanilla", "distillation_loss.clip_ratio": 0.2,
    "distillation_loss.clip_ratio_low": 0.2, "distillation_loss.clip_ratio_high": 0.2, "n_gpus_per_node": 8, "nnodes": 0,
    "teacher_key": "data_source",
}  # fmt: skip
TEACHER = {
    "key": None, "model_path": None, "num_replicas": 0,
}  # fmt: skip
TEACHER_INFERENCE = {
    **_ENGINE,
    "name": None, "skip_tokenizer_init": True, "prompt_length": 512, "response_length": 512,
}  # fmt: skip
TRANSFER_QUEUE = {
    "enable": False, "metrics.enabled": False, "metrics.port": 0, "backend.storage_backend": "SimpleStorage",
    "backend.SimpleStorage.total_storage_size": 100000, "backend.SimpleStorage.num_data_storage_units": 8, "backend.MooncakeStore.auto_init": False,
    "backend.MooncakeStore.metadata_server": "localhost:50123", "backend.MooncakeStore.master_server_address": "localhost:50124",
    "backend.MooncakeStore.local_hostname": "localhost", "backend.MooncakeStore.protocol": "tcp",
    "backend.MooncakeStore.global_segment_size": 4294967296, "backend.MooncakeStore.local_buffer_size": 1073741824,
    "backend.MooncakeStore.device_name": "",
}  # fmt: skip
TRAINER_V1 = {
    "trainer_mode": "sync", "sync": {}, "colocate_async.num_warmup_batches": 1, "separate_async.num_warmup_batches": 1,
    "separate_async.parameter_sync_step": 4, "separate_async.hybrid_rollout.enable_switch": False,
    "separate_async.hybrid_rollout.switch_threshold_ratio": 0.4, "separate_async.hybrid_rollout.adaptive_switch_threshold": True,
    "separate_async.hybrid_rollout.switch_threshold_step_up": 0.05, "separate_async.hybrid_rollout.switch_threshold_step_down": 0.03,
    "separate_async.hybrid_rollout.switch_threshold_release_steps": 2, "separate_async.hybrid_rollout.switch_cost_window_size": 3,
    "sampler.max_off_policy_threshold": 8, "sampler.max_off_policy_strategy": "drop", "sampler.sync_refill_failed_groups": False,
    "sampler.custom_sampler.path": None, "sampler.custom_sampler.name": None, "sampler.sampler_kwargs": {},
}  # fmt: skip
GLOBAL_PROFILER = {
    "tool": None, "steps": None, "profile_continuous_steps": False, "save_path": "outputs/profile", "relocate_results": False,
    "finish_hook_cmd": None, "finish_hook_all_ranks": False, "finish_hook_ranks": [], "global_tool_config.nsys.discrete": False,
    "global_tool_config.nsys.controller_nsight_options.trace": "cuda,nvtx,cublas,ucx",
    "global_tool_config.nsys.controller_nsight_options.cuda-memory-usage": "true",
    "global_tool_config.nsys.controller_nsight_options.cuda-graph-trace": "graph",
    "global_tool_config.nsys.worker_nsight_options.trace": "cuda,nvtx,cublas,ucx",
    "global_tool_config.nsys.worker_nsight_options.cuda-memory-usage": "true",
    "global_tool_config.nsys.worker_nsight_options.cuda-graph-trace": "graph",
    "global_tool_config.nsys.worker_nsight_options.capture-range": "cudaProfilerApi",
    "global_tool_config.nsys.worker_nsight_options.capture-range-end": None, "global_tool_config.nsys.worker_nsight_options.kill": "none",
    "global_tool_config.torch_memory.trace_alloc_max_entries": 100000, "global_tool_config.torch_memory.stack_depth": 32,
    "global_tool_config.torch_memory.memory_snapshot_num_steps": 1, "global_tool_config.torch_memory.context": "all",
    "global_tool_config.torch_memory.stacks": "all", "global_tool_config.torch_memory.kw_args": {},
    "global_tool_config.precision_debugger.config_path": None, "global_tool_config.precision_debugger.steps": None,
    "global_tool_config.precision_debugger.stages": None, "global_tool_config.precision_debugger.strict": False,
}  # fmt: skip
SKIP = {
    "rollout.enable": False, "rollout.dump_dir": "~/.verl/rollout_dump", "rollout.steps": [], "rollout.action": "cache", "rollout_tq.enable": False,
    "rollout_tq.dump_dir": "~/.verl/rollout_dump", "rollout_tq.steps": [], "rollout_tq.action": "cache", "async_rollout.enable": False,
    "async_rollout.dump_dir": "~/.verl/rollout_dump", "async_rollout.steps": [], "async_rollout.action": "cache",
}  # fmt: skip

#: Hydra's ``_target_`` keys: VeRL's dataclass (below ``verl.``) and the sections that name it
TARGETS: dict[str, list[str]] = {
    "trainer.config.AlgoConfig": ["algorithm"],
    "trainer.config.CheckpointConfig": ["actor_rollout_ref.actor.checkpoint", "critic.checkpoint"],
    "trainer.config.FilterGroupsConfig": ["algorithm.filter_groups"],
    "trainer.config.HybridRolloutSwitchConfig": ["trainer.v1.separate_async.hybrid_rollout"],
    "trainer.config.KLControlConfig": ["algorithm.kl_ctrl"],
    "trainer.config.config.ModuleConfig": ["reward.reward_manager.module"],
    "utils.profiler.ProfilerConfig": [*PROFILED, "actor_rollout_ref.rollout.profiler", "global_profiler"],
    "utils.profiler.config.NPUToolConfig": [f"{p}.tool_config.npu" for p in (*PROFILED, "actor_rollout_ref.rollout.profiler")],
    "utils.profiler.config.NsightToolConfig": [*(f"{p}.tool_config.nsys" for p in PROFILED), "global_profiler.global_tool_config.nsys"],
    "utils.profiler.config.PrecisionDebuggerToolConfig": [
        *(f"{p}.tool_config.precision_debugger" for p in (*PROFILED, "actor_rollout_ref.rollout.profiler")),
        "global_profiler.global_tool_config.precision_debugger",
    ],
    "utils.profiler.config.TorchMemoryToolConfig": [f"{p}.tool_config.torch_memory" for p in PROFILED],
    "utils.profiler.config.TorchProfilerScheduleConfig": [f"{p}.tool_config.torch.schedule" for p in PROFILED],
    "utils.profiler.config.TorchProfilerToolConfig": [f"{p}.tool_config.torch" for p in (*PROFILED, "actor_rollout_ref.rollout.profiler")],
    "utils.skip.SkipManagerConfig": ["skip"],
    "workers.config.AgentLoopConfig": ["actor_rollout_ref.rollout.agent"],
    "workers.config.CheckpointEngineConfig": ["actor_rollout_ref.rollout.checkpoint_engine"],
    "workers.config.CustomAsyncServerConfig": ["actor_rollout_ref.rollout.agent.custom_async_server"],
    "workers.config.DistillationConfig": ["distillation"],
    "workers.config.DistillationLossConfig": ["distillation.distillation_loss"],
    "workers.config.DistillationTeacherModelConfig": ["distillation.teacher_models.*"],
    "workers.config.FSDPActorConfig": ["actor_rollout_ref.actor", "actor_rollout_ref.ref"],
    "workers.config.FSDPCriticConfig": ["critic"],
    "workers.config.FSDPEngineConfig": [*ENGINES],
    "workers.config.FSDPOptimizerConfig": ["actor_rollout_ref.actor.optim", "critic.optim"],
    "workers.config.HFModelConfig": ["actor_rollout_ref.model", "critic.model"],
    "workers.config.MtpConfig": ["actor_rollout_ref.rollout.mtp", "actor_rollout_ref.model.mtp", "critic.model.mtp"],
    "workers.config.MultiTurnConfig": ["actor_rollout_ref.rollout.multi_turn"],
    "workers.config.PolicyLossConfig": ["actor_rollout_ref.actor.policy_loss"],
    "workers.config.PrometheusConfig": ["actor_rollout_ref.rollout.prometheus"],
    "workers.config.QATEngineConfig": ["actor_rollout_ref.rollout.qat", *(f"{engine}.qat" for engine in ENGINES)],
    "workers.config.RewardConfig": ["reward"],
    "workers.config.RewardModelConfig": ["reward.reward_model"],
    "workers.config.RolloutConfig": [
        "actor_rollout_ref.rollout", "reward.reward_model.rollout", "distillation.teacher_models.*.inference",
    ],
    "workers.config.SamplingConfig": ["actor_rollout_ref.rollout.val_kwargs"],
    "workers.config.SandboxFusionConfig": ["reward.sandbox_fusion"],
    "workers.config.TraceConfig": ["actor_rollout_ref.rollout.trace"],
    "workers.config.reward.RewardManagerConfig": ["reward.reward_manager"],
}  # fmt: skip
