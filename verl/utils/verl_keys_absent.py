"""VeRL's documented keys that have no effect here: VeRL's default and the reason, a group a reason.

A VeRL user's launch script often sets some of them. At VeRL's default they change nothing and are
accepted with a warning; at another value they would silently not do what was asked, so they are refused.
Keys and defaults are those of VeRL 0.9.1 and, where it dropped a key, of the last version that had it.
"""

from __future__ import annotations

from collections.abc import Mapping

from verl.utils import verl_sections_absent as sections
from verl.utils.config_check import Absent

ABSENT: dict[str, Absent] = {}


def _add(reason: str, keys: Mapping[str, object], *under: str) -> None:
    """``keys`` (name -> VeRL's default) are absent for ``reason``, in each section of ``under`` (none: names are whole)."""
    for prefix in under or ("",):
        for name, usual in keys.items():
            ABSENT[f"{prefix}.{name}" if prefix else name] = Absent(usual, reason)


ACTOR, REF, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.ref", "actor_rollout_ref.rollout"
CRITIC, MODEL, CRITIC_MODEL = "critic", "actor_rollout_ref.model", "critic.model"
_ACTOR_FSDP, _REF_FSDP, _CRITIC_FSDP = sections.ENGINES

# -- what is played, and what is paid for it ---------------------------------------------------------

_add("prompts come from games (es_manager, custom_envs), not from a data file", sections.DATA | {"datagen.path": None, "datagen.name": None}
     | {"sampler.class_path": None, "sampler.class_name": None}, "data")  # fmt: skip
_add("the length of a whole trajectory is rollout.max_model_len", {"prompt_length": 512}, ROLLOUT)
_NO_RM = "rewards come from the games; there is no reward model"
_add(_NO_RM, sections.REWARD_MODEL | {
    "strategy": "fsdp", "launch_reward_fn_async": False, "micro_batch_size_per_gpu": None, "max_length": None,
}, "reward_model")  # fmt: skip
_add(_NO_RM, sections.REWARD, "reward")
_add(_NO_RM, sections.REWARD_ROLLOUT, "reward.reward_model.rollout")
_add(_NO_RM, {"path": None, "name": None}, "custom_reward_function")
_add(_NO_RM, {"url": None, "max_concurrent": None, "memory_limit_mb": None}, "sandbox_fusion")
_NO_TEACHER = "a policy learns from its games' rewards; there is no teacher model"
_add(_NO_TEACHER, sections.DISTILLATION, "distillation")
_add(_NO_TEACHER, sections.TEACHER, "distillation.teacher_models.*")
_add(_NO_TEACHER, sections.TEACHER_INFERENCE, "distillation.teacher_models.*.inference")
_GROUPS = "group size is es_manager.train.group_size"
_add(_GROUPS, {"n": 1, "val_kwargs.n": 1}, ROLLOUT)
_add(_GROUPS, {"rollout_n": 1}, ACTOR, REF, CRITIC)
_AGENT_LOOP = "episodes are played by agent_proxy, not by VeRL's agent loop"
_add(_AGENT_LOOP, sections.MULTI_TURN, f"{ROLLOUT}.multi_turn")
_add(_AGENT_LOOP, sections.AGENT, f"{ROLLOUT}.agent")
_add(_AGENT_LOOP, {"mode": "async", "over_sample_rate": 0, "router_config_path": None}, ROLLOUT)
_ALWAYS_PLAYED = "every step's episodes are played"
_add(_ALWAYS_PLAYED, sections.SKIP, "skip")
_add(_ALWAYS_PLAYED, {"skip_rollout": False}, ROLLOUT)
_RECORDED = "trajectories are written to the run's folder (trajectories/)"
_add(_RECORDED, sections.TRACE, f"{ROLLOUT}.trace")
_add(_RECORDED, {"rollout_data_dir": None, "validation_data_dir": None}, "trainer")

# -- the rollout engine ------------------------------------------------------------------------------

