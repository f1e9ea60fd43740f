"""Checks that need more than one key: batch arithmetic, tags, games, lengths, algorithm, resuming.

Each check takes the plain configuration, whose keys already have the right types, and yields one
sentence a fault: key, value and what would be right.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ragen.env import REGISTERED_ENVS, env_config_class
from ragen.trainer import correction_checks, player_checks, split_checks
from ragen.trainer.plan import is_split, kept_groups, players_of, rollout_ranks, rounds, trained_seats
from ragen.trainer.rollout_filter import filter_of
from verl.utils.config_check import describe, show
from verl.utils.verl_keys import CRITIC_ESTIMATORS, GROUP_ESTIMATORS

Config = Mapping[str, Any]


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else f" (known: {', '.join(sorted(known))})"


# -- which games ------------------------------------------------------------------------------


def used_tags(config: Config) -> list[str]:
    """Tags that this run plays, each once."""
    env = config["es_manager"]
    return list(dict.fromkeys([*env["train"]["env_configs"]["tags"], *env["val"]["env_configs"]["tags"]]))


def check_tags(config: Config) -> Iterator[str]:
    for part in ("train", "val"):
        yield from _check_part(config, part)


def _check_part(config: Config, part: str) -> Iterator[str]:
    section, path = config["es_manager"][part], f"es_manager.{part}"
    tags, counts = section["env_configs"]["tags"], section["env_configs"]["n_groups"]
    if not tags:
        yield f"{path}.env_configs.tags is empty: name at least one tag of custom_envs"
    for tag in tags:
        if tag not in config["custom_envs"]:
            yield f"{path}.env_configs.tags: {tag} is not a tag of custom_envs{_nearest(tag, config['custom_envs'])}"
    if len(set(tags)) < len(tags):
        yield f"{path}.env_configs.tags = {show(tags)}: a tag stands twice; give it more groups in n_groups"
    if part == "train" and config["schedule"]["type"] == "cst":
        return  # every step plays env_groups groups of the one tag whose turn it is
    if counts is None:
        if tags and section["env_groups"] % len(tags):
            yield (
                f"{path}.env_groups = {section['env_groups']} cannot be shared equally by {len(tags)} tags: "
                f"use a multiple of {len(tags)}, or set {path}.env_configs.n_groups"
            )
    elif len(counts) != len(tags):
        yield f"{path}.env_configs.n_groups = {show(counts)}: {len(counts)} numbers for {len(tags)} tags; give one a tag"
    elif sum(counts) != section["env_groups"]:
        yield f"{path}.env_groups = {section['env_groups']}, but n_groups = {show(counts)} adds up to {sum(counts)}: make them agree"


def check_schedule(config: Config) -> Iterator[str]:
    schedule = config["schedule"]
    kind, tags, k_list = schedule["type"], schedule["tags"], schedule["k_list"]
    trained = config["es_manager"]["train"]["env_configs"]["tags"]
    if sorted(tags) != sorted(trained):
        yield f"schedule.tags = {show(tags)} must be es_manager.train.env_configs.tags = {show(trained)}; leave it out"
    if kind == "single" and len(tags) != 1:
        yield f"schedule.type = single takes one tag, got {show(tags)}: use mixed (all in a batch) or cst (one a step)"
    if kind != "cst" and k_list is not None:
        yield f"schedule.k_list = {show(k_list)} is for schedule.type=cst, not {kind}: leave it null"
    if kind == "cst" and (k_list is None or len(k_list) != len(tags)):
        yield f"schedule.k_list = {show(k_list)}: cst needs one number of steps for each of the tags {show(tags)}"


def check_games(config: Config) -> Iterator[str]:
    """``env_type`` and the keys of ``env_config`` against the game's own config class."""
    envs, done = config["custom_envs"], set()
    todo = [tag for tag in used_tags(config) if tag in envs]  # check_tags names the others
    while todo:
        tag = todo.pop(0)
        if tag in done:
            continue
        done.add(tag)
        spec, path = envs[tag], f"custom_envs.{tag}"
        if spec.get("env_type") not in REGISTERED_ENVS:
            yield f"{path}.env_type = {show(spec.get('env_type'))}: there is no such game{_nearest(str(spec.get('env_type')), REGISTERED_ENVS)}"
            continue
        base, over = spec.get("env_config") or {}, spec.get("val_env_config") or {}
        for part, config_part in (("env_config", base), ("val_env_config", over)):
            for where, sub in _named_tags(f"{path}.{part}", config_part):
                if sub in envs:
                    todo.append(sub)
                else:
                    yield f"{where}: {sub} is not a tag of custom_envs{_nearest(sub, envs)}"
        yield from _check_env_config(envs, f"{path}.env_config", spec["env_type"], base, base)
        if over:
            yield from _check_env_config(envs, f"{path}.val_env_config", spec["env_type"], {**base, **over}, over)
    yield from player_checks.check_seats(config)


