"""VeRL's keys that are implemented here, and what each takes.

The keys that VeRL documents and that have no effect here are in ``verl.utils.verl_keys_absent``.
Nothing here imports torch, so that a configuration is checked in a second; a test compares the lists
of algorithms with the registries they name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from verl.trainer.ppo.registry import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY
from verl.trainer.ppo.rollout_thresholds import RS_OPTIONS, parse_weights
from verl.utils.config_check import (
    Field,
    boolean,
    choice,
    either,
    integer,
    list_of,
    mapping,
    number,
    optional,
    registered,
    text,
)

ADV_ESTIMATORS = (
    "gae", "bi_level_gae", "grpo", "grpo_passk", "rloo", "reinforce_plus_plus", "reinforce_plus_plus_baseline",
    "remax", "opo", "gpg", "gdpo", "rae", "grpo_vectorized", "rloo_vectorized", "optimal_token_baseline", "tir_optimal_token_baseline",
)
#: estimators that weigh by how much gradient each token carries: the trainer computes its log-probability and sum_pi_squared first
TOKEN_BASELINE_ESTIMATORS = ("optimal_token_baseline", "tir_optimal_token_baseline")
#: estimators whose advantage compares members of a group: a group of one gives nothing
GROUP_ESTIMATORS = (
    "grpo", "grpo_passk", "rloo", "reinforce_plus_plus_baseline", "opo", "gpg", "gdpo", "grpo_vectorized", "rloo_vectorized",
    *TOKEN_BASELINE_ESTIMATORS,
)
#: estimators that need a critic
CRITIC_ESTIMATORS = ("gae", "bi_level_gae")
POLICY_LOSSES = (
    "vanilla", "gspo", "cispo", "sapo", "gpg", "clip_cov", "kl_cov", "geo_mean", "dppo_tv", "dppo_kl", "dro",
    "reinforce", "bypass_mode",
)
_KL_PLAIN = ("kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3")
KL_FORMS = _KL_PLAIN + tuple(f"{name}+" for name in _KL_PLAIN)
LOSS_AGG_MODES = ("token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")
TRACKERS = ("console", "file", "tensorboard", "wandb", "mlflow", "swanlab")
FILTER_STRATEGIES = ("top_k", "top_k_abs", "top_p", "min_p")
FILTER_METRICS = ("reward_variance", "reward", "reward_sum", "entropy", "entropy_variance", "length")

_EXTERNAL_LIB = "actor_rollout_ref.model.external_lib"
_share = number(low=0, high=1)
_dtype = choice("fp32", "bf16", "fp16")
_modules = either(text(), list_of(text()))


def _under(prefix: str, keys: dict[str, Field]) -> dict[str, Field]:
    return {f"{prefix}.{name}": kind for name, kind in keys.items()}


_model = {
    "path": text(),
    "trust_remote_code": boolean(),
    "external_lib": optional(_modules),
    "enable_gradient_checkpointing": boolean(),
    "use_remove_padding": boolean(),
    "lora_rank": integer(low=0),
    "lora_alpha": number(above=0),
    "target_modules": _modules,
    "exclude_modules": optional(_modules),
    "override_config": mapping(),
}
_optim = {
    "lr": number(above=0),
    "betas": list_of(number(low=0, below=1), length=2),
    "eps": number(above=0),
    "clip_grad": number(above=0),
    "weight_decay": number(low=0),
    "total_training_steps": integer(low=1, also=(-1,)),
    "lr_warmup_steps": integer(low=0, also=(-1,)),
    "lr_warmup_steps_ratio": _share,
    "lr_scheduler_type": choice("constant", "cosine"),
    "min_lr_ratio": _share,
    "num_cycles": number(above=0),
}
_fsdp = {
    "model_dtype": _dtype,
    "mixed_precision": Field(
        "null or the keys param_dtype and reduce_dtype, each fp32, bf16 or fp16",
        lambda v: v is None
        or (isinstance(v, dict) and set(v) == {"param_dtype", "reduce_dtype"} and all(map(_dtype.accepts, v.values()))),
    ),
    "param_offload": boolean(),
    "optimizer_offload": boolean(),
    "offload_policy": boolean(),
    "wrap_policy.min_num_params": integer(low=0),
    "reshard_after_forward": boolean(),
}
_update = {
    "ppo_mini_batch_size": integer(low=1),
    "ppo_micro_batch_size_per_gpu": optional(integer(low=1)),
    "use_dynamic_bsz": boolean(),
    "ppo_max_token_len_per_gpu": integer(low=1),
    "ppo_epochs": integer(low=1),
    "shuffle": boolean(),
    "grad_clip": number(above=0),
    "loss_agg_mode": choice(*LOSS_AGG_MODES),
    "use_prefix_grouper": boolean(),
}
_actor = {
    **_update,
    "clip_ratio": number(above=0),
    "clip_ratio_low": optional(number(above=0)),
    "clip_ratio_high": optional(number(above=0)),
    "clip_ratio_c": number(above=1),
    "policy_loss.loss_mode": registered(POLICY_LOSSES, POLICY_LOSS_REGISTRY, _EXTERNAL_LIB),
    "policy_loss.clip_cov_ratio": _share,
    "policy_loss.clip_cov_lb": number(),
    "policy_loss.clip_cov_ub": number(),
    "policy_loss.kl_cov_ratio": _share,
    "policy_loss.ppo_kl_coef": number(low=0),
    "policy_loss.dro_beta": optional(number(above=0)),
    "policy_loss.rollout_correction": mapping(),
    "tau_pos": number(above=0),
    "tau_neg": number(above=0),
    "loss_scale_factor": optional(number(above=0)),
    "entropy_coeff": number(),
    "use_kl_loss": boolean(),
    "kl_loss_coef": number(low=0),
    "kl_loss_type": choice(*KL_FORMS),
    "use_torch_compile": boolean(),
    **_under("optim", _optim),
    **_under("fsdp_config", _fsdp),
}
_log_prob = {
    "log_prob_micro_batch_size_per_gpu": optional(integer(low=1)),
    "log_prob_use_dynamic_bsz": boolean(),
    "log_prob_max_token_len_per_gpu": integer(low=1),
}
_sampling = {
    "temperature": number(low=0),
    "top_p": number(above=0, high=1),
    "top_k": integer(low=1, also=(-1,)),
}
_rollout = {
    **_log_prob,
    **_sampling,
    "name": choice("vllm", "hf"),
    "load_format": choice("auto", "dummy", "safetensors"),
    "seed": optional(integer(low=0)),
    "dtype": choice("bfloat16", "float16", "float32"),
    "response_length": integer(low=1),
    "max_model_len": integer(low=2),
    "max_num_seqs": integer(low=1),
    "max_num_batched_tokens": integer(low=1),
    "tensor_model_parallel_size": integer(low=1),
    "gpu_memory_utilization": number(above=0, below=1),
    "kv_cache_memory_bytes": optional(integer(low=1 << 20)),
    "block_size": optional(Field("one of 8, 16, 32, 64, 128", lambda v: v in (8, 16, 32, 64, 128))),
    "past_self_gpu_memory_utilization": number(above=0, below=1),
    "enforce_eager": optional(boolean()),
    "free_cache_engine": boolean(),
    "enable_prefix_caching": boolean(),
    "update_weights_bucket_megabytes": integer(low=1),
    **_under("val_kwargs", {**_sampling, "do_sample": boolean()}),
    # RAGEN's, kept under rollout as RAGEN has them
    "rollout_filter_ratio": number(above=0),
    "rollout_filter_value": optional(number(above=0)),
    "rollout_filter_strategy": choice(*FILTER_STRATEGIES),
    "rollout_filter_type": choice("largest", "smallest", "std", "std_rev"),
    "rollout_filter_metric": choice(*FILTER_METRICS),
    "rollout_filter_include_zero": optional(boolean()),
    "rollout_filter_by_tag": boolean(),
    "rollout_filter_top_p_prob_mode": choice("linear", "softmax"),
    "rollout_filter_selection_eps": number(low=0),
    "rollout_filter_empty_stop_steps": integer(low=0),
}
_critic = {
    **_under("model", _model),
    **_under("model.fsdp_config", _fsdp),
    **_update,
    "forward_micro_batch_size_per_gpu": optional(integer(low=1)),
    "forward_max_token_len_per_gpu": integer(low=1),
    "cliprange_value": number(above=0),
    "loss_scale_factor": optional(number(above=0)),
    **_under("optim", _optim),
}


def _reads(parse: Callable[[Any], Any]) -> Callable[[Any], bool]:
    """Whether ``parse`` takes a value without an error."""

    def accepts(value: Any) -> bool:
        try:
            parse(value)
        except (TypeError, ValueError):
            return False
        return True

    return accepts


_algorithm = {
    "adv_estimator": registered(ADV_ESTIMATORS, ADV_ESTIMATOR_REGISTRY, _EXTERNAL_LIB),
    "gamma": _share,
    "lam": _share,
    "high_level_gamma": _share,
    "norm_adv_by_std_in_grpo": boolean(),
    "rae_decay": number(low=0, below=1),
    "gpg_f_norm": number(above=0),
    "gpg_alpha": optional(number(above=0)),
    "gdpo_reward_keys": optional(list_of(text())),
    "gdpo_reward_weights": optional(list_of(number())),
    "use_kl_in_reward": boolean(),
    "kl_penalty": choice(*_KL_PLAIN),
    "kl_ctrl.type": choice("fixed", "adaptive"),
    "kl_ctrl.kl_coef": number(low=0),
    "kl_ctrl.horizon": number(above=0),
    "kl_ctrl.target_kl": number(above=0),
    "rollout_correction.bypass_mode": optional(boolean()),
    "rollout_correction.rollout_is": optional(choice("token", "sequence")),
    "rollout_correction.loss_type": choice("ppo_clip", "reinforce"),
    "rollout_correction.rollout_is_threshold": Field("a number > 0, or two as '0.5_2.0'", _reads(parse_weights)),
    "rollout_correction.rollout_is_batch_normalize": boolean(),
    "rollout_correction.rollout_rs": optional(Field(
        f"one of {', '.join(RS_OPTIONS)}, or several with commas between",
        lambda v: isinstance(v, str) and bool(v) and all(option.strip() in RS_OPTIONS for option in v.split(",")),
    )),
    "rollout_correction.rollout_rs_threshold": optional(either(
        number(above=0), Field("a text such as '0.5_2.0' or '2.0,0.01'", lambda v: isinstance(v, str) and bool(v))
    )),
    "rollout_correction.rollout_rs_threshold_lower": optional(number(above=0)),
}
_trainer = {
    "project_name": text(),
    "experiment_name": text(),
    "default_local_dir": text(),
    "total_training_steps": integer(low=1),
    "nnodes": integer(low=1),
    "n_gpus_per_node": integer(low=1),
    "master_port": optional(integer(low=1024)),
    "device": choice("auto", "cpu", "cuda"),
    "device_memory_gb": optional(number(above=0)),
    "device_tflops": optional(number(above=0)),
    "plan_only": boolean(),
    "rollout_ahead": Field("0 or 1", lambda v: v in (0, 1) and not isinstance(v, bool)),
    "balance_batch": boolean(),
    "critic_warmup": integer(low=0),
    "val_before_train": boolean(),
    "val_only": boolean(),
    "test_freq": integer(low=1, also=(-1,)),
    "save_freq": integer(low=1, also=(-1,)),
    "max_actor_ckpt_to_keep": optional(integer(low=1)),
    "max_critic_ckpt_to_keep": optional(integer(low=1)),
    "resume_mode": choice("auto", "disable", "resume_path"),
    "resume_from_path": optional(text()),
    "max_restarts": integer(low=0),
    "restart_wait_s": number(above=0),
    "node_timeout_s": number(low=2),
    "logger": either(list_of(choice(*TRACKERS)), choice(*TRACKERS)),
    "log_val_generations": integer(low=0),
}

#: VeRL's one-step-off recipe: where rollout workers of their own run
_rollout_pool = {"nnodes": integer(low=1), "n_gpus_per_node": optional(integer(low=1))}

IMPLEMENTED: dict[str, Field] = {
    "actor_rollout_ref.hybrid_engine": boolean(),
    **_under("actor_rollout_ref.model", _model),
    **_under("actor_rollout_ref.actor", _actor),
    **_under("actor_rollout_ref.ref", {**_log_prob, "fsdp_config.param_offload": boolean()}),
    **_under("actor_rollout_ref.rollout", _rollout),
    **_under("critic", _critic),
    **_under("algorithm", _algorithm),
    **_under("trainer", _trainer),
    **_under("rollout", _rollout_pool),
}
