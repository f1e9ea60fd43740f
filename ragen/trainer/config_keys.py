"""The keys of a whole run: RAGEN's playing side here, VeRL's from ``verl.utils``."""

from __future__ import annotations

from verl.utils.config_check import (
    Absent,
    Field,
    KeyTable,
    boolean,
    choice,
    integer,
    list_of,
    mapping,
    number,
    optional,
    text,
)
from verl.utils.verl_keys import IMPLEMENTED as VERL_IMPLEMENTED
from verl.utils.verl_keys_absent import ABSENT as VERL_ABSENT

_TRAIN_VAL = ("train", "val")

IMPLEMENTED: dict[str, Field] = {
    "model_path": text(),
    "seed.train": integer(low=0),
    "seed.val": integer(low=0),
    "ctx_manager.system_prompt": optional(Field("a text", lambda v: isinstance(v, str))),
    "data.apply_chat_template_kwargs": mapping(),
    "agent_proxy.max_turn": integer(low=1),
    "agent_proxy.enable_think": boolean(),
    "agent_proxy.max_context_window": integer(low=1, also=(-1,)),
    "agent_proxy.max_think_tokens": optional(integer(low=1)),
    "agent_proxy.overlong_replies": choice("keep", "mask", "penalise"),
    "agent_proxy.overlong_buffer.len": integer(low=0),
    "agent_proxy.overlong_buffer.penalty_factor": number(low=0),
    "agent_proxy.forfeit_on_invalid": boolean(),
    "agent_proxy.use_turn_scores": boolean(),
    "agent_proxy.reward_normalization.grouping": choice("state", "batch", "inductive"),
    "agent_proxy.reward_normalization.method": choice("identity", "mean", "mean_std", "asym_clip"),
    "algorithm.zero_advantages": choice("leave_out", "train"),
    "es_manager.format_penalty": number(high=0),
    **{
        f"es_manager.{part}.{name}": kind
        for part in _TRAIN_VAL
        for name, kind in {
            "env_groups": integer(low=1),
            "group_size": integer(low=1),
            "env_configs.tags": list_of(text()),
            "env_configs.n_groups": optional(list_of(integer(low=1))),
        }.items()
    },
    "schedule.type": choice("single", "mixed", "cst"),
    "schedule.k_list": optional(list_of(integer(low=1))),
    "schedule.tags": list_of(text()),
    "collapse_detection.first_turn_enabled": boolean(),
    "collapse_detection.multi_turn_enabled": boolean(),
    "collapse_detection.compute_freq": integer(low=1),
    "collapse_detection.num_samples": integer(low=2),
    "collapse_detection.micro_batch_size": integer(low=1),
    "custom_envs.*.env_type": text(),
    "custom_envs.*.max_tokens": optional(integer(low=1)),
    "custom_envs.*.env_config": optional(mapping()),
    "custom_envs.*.val_env_config": optional(mapping()),
    "ray_kwargs.ray_init.address": optional(text()),
    "ray_kwargs.ray_init.num_cpus": optional(integer(low=1)),
    "ray_kwargs.ray_init.dashboard_port": optional(integer(low=1024)),
}

_SHORTHAND = "set the VeRL key itself, under actor_rollout_ref"
_ONE_ACTION = "a reply is one action"
ABSENT: dict[str, Absent] = {
    "system.CUDA_VISIBLE_DEVICES": Absent(None, "set CUDA_VISIBLE_DEVICES in the environment"),
    "micro_batch_size_per_gpu": Absent(None, _SHORTHAND),
    "log_prob_micro_batch_size_per_gpu": Absent(None, _SHORTHAND),
    "ppo_mini_batch_size": Absent(None, _SHORTHAND),
    "lora.rank": Absent(0, "set actor_rollout_ref.model.lora_rank"),
    "lora.alpha": Absent(None, "set actor_rollout_ref.model.lora_alpha"),
    "lora.target_modules": Absent("all-linear", "set actor_rollout_ref.model.target_modules"),
    "enable_response_mask": Absent(True, "only sampled tokens are ever trained"),
    "grpo_advantage_length_weight": Absent(False, "choose a length weighting with loss_agg_mode"),
    "agent_proxy.action_sep": Absent("||", _ONE_ACTION),
    "agent_proxy.max_actions_per_turn": Absent(1, _ONE_ACTION),
    "agent_proxy.context_window_mode": Absent("full", "set agent_proxy.max_context_window"),
    "agent_proxy.batch_adjust_mode": Absent("copy", "any number of trajectories is balanced over any number of ranks"),
    "algorithm.bi_level_gae": Absent(False, "set algorithm.adv_estimator=bi_level_gae"),
    "algorithm.zero_task_advantage": Absent(False, "it removes the policy gradient"),
    "algorithm.soft_advantage_reweight": Absent(False, "groups are weighed by the rollout filter alone"),
    "actor_rollout_ref.actor.use_ref": Absent(True, "a reference is there when a KL term needs one"),
    "actor_rollout_ref.actor.filter_loss_scaling": Absent("none", "the loss is normalised by what was kept"),
    "actor_rollout_ref.actor.grpo_advantage_length_weight": Absent(False, "choose a length weighting with loss_agg_mode"),
    "actor_rollout_ref.actor.micro_batch_size_per_gpu": Absent(None, "set ppo_micro_batch_size_per_gpu"),
    "actor_rollout_ref.rollout.tp_size_check": Absent(True, "tensor_model_parallel_size is always checked"),
    "trainer.validation_steps": Absent(1, "validation plays es_manager.val.env_groups groups once"),
    "trainer.local_log_dir": Absent("results/", "a run writes one folder, trainer.default_local_dir"),
    "trainer.generations_to_log_to_wandb.train": Absent(0, "trajectories are in the run's folder"),
    "trainer.generations_to_log_to_wandb.val": Absent(0, "set trainer.log_val_generations"),
    "custom_envs.*.max_actions_per_traj": Absent(None, "agent_proxy.max_turn limits a trajectory"),
    "custom_envs.*.env_instruction": Absent(None, "a game words its own rules"),
}

#: sections of the composed config that are not ours to check
FOREIGN = ("hydra",)


def key_table() -> KeyTable:
    return KeyTable({**VERL_IMPLEMENTED, **IMPLEMENTED}, {**VERL_ABSENT, **ABSENT})