def _named_tags(path: str, env_config: Config) -> Iterator[tuple[str, str]]:
    """The tags that a nest at ``path`` names, each with the key that names it; those of nests written out within it too."""
    for i, sub in enumerate(env_config.get("base_env_list") or ()):
        if isinstance(sub, str):
            yield f"{path}.base_env_list", sub
        elif isinstance(sub, Mapping):
            yield from _named_tags(f"{path}.base_env_list[{i}].env_config", sub.get("env_config") or {})


def _check_env_config(envs: Config, path: str, env_type: str, env_config: Config, named: Config) -> Iterator[str]:
    """``named``: the part of ``env_config`` that stands at ``path`` itself."""
    try:
        config_class = env_config_class(env_type)
    except ImportError as error:
        yield f"{path}: the game {env_type} cannot be imported ({error}); install what it needs, or choose another tag"
        return
    known = {f.name for f in dataclasses.fields(config_class)}
    keys = {k: v for k, v in env_config.items() if k != "player_info"}
    for key in named:
        if key not in known | {"player_info"}:
            yield f"{path}.{key} is not a key of {config_class.__name__}{_nearest(key, known | {'player_info'})}"
    sub_tasks = keys.get("base_env_list") or ()
    if set(keys) <= known and all(sub in envs for sub in sub_tasks if isinstance(sub, str)):
        if sub_tasks:  # as es_manager hands them to the nest
            keys["base_env_list"] = [_sub_task(envs, sub) if isinstance(sub, str) else sub for sub in sub_tasks]
        try:
            config_class(**keys)
        except (ValueError, TypeError) as error:
            yield f"{path}: {error}"
    for i, sub in enumerate(named.get("base_env_list") or ()):
        if isinstance(sub, Mapping):
            yield from _check_written_out(envs, f"{path}.base_env_list[{i}]", sub)
    if not sub_tasks:  # a nest's own list is not read, and check_seats says so
        yield from player_checks.check_player_info(f"{path}.player_info", env_type, named.get("player_info"))


def _check_written_out(envs: Config, path: str, sub: Config) -> Iterator[str]:
    """A sub-task that is an entry of its own, not a tag. What the nest's config class says of it is not said again."""
    env_type, inner = sub.get("env_type"), sub.get("env_config") or {}
    if env_type in REGISTERED_ENVS:
        yield from _check_env_config(envs, f"{path}.env_config", env_type, inner, inner)
        yield from player_checks.check_player_info(f"{path}.player_info", env_type, sub.get("player_info"))
    elif env_type is not None:
        yield f"{path}.env_type = {show(env_type)}: there is no such game{_nearest(str(env_type), REGISTERED_ENVS)}"


def _sub_task(envs: Config, tag: str) -> dict[str, Any]:
    return {"tag": tag, "env_type": envs[tag].get("env_type"), "env_config": envs[tag].get("env_config") or {}}


# -- how much ---------------------------------------------------------------------------------