_add("the engine is configured by the keys beside it alone", {
    "ignore_eos": False, "cudagraph_capture_sizes": None, "disable_log_stats": True, "do_sample": True, "engine_kwargs.vllm": {},
    "engine_kwargs.sglang": {}, "engine_kwargs.trtllm": {}, "enable_chunked_prefill": True, "layered_summon": False,
    "scheduling_policy": "fcfs", "pipeline_model_parallel_size": 1, "data_parallel_size": 1, "expert_parallel_size": 1,
}, ROLLOUT)  # fmt: skip
_add("log-probabilities are always those of the distribution that was sampled from", {"logprobs_mode": "processed_logprobs"}, ROLLOUT)
_add("the engine's log-probabilities are always kept", {"calculate_log_probs": True}, ROLLOUT)
_add("the engine takes and gives token ids alone", {"skip_tokenizer_init": True}, ROLLOUT)
_add("the engine computes in rollout.dtype", {"quantization": None, "quantization_config_file": None}, ROLLOUT)
_add("one engine both reads prompts and writes replies", sections.DISAGGREGATION, f"{ROLLOUT}.disaggregation")
_add("the engine and the trainer share their GPUs, or have none in common (hybrid_engine=false)", {"multi_stage_wake_up": False}, ROLLOUT)
_add("workers that only play are counted by rollout.nnodes and rollout.n_gpus_per_node", {"nnodes": 0, "n_gpus_per_node": 8}, ROLLOUT)
_add("weights go straight to the engine; set actor_rollout_ref.rollout.update_weights_bucket_megabytes", sections.CHECKPOINT_ENGINE,
     f"{ROLLOUT}.checkpoint_engine")  # fmt: skip
_add("the engine runs in the worker's process and serves no metrics", sections.PROMETHEUS, f"{ROLLOUT}.prometheus")
_add("what a mixture of experts routes is neither recorded nor replayed", {
    "enable_rollout_routing_replay": False, "moe_load_balance_metrics_interval": 0,
}, ROLLOUT)  # fmt: skip

# -- models ------------------------------------------------------------------------------------------

_add("the model is loaded by transformers as its folder describes it", {
    "hf_config_path": None, "tokenizer_path": None, "custom_chat_template": None, "use_shm": False, "enable_activation_offload": False,
    "tiled_mlp.enabled": False, "tiled_mlp.num_shards": 4,
}, MODEL, CRITIC_MODEL)  # fmt: skip
_add("LoRA starts from new adapters", {"lora_adapter_path": None}, MODEL, CRITIC_MODEL)
_add("it is Megatron's LoRA; set lora_rank, lora_alpha, target_modules, exclude_modules of the model", sections.MEGATRON_LORA,
     f"{MODEL}.lora", f"{CRITIC_MODEL}.lora")  # fmt: skip
_add("heads that predict several tokens are neither trained nor used to draft", sections.MULTI_TOKEN_PREDICTION,
     f"{MODEL}.mtp", f"{CRITIC_MODEL}.mtp", f"{ROLLOUT}.mtp")  # fmt: skip
_add("there is no quantization-aware training", sections.QAT,
     *(f"{engine}.qat" for engine in sections.ENGINES), f"{ACTOR}.qat", f"{ROLLOUT}.qat")  # fmt: skip
_add("models read text alone", {"freeze_vision_tower": False}, ACTOR)
_add("the reference is the model the run started from", {"model": None}, REF)
_add("the reference is not compiled", {"use_torch_compile": True}, REF)
_CHUNKED = "chunked log-probabilities are always used, whatever kernels"
_add(_CHUNKED, {"entropy_from_logits_with_chunking": False, "entropy_from_logits_chunk_size": 2048, "entropy_checkpointing": False},
     ACTOR, REF, *sections.ENGINES)  # fmt: skip
_add(_CHUNKED, {"use_liger": False, "use_fused_kernels": False, "fused_kernel_options.impl_backend": "torch"}, MODEL, CRITIC_MODEL)
_add(_CHUNKED, {"use_fused_kernels": False}, ACTOR)
_add("set actor_rollout_ref.model.use_remove_padding", {"use_remove_padding": True}, ACTOR)

# -- the training engine -----------------------------------------------------------------------------

