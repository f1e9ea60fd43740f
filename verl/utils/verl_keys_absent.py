"""VeRL's documented keys that have no effect here: usual value and the reason, a group a reason.

A VeRL user's launch script often sets some of them. At VeRL's default they change nothing and are
accepted with a warning; at another value they would silently not do what was asked, so they are refused.
"""

from __future__ import annotations

from verl.utils.config_check import Absent

_GAMES = "prompts come from games (es_manager, custom_envs), not from a data file"
_NO_RM = "rewards come from the games; there is no reward model"
_PROFILER = "there is no profiler hook; timing_s/* is logged each step"
_ONE_ENGINE = "FSDP2 is the only training engine"
_PER_GPU = "the global form is deprecated in VeRL; set the key that ends in _per_gpu"
_GROUPS = "group size is es_manager.train.group_size"
_AGENT_LOOP = "episodes are played by agent_proxy, not by VeRL's agent loop"

_GROUPED: dict[str, dict[str, object]] = {
    _GAMES: {
        "data.tokenizer": None, "data.use_shm": False, "data.train_files": None, "data.val_files": None,
        "data.prompt_key": "prompt", "data.reward_fn_key": "data_source", "data.max_prompt_length": None,
        "data.max_response_length": None, "data.train_batch_size": None, "data.val_batch_size": None,
        "data.return_raw_input_ids": False, "data.return_raw_chat": False, "data.return_full_prompt": False,
        "data.shuffle": True, "data.seed": None, "data.dataloader_num_workers": 8, "data.validation_shuffle": False,
        "data.filter_overlong_prompts": False, "data.filter_overlong_prompts_workers": 1, "data.truncation": "error",
        "data.image_key": "images", "data.video_key": "videos", "data.trust_remote_code": False,
        "data.return_multi_modal_inputs": True, "data.custom_cls.path": None, "data.custom_cls.name": None,
        "data.sampler.class_path": None, "data.sampler.class_name": None, "data.datagen.path": None,
        "data.datagen.name": None,
        "actor_rollout_ref.rollout.prompt_length": 512,
    },
    _NO_RM: {
        "reward_model.enable": False, "reward_model.enable_resource_pool": False, "reward_model.strategy": "fsdp",
        "reward_model.model.path": None, "reward_model.reward_manager": "naive",
        "reward_model.launch_reward_fn_async": False, "reward_model.micro_batch_size_per_gpu": None,
        "reward_model.max_length": None, "custom_reward_function.path": None,
        "custom_reward_function.name": "compute_score",
    },
    _PROFILER: {
        "global_profiler.tool": None, "global_profiler.steps": None, "global_profiler.profile_continuous_steps": False,
        "global_profiler.save_path": "outputs/profile", "actor_rollout_ref.actor.profiler.enable": False,
        "actor_rollout_ref.ref.profiler.enable": False, "actor_rollout_ref.rollout.profiler.enable": False,
        "critic.profiler.enable": False, "ray_kwargs.timeline_json_file": None,
    },
    _ONE_ENGINE: {
        "critic.strategy": "fsdp", "actor_rollout_ref.ref.strategy": "fsdp",
        "actor_rollout_ref.actor.fsdp_config.fsdp_size": -1,
        "actor_rollout_ref.actor.fsdp_config.forward_prefetch": False,
        "actor_rollout_ref.actor.ulysses_sequence_parallel_size": 1,
        "actor_rollout_ref.ref.ulysses_sequence_parallel_size": 1,
        "critic.ulysses_sequence_parallel_size": 1,
        "actor_rollout_ref.ref.fsdp_config.wrap_policy.min_num_params": 0,
        "actor_rollout_ref.ref.fsdp_config.forward_prefetch": False,
        "critic.model.fsdp_config.fsdp_size": -1,
        "critic.model.fsdp_config.forward_prefetch": False,
        "trainer.use_legacy_worker_impl": "auto",
    },
    _PER_GPU: {
        "actor_rollout_ref.actor.ppo_micro_batch_size": None,
        "actor_rollout_ref.ref.log_prob_micro_batch_size": None,
        "actor_rollout_ref.rollout.log_prob_micro_batch_size": None,
        "critic.ppo_micro_batch_size": None, "critic.forward_micro_batch_size": None,
    },
    _GROUPS: {"actor_rollout_ref.rollout.n": 1, "actor_rollout_ref.rollout.val_kwargs.n": 1, "critic.rollout_n": 1},
    _AGENT_LOOP: {
        "actor_rollout_ref.rollout.mode": "async", "actor_rollout_ref.rollout.multi_turn.enable": False,
        "actor_rollout_ref.rollout.multi_turn.max_assistant_turns": None,
        "actor_rollout_ref.rollout.multi_turn.max_user_turns": None,
        "actor_rollout_ref.rollout.multi_turn.tool_config_path": None,
        "actor_rollout_ref.rollout.multi_turn.format": "hermes",
        "actor_rollout_ref.rollout.agent.num_workers": 8,
        "actor_rollout_ref.rollout.agent.agent_loop_config_path": None,
        "actor_rollout_ref.rollout.over_sample_rate": 0, "actor_rollout_ref.rollout.skip_rollout": False,
        "actor_rollout_ref.rollout.trace.backend": None, "actor_rollout_ref.rollout.trace.token2text": False,
    },
    "the engine and the trainer share their GPUs": {
        "actor_rollout_ref.rollout.multi_stage_wake_up": False,
    },
    "chunked log-probabilities are always used, whatever kernels": {
        "actor_rollout_ref.actor.entropy_from_logits_with_chunking": False,
        "actor_rollout_ref.ref.entropy_from_logits_with_chunking": False,
        "actor_rollout_ref.actor.entropy_checkpointing": False, "actor_rollout_ref.ref.entropy_checkpointing": False,
        "actor_rollout_ref.actor.use_fused_kernels": False, "actor_rollout_ref.model.use_fused_kernels": False,
        "actor_rollout_ref.model.use_liger": False,
    },
    "the reference is the model the run started from, computed like the actor": {
        "actor_rollout_ref.ref.model": None, "actor_rollout_ref.ref.use_torch_compile": True,
    },
    "the model is loaded by transformers as its folder describes it": {
        "actor_rollout_ref.model.custom_chat_template": None, "actor_rollout_ref.model.use_shm": False,
        "actor_rollout_ref.model.enable_activation_offload": False,
        "critic.model.use_shm": False,
        "critic.model.enable_activation_offload": False,
    },
    "the engine is configured by the keys beside it alone": {
        "actor_rollout_ref.rollout.ignore_eos": False, "actor_rollout_ref.rollout.cudagraph_capture_sizes": None,
        "actor_rollout_ref.rollout.disable_log_stats": True, "actor_rollout_ref.rollout.do_sample": True,
        "actor_rollout_ref.rollout.engine_kwargs.vllm": {}, "actor_rollout_ref.rollout.engine_kwargs.sglang": {},
        "actor_rollout_ref.rollout.enable_chunked_prefill": True, "actor_rollout_ref.rollout.layered_summon": False,
        "actor_rollout_ref.rollout.pipeline_model_parallel_size": 1, "actor_rollout_ref.rollout.data_parallel_size": 1,
        "actor_rollout_ref.rollout.expert_parallel_size": 1,
    },
    "a checkpoint always holds model, optimizer and the rest, saved before the run goes on": {
        "actor_rollout_ref.actor.checkpoint.save_contents": ["model", "optimizer", "extra"],
        "actor_rollout_ref.actor.checkpoint.load_contents": ["model", "optimizer", "extra"],
        "actor_rollout_ref.actor.checkpoint.async_save": False,
        "critic.checkpoint.save_contents": ["model", "optimizer", "extra"],
        "critic.checkpoint.load_contents": ["model", "optimizer", "extra"],
        "critic.checkpoint.async_save": False,
        "trainer.default_hdfs_dir": None, "trainer.del_local_ckpt_after_load": False, "trainer.esi_redundant_time": 0,
    },
    "the number of steps is trainer.total_training_steps": {"trainer.total_epochs": 30},
    "the schedule's name is optim.lr_scheduler_type": {
        "actor_rollout_ref.actor.optim.warmup_style": "constant", "critic.optim.warmup_style": "constant",
    },
    "the optimizer is AdamW": {
        "actor_rollout_ref.actor.optim.optimizer": "AdamW", "critic.optim.optimizer": "AdamW",
    },
    "gradients are applied with what algorithm.adv_estimator gives": {
        "algorithm.use_pf_ppo": False, "algorithm.pf_ppo.reweight_method": "pow", "algorithm.pf_ppo.weight_pow": 2.0,
        "algorithm.filter_groups.enable": False,
    },
    "a critic is there when algorithm.adv_estimator needs one": {"critic.enable": None},
    "trajectories are written to the run's folder (trajectories/)": {
        "trainer.rollout_data_dir": None, "trainer.validation_data_dir": None,
    },
    "workers are waited for as long as Ray knows them alive": {
        "trainer.ray_wait_register_center_timeout": 300, "actor_rollout_ref.nccl_timeout": 600,
    },
}

ABSENT: dict[str, Absent] = {
    path: Absent(usual, reason) for reason, keys in _GROUPED.items() for path, usual in keys.items()
}
_KEPT = "the engine's log-probabilities are always kept"
ABSENT["actor_rollout_ref.rollout.calculate_log_probs"] = Absent(False, _KEPT, also=(True,))