def check_batch(config: Config) -> Iterator[str]:
    train, actor = config["es_manager"]["train"], config["actor_rollout_ref"]["actor"]
    estimator, size = config["algorithm"]["adv_estimator"], train["group_size"]
    if size == 1 and estimator in GROUP_ESTIMATORS:
        yield (
            f"es_manager.train.group_size = 1: {estimator} compares the members of a group, every advantage would be 0; "
            "use 2 or more (the paper: 16)"
        )
    critic = config["critic"]
    minis = {"actor_rollout_ref.actor": actor["ppo_mini_batch_size"]}
    if estimator in CRITIC_ESTIMATORS and critic["ppo_mini_batch_size"] != actor["ppo_mini_batch_size"]:
        minis["critic"] = critic["ppo_mini_batch_size"]
    for groups in _rounds_if_sound(config):
        kept, _ = kept_groups(config, groups)
        seats = max(trained_seats(config["custom_envs"], tag) for tag in groups)
        most = kept * size * seats
        for path, mini in minis.items():
            if mini > most:
                yield (
                    f"{path}.ppo_mini_batch_size = {mini} is more than the {most} trajectories of a step of "
                    f"{', '.join(groups)} ({sum(groups.values())} groups, {kept} kept by the filter, {size * seats} trajectories each): "
                    f"use at most {most}, or raise env_groups or rollout_filter_ratio"
                )
    for path, part in (("actor_rollout_ref.actor", actor), ("critic", critic)):
        if not part["use_dynamic_bsz"] and part["ppo_micro_batch_size_per_gpu"] is None:
            yield f"{path}.ppo_micro_batch_size_per_gpu = null: give a number of rows, or set {path}.use_dynamic_bsz=true"


def _rounds_if_sound(config: Config) -> list[dict[str, int]]:
    """The kinds of step, where tags and filter are in order (other checks say what is not)."""
    if any(True for check in (check_tags, check_schedule, check_games, check_filter) for _ in check(config)):
        return []
    return rounds(config)


def check_filter(config: Config) -> Iterator[str]:
    try:
        filter_of(config)
    except ValueError as error:
        yield f"actor_rollout_ref.rollout: {error}"
    rollout = config["actor_rollout_ref"]["rollout"]
    value = rollout["rollout_filter_ratio"] if rollout["rollout_filter_value"] is None else rollout["rollout_filter_value"]
    if rollout["rollout_filter_strategy"] == "top_k_abs" and value != int(value):
        yield describe("actor_rollout_ref.rollout.rollout_filter_value", value, "a whole number of groups under top_k_abs")


def check_ranks(config: Config) -> Iterator[str]:
    tp = config["actor_rollout_ref"]["rollout"]["tensor_model_parallel_size"]
    path = "actor_rollout_ref.rollout.tensor_model_parallel_size"
    section = "rollout" if is_split(config) else "trainer"
    players = config[section]["n_gpus_per_node"]
    if players is None:
        return  # check_split says so
    if players % tp:
        yield (
            f"{path} = {tp} does not divide {section}.n_gpus_per_node = {players}: "
            "the ranks of one engine sit on one machine; use a divisor"
        )
        return
    past = _past_self(config) if tp > 1 and not any(check_games(config)) else None  # check_games says what is not in order
    if past:
        yield f"{path} = {tp}: the past self {past} plays over an engine of one rank; use 1, or another opponent"
    engines = rollout_ranks(config) // tp
    groups = config["es_manager"]["train"]["env_groups"]
    if groups < engines:
        yield (
            f"es_manager.train.env_groups = {groups}: whole groups are dealt to {engines} engines, some would play nothing; "
            f"use at least {engines} groups or fewer ranks"
        )


def _past_self(config: Config) -> str | None:
    """The first checkpoint that plays as an opponent."""
    players = (player for tag in used_tags(config) for player in players_of(config["custom_envs"], tag))
    return next((player["checkpoint"] for player in players if player.get("checkpoint")), None)