_ONE_ENGINE = "FSDP2 is the only training engine"
_add(_ONE_ENGINE, {"model_engine": "dp", "trainer.use_legacy_worker_impl": "auto"})
_add(_ONE_ENGINE, {"strategy": "fsdp"}, ACTOR, REF, CRITIC, *sections.ENGINES)
_add(_ONE_ENGINE, {"megatron": {}, "veomni": {}, "torchtitan": {}, "automodel": {}}, ACTOR, REF, CRITIC)
_add("it is FSDP1's; FSDP2 is the only training engine", {"forward_prefetch": False, "use_orig_params": False},
     *sections.ENGINES, f"{CRITIC_MODEL}.fsdp_config")  # fmt: skip
_add("parameters are sharded over all ranks", {"fsdp_size": -1}, *sections.ENGINES, f"{CRITIC_MODEL}.fsdp_config")
_add(_ONE_ENGINE, sections.TURBO, *(f"{engine}.turbo_config" for engine in sections.ENGINES))
_add("a sequence is never split over ranks", {"ulysses_sequence_parallel_size": 1}, ACTOR, REF, CRITIC, *sections.ENGINES)
_add("which worker only computes forward follows from its role", {"forward_only": False}, _ACTOR_FSDP, _CRITIC_FSDP)
_add("which worker only computes forward follows from its role", {"forward_only": True}, _REF_FSDP)
_add("random numbers follow seed.train", {"seed": 42}, *sections.ENGINES)
_add("random numbers follow seed.train", {"data_loader_seed": 42}, ACTOR, CRITIC)
_add("requests, dealing and seeds are deterministic always, GPU kernels never", {"full_determinism": False}, *sections.ENGINES, ROLLOUT)
_add("micro-batches are packed, or padded to their longest row", {"pad_to_length": False, "pad_to_length_bucket": 1024}, *sections.ENGINES)
_add("micro-batches are packed, or padded to their longest row", {"pad_to_length": False}, ACTOR, REF)
_add("set mixed_precision.param_dtype of the actor's fsdp_config or of critic.model.fsdp_config", {"dtype": "bfloat16"}, *sections.ENGINES)
_add("gradients stay whole between micro-batches where reshard_after_forward is false", {
    "use_no_sync_for_gradient_accumulation": False,
}, *sections.ENGINES)  # fmt: skip
_add("set actor_rollout_ref.actor.use_torch_compile; reference and critic are not compiled", {"use_torch_compile": True}, *sections.ENGINES)
_add("the reference is sharded as the actor is (actor.fsdp_config); only param_offload is its own", {
    "optimizer_offload": False, "offload_policy": False, "reshard_after_forward": True, "model_dtype": "fp32",
    "wrap_policy.min_num_params": 0,
}, _REF_FSDP)  # fmt: skip
_add("the critic's sharding is set by critic.model.fsdp_config", {
    "param_offload": False, "optimizer_offload": False, "offload_policy": False, "reshard_after_forward": True, "model_dtype": "fp32",
    "wrap_policy.min_num_params": 0,
}, _CRITIC_FSDP)  # fmt: skip
_PER_GPU = "the global form is deprecated in VeRL; set the key that ends in _per_gpu"
_add(_PER_GPU, {"ppo_micro_batch_size": None}, ACTOR, CRITIC)
_add(_PER_GPU, {"forward_micro_batch_size": None}, CRITIC)
_add(_PER_GPU, {"log_prob_micro_batch_size": None}, REF, ROLLOUT)

# -- the update --------------------------------------------------------------------------------------