def check_lengths(config: Config) -> Iterator[str]:
    rollout, actor = config["actor_rollout_ref"]["rollout"], config["actor_rollout_ref"]["actor"]
    length, reply = rollout["max_model_len"], rollout["response_length"]
    path = "actor_rollout_ref.rollout"
    if reply >= length:
        yield f"{path}.response_length = {reply} leaves no room for a prompt in {path}.max_model_len = {length}: make the first smaller"
    for tag in used_tags(config):
        tokens = (config["custom_envs"].get(tag) or {}).get("max_tokens")
        if tokens and tokens >= length:
            yield f"custom_envs.{tag}.max_tokens = {tokens} leaves no room for a prompt in {path}.max_model_len = {length}"
    if rollout["max_num_batched_tokens"] < rollout["max_num_seqs"]:
        yield (
            f"{path}.max_num_batched_tokens = {rollout['max_num_batched_tokens']} is less than max_num_seqs = "
            f"{rollout['max_num_seqs']}: vLLM wants at least one token a sequence"
        )
    budgets = {
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": (actor["use_dynamic_bsz"], actor["ppo_max_token_len_per_gpu"]),
        "critic.ppo_max_token_len_per_gpu": (config["critic"]["use_dynamic_bsz"], config["critic"]["ppo_max_token_len_per_gpu"]),
        f"{path}.log_prob_max_token_len_per_gpu": (rollout["log_prob_use_dynamic_bsz"], rollout["log_prob_max_token_len_per_gpu"]),
    }
    forward = config["critic"]["forward_max_token_len_per_gpu"]
    if forward != config["critic"]["ppo_max_token_len_per_gpu"]:
        budgets["critic.forward_max_token_len_per_gpu"] = (config["critic"]["use_dynamic_bsz"], forward)
    for name, (dynamic, budget) in budgets.items():
        if dynamic and budget < length:
            yield f"{name} = {budget}: a trajectory may have {path}.max_model_len = {length} tokens and is never cut; use at least that"


def check_replies(config: Config) -> Iterator[str]:
    """Thoughts, and replies at their limit."""
    proxy, reply = config["agent_proxy"], config["actor_rollout_ref"]["rollout"]["response_length"]
    budget, buffer = proxy["max_think_tokens"], proxy["overlong_buffer"]["len"]
    if budget is not None and not proxy["enable_think"]:
        yield f"agent_proxy.max_think_tokens = {budget}, but agent_proxy.enable_think = false: there are no thoughts to limit; use null"
    limits = {"actor_rollout_ref.rollout.response_length": reply}
    for tag in used_tags(config):
        tokens = (config["custom_envs"].get(tag) or {}).get("max_tokens")
        if tokens:
            limits[f"custom_envs.{tag}.max_tokens"] = tokens
    for name, limit in limits.items():
        if budget is not None and budget >= limit:
            yield f"agent_proxy.max_think_tokens = {budget} leaves no room for an answer in {name} = {limit}: make the first smaller"
        if buffer > limit:
            yield f"agent_proxy.overlong_buffer.len = {buffer} is more than {name} = {limit}: use at most that"


# -- how it learns ----------------------------------------------------------------------------


def check_algorithm(config: Config) -> Iterator[str]:
    algorithm, actor = config["algorithm"], config["actor_rollout_ref"]["actor"]
    rollout = config["actor_rollout_ref"]["rollout"]
    yield from correction_checks.check(config)
    if actor["policy_loss"]["loss_mode"] == "dro" and not actor["policy_loss"]["dro_beta"]:
        yield "actor_rollout_ref.actor.policy_loss.dro_beta = null: loss_mode=dro needs its penalty's weight, a number above 0"
    keys, weights = algorithm["gdpo_reward_keys"], algorithm["gdpo_reward_weights"]
    if weights is not None and len(weights) != len(keys or []):
        yield f"algorithm.gdpo_reward_weights = {show(weights)}: give one weight for each of gdpo_reward_keys = {show(keys)}"
    if algorithm["use_kl_in_reward"] and actor["use_kl_loss"]:
        yield "algorithm.use_kl_in_reward and actor_rollout_ref.actor.use_kl_loss are both true: a KL term belongs in one place, set one to false"
    if config["trainer"]["critic_warmup"] and algorithm["adv_estimator"] not in CRITIC_ESTIMATORS:
        yield (
            f"trainer.critic_warmup = {config['trainer']['critic_warmup']}: {algorithm['adv_estimator']} has no critic to warm up; "
            "use 0, or adv_estimator=gae"
        )
    if rollout["temperature"] == 0:
        yield "actor_rollout_ref.rollout.temperature = 0: training needs sampled replies, members of a group would all be the same; use 1.0"


def check_resume(config: Config) -> Iterator[str]:
    trainer = config["trainer"]
    mode, source = trainer["resume_mode"], trainer["resume_from_path"]
    if mode == "resume_path" and not source:
        yield "trainer.resume_mode = resume_path needs trainer.resume_from_path, a folder global_step_N"
    elif mode == "resume_path" and not Path(source).is_dir():
        yield f"trainer.resume_from_path = {source}: there is no such folder; name a global_step_N of an earlier run"
    elif mode != "resume_path" and source:
        yield f"trainer.resume_from_path = {source} is ignored under resume_mode={mode}: set trainer.resume_mode=resume_path"


def check_checkpoints(config: Config) -> Iterator[str]:
    actors, critics = (config["trainer"][f"max_{kind}_ckpt_to_keep"] for kind in ("actor", "critic"))
    if actors is not None and critics is not None and critics > actors:
        yield (
            f"trainer.max_critic_ckpt_to_keep = {critics} is more than trainer.max_actor_ckpt_to_keep = {actors}: a critic lies "
            f"beside its actor and goes with it; use at most {actors}, or null"
        )


def check_collapse(config: Config) -> Iterator[str]:
    section = config["collapse_detection"]
    on = [name for name in ("first_turn_enabled", "multi_turn_enabled") if section[name]]
    if on and not config["agent_proxy"]["enable_think"]:
        yield (
            f"collapse_detection.{on[0]} = true looks at thoughts, but agent_proxy.enable_think = false: "
            "set one of them otherwise"
        )
    if "first_turn_enabled" in on and config["es_manager"]["train"]["env_groups"] < 2:
        yield (
            "collapse_detection.first_turn_enabled = true compares prompts, but es_manager.train.env_groups = 1: "
            "use 2 groups or more"
        )


CHECKS = (
    check_tags, check_schedule, check_games, check_filter, check_batch, check_ranks, check_lengths, check_replies, check_algorithm, check_resume,
    check_checkpoints, check_collapse,
    *split_checks.CHECKS,
)


def warnings(config: Config) -> Iterator[str]:
    """What will run but is probably not meant."""
    val = config["es_manager"]["val"]
    if val["group_size"] > 1 and not config["actor_rollout_ref"]["rollout"]["val_kwargs"]["do_sample"]:
        yield f"es_manager.val.group_size = {val['group_size']} with val_kwargs.do_sample=false: members of a group will be the same"
    if config["actor_rollout_ref"]["actor"]["use_kl_loss"] and not config["actor_rollout_ref"]["actor"]["kl_loss_coef"]:
        yield "actor_rollout_ref.actor.use_kl_loss is true with kl_loss_coef = 0: the term costs a reference and does nothing"
    rollout = config["actor_rollout_ref"]["rollout"]
    whole = config["agent_proxy"]["max_turn"] * rollout["response_length"]
    if whole >= rollout["max_model_len"]:
        yield (
            f"agent_proxy.max_turn x rollout.response_length = {whole} tokens fill max_model_len = {rollout['max_model_len']}: "
            "long trajectories will end as truncated"
        )
    if config["schedule"]["type"] == "mixed" and len(config["schedule"]["tags"]) == 1:
        yield "schedule.type = mixed with one tag is the same as single"