_add("the optimizer is torch's AdamW", {
    "optimizer": "AdamW", "optimizer_impl": "torch.optim", "override_optimizer_config": None,
}, f"{ACTOR}.optim", f"{CRITIC}.optim")  # fmt: skip
_add("the schedule's name is optim.lr_scheduler_type", {"warmup_style": None}, f"{ACTOR}.optim", f"{CRITIC}.optim")
_add("a warm-up of n steps starts at 1/n of the rate, as VeRL's does at false", {"zero_indexed_step": True}, f"{ACTOR}.optim", f"{CRITIC}.optim")
_add("the entropy of sampled tokens is always computed", {"calculate_entropy": False}, ACTOR)
_add("what algorithm.adv_estimator needs is computed by itself", {"calculate_sum_pi_squared": False}, ACTOR)
_add("samples are not weighted by preference", {
    "use_pf_ppo": False, "pf_ppo.reweight_method": "pow", "pf_ppo.weight_pow": 2.0,
}, "algorithm")  # fmt: skip
_add("groups without signal are left out by actor_rollout_ref.rollout.rollout_filter_*, and none are played in their place", {
    "enable": False, "metric": "reward", "max_num_gen_batches": 0, "max_inflight_gen_batches": 1,
}, "algorithm.filter_groups")  # fmt: skip
_add("a critic is there when algorithm.adv_estimator needs one", {"critic.enable": None})

# -- the run -----------------------------------------------------------------------------------------

_add("the number of steps is trainer.total_training_steps", {"trainer.total_epochs": 30})
_ONE_LOOP = "there is one loop; hybrid_engine=false and trainer.rollout_ahead=1 play beside the update"
_add(_ONE_LOOP, {"trainer.use_v1": True})
_add(_ONE_LOOP, sections.TRAINER_V1, "trainer.v1")
_add("batches travel by Ray's object store", sections.TRANSFER_QUEUE, "transfer_queue")
_CHECKPOINTS = "a checkpoint always holds model, optimizer and the rest, saved and checked before the run goes on"
_CONTENTS = ["model", "optimizer", "extra"]
_add(_CHECKPOINTS, {"save_contents": _CONTENTS, "load_contents": _CONTENTS, "async_save": False, "strict": True},
     f"{ACTOR}.checkpoint", f"{CRITIC}.checkpoint")  # fmt: skip
_add(_CHECKPOINTS, {
    "default_hdfs_dir": None, "del_local_ckpt_after_load": False, "esi_redundant_time": 0, "checkpoint_callback_class": None,
}, "trainer")  # fmt: skip
_PROFILER = "there is no profiler hook; timing_s/* is logged each step"
_add(_PROFILER, sections.GLOBAL_PROFILER, "global_profiler")
_add(_PROFILER, sections.PROFILER, *sections.PROFILED)
_add(_PROFILER, sections.ROLLOUT_PROFILER, f"{ROLLOUT}.profiler")
_add(_PROFILER, {"ray_kwargs.timeline_json_file": None})
_add("workers run the driver's interpreter", {"ray_kwargs.ray_init.runtime_env.py_executable": None})
_add("workers are waited for as long as Ray knows them alive", {
    "trainer.ray_wait_register_center_timeout": 300, "actor_rollout_ref.nccl_timeout": 600,
})  # fmt: skip
for _class, _sections in sections.TARGETS.items():
    _add("sections are read as they are, not made into VeRL's dataclasses", {"_target_": f"verl.{_class}"}, *_sections)

#: other values that change nothing here either: defaults of older versions, and what is done in any case
_ALSO: dict[str, tuple] = {
    "data.train_files": (None,), "data.val_files": (None,), "data.max_prompt_length": (None,), "data.max_response_length": (None,),
    "data.train_batch_size": (None,), "data.return_raw_chat": (False,),
    "reward_model.enable": (False,), "reward_model.enable_resource_pool": (False,), "reward_model.reward_manager": ("naive",),
    "custom_reward_function.name": ("compute_score",),
    "actor_rollout_ref.rollout.calculate_log_probs": (False,),
    "actor_rollout_ref.actor.calculate_entropy": (True,),
    "actor_rollout_ref.actor.optim.warmup_style": ("constant",), "critic.optim.warmup_style": ("constant",),
    "actor_rollout_ref.actor.optim.zero_indexed_step": (False,), "critic.optim.zero_indexed_step": (False,),
    "actor_rollout_ref.ref.use_torch_compile": (False,),
    **{f"{section}.strategy": ("fsdp2",) for section in (ACTOR, REF, CRITIC, *sections.ENGINES)},
}  # fmt: skip
for _path, _values in _ALSO.items():
    ABSENT[_path] = Absent(ABSENT[_path].usual, ABSENT[_path].reason, also=_values)
