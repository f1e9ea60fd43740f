"""What a configuration amounts to: groups x members = episodes -> kept -> mini-batches -> micro-batches.

Plain arithmetic over a checked configuration (a plain dict): no torch, no Ray, nothing is started.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ragen.env import env_class
from ragen.trainer.rollout_filter import filter_of, select_groups


@dataclass(frozen=True)
class TagPlan:
    """One tag of a step: ``groups`` of it, ``opponents`` in words, ``seats`` whose tokens are trained."""

    tag: str
    env_type: str
    groups: int
    opponents: str
    seats: int = 1


@dataclass(frozen=True)
class StepPlan:
    """One kind of step. Counts are of the whole step, over all ranks.

    ``kept_groups`` is exact where the filter keeps a fixed number, else the most it may keep
    (``kept_exact``). ``mini_batches``: trajectories of each mini-batch of an epoch, the last may be
    smaller. ``micro_batches``: the most a rank cuts its share of a mini-batch into; ``None`` where
    they are cut by tokens (``token_budget`` each).
    """

    tags: tuple[TagPlan, ...]
    group_size: int
    kept_groups: int
    kept_exact: bool
    kept: int
    mini_batches: tuple[int, ...]
    micro_batches: int | None
    token_budget: int | None

    @property
    def groups(self) -> int:
        return sum(t.groups for t in self.tags)

    @property
    def episodes(self) -> int:
        return self.groups * self.group_size

    @property
    def trajectories(self) -> int:
        return sum(t.groups * t.seats for t in self.tags) * self.group_size


@dataclass(frozen=True)
class ResolvedPlan:
    """A run as it will be: ``steps`` holds one entry, or one a sub-task under ``cst``."""

    name: str
    model_path: str
    device: str
    ranks: int
    nodes: int
    tensor_parallel: int
    engine: str
    adv_estimator: str
    max_turn: int
    ppo_epochs: int
    schedule: str
    k_list: tuple[int, ...] | None
    steps: tuple[StepPlan, ...]
    validation: tuple[TagPlan, ...]
    val_group_size: int
    total_training_steps: int
    test_freq: int
    save_freq: int
    folder: str
    warnings: tuple[str, ...] = ()
    split_ranks: int = 0  # rollout workers of their own; 0: the ranks play themselves
    split_nodes: int = 1
    rollout_ahead: int = 0

    @property
    def rollout_ranks(self) -> int:
        return self.split_ranks or self.ranks

    @property
    def engines(self) -> int:
        return self.rollout_ranks // self.tensor_parallel

    def lines(self) -> list[str]:
        """The plan in words, a fact a line; the same config always gives the same lines."""
        tp = f", {self.tensor_parallel} to an engine" if self.tensor_parallel > 1 else ""
        out = [f"run          {self.name}: {self.model_path}, {self.adv_estimator}"]
        ranks = f"{self.ranks} x {self.device}{_on_nodes(self.nodes)}"
        if not self.split_ranks:
            out.append(f"ranks        {ranks}{tp}; engine {self.engine}")
        else:
            ahead = "a step is played while the one before is updated" if self.rollout_ahead else "they play and train in turn"
            out.append(f"ranks        {ranks} train")
            players = f"{self.split_ranks} x {self.device}{_on_nodes(self.split_nodes)}"
            out.append(f"rollout      {players} play{tp}; engine {self.engine}; {ahead}")
        for i, step in enumerate(self.steps):
            head = "step         "
            if self.k_list:
                head = f"steps        {self.k_list[i]} of each {sum(self.k_list)}: "
            out.append(f"{head}{_tags(step.tags, step.group_size)} = {step.episodes} episodes, max_turn {self.max_turn}")
            out.append(f"update       {_update(step, self)}")
        for tag in dict.fromkeys(t for step in self.steps for t in step.tags):
            if tag.opponents:
                out.append(f"opponents    {tag.tag}: {tag.opponents}")
        every = f"every {self.test_freq} steps" if self.test_freq > 0 else "never while training"
        out.append(f"validation   {_tags(self.validation, self.val_group_size)}, {every}")
        save = f"every {self.save_freq} steps" if self.save_freq > 0 else "at the end"
        out.append(f"length       {self.total_training_steps} steps, checkpoint {save}, in {self.folder}")
        return out

    def __str__(self) -> str:
        return "\n".join(self.lines())


def _on_nodes(nodes: int) -> str:
    return f" on {nodes} nodes" if nodes > 1 else ""


def _tags(tags: tuple[TagPlan, ...], members: int) -> str:
    return ", ".join(f"{t.tag} {t.groups} groups x {members}" for t in tags)


def _update(step: StepPlan, plan: ResolvedPlan) -> str:
    most = "" if step.kept_exact else "at most "
    minis = step.mini_batches
    sizes = f"{len(minis)} mini-batches of {minis[0]}" if len(minis) > 1 else f"1 mini-batch of {minis[0]}"
    if minis[-1] != minis[0]:
        sizes = f"{len(minis) - 1} of {minis[0]} and 1 of {minis[-1]}"
    share = -(-minis[0] // plan.ranks)
    if step.micro_batches is None:
        micro = f"micro-batches of at most {step.token_budget} tokens"
    else:
        micro = f"{step.micro_batches} micro-batches"
    epochs = f", {plan.ppo_epochs} epochs" if plan.ppo_epochs > 1 else ""
    return f"{most}{step.kept_groups} groups kept = {step.kept} trajectories -> {sizes}{epochs} -> {share} a rank in {micro}"


# -- from a configuration ---------------------------------------------------------------------


def is_split(config: Mapping[str, Any]) -> bool:
    """Whether rollout workers of their own play."""
    return not config["actor_rollout_ref"]["hybrid_engine"]


def rollout_ranks(config: Mapping[str, Any]) -> int:
    """Processes that play."""
    section = config["rollout"] if is_split(config) else config["trainer"]
    return section["nnodes"] * section["n_gpus_per_node"]


def bypasses_old_log_probs(config: Mapping[str, Any]) -> bool:
    """Whether old log-probabilities are the engine's (VeRL's ``bypass_mode``): as asked, and where nothing is asked
    with ``rollout_ahead``, whose episodes an older policy played, unless importance weights make up for that."""
    correction = config["algorithm"]["rollout_correction"]
    if correction["bypass_mode"] is not None:
        return correction["bypass_mode"]
    return config["trainer"]["rollout_ahead"] > 0 and not (correction["rollout_is"] or correction["rollout_rs"])


def groups_per_tag(env: Mapping[str, Any]) -> dict[str, int]:
    """``es_manager.train`` or ``.val`` -> groups of each tag (``n_groups: null``: equal shares)."""
    tags, counts = env["env_configs"]["tags"], env["env_configs"]["n_groups"]
    if counts is None:
        counts = [env["env_groups"] // len(tags)] * len(tags)
    return dict(zip(tags, counts, strict=True))


def rounds(config: Mapping[str, Any]) -> list[dict[str, int]]:
    """What the kinds of step play, tag -> groups: one entry, or one a sub-task under ``cst``."""
    train = config["es_manager"]["train"]
    if config["schedule"]["type"] == "cst":
        return [{tag: train["env_groups"]} for tag in config["schedule"]["tags"]]
    return [groups_per_tag(train)]


def kept_groups(config: Mapping[str, Any], groups: Mapping[str, int]) -> tuple[int, bool]:
    """How many of ``groups`` (tag -> number) the rollout filter keeps, and whether always exactly so many.

    Fixed for ``top_k`` and ``top_k_abs`` (``ragen.trainer.rollout_filter``); ``top_p`` and ``min_p`` go by
    the scores and may keep all of them.
    """
    rule = filter_of(config)
    fixed = rule.strategy in ("top_k", "top_k_abs") or (rule.strategy == "top_p" and rule.value >= 1)
    pools = list(groups.values()) if rule.by_tag else [sum(groups.values())]
    # distinct scores stand for any: a rank-based rule keeps the same number of them
    kept = sum(len(select_groups(range(1, n + 1), rule)) if fixed else n for n in pools)
    return kept, fixed and rule.include_zero


def describe_players(player_info: Any) -> str:
    """``player_info`` in a few words, empty for none; no address, no key."""
    names = []
    for player in player_info or ():
        kind = player.get("type")
        if kind == "policy":
            names.append(f"past self ({player['checkpoint']})" if player.get("checkpoint") else "self")
        elif kind == "scripted":
            rate = f" {player['error_rate']}" if "error_rate" in player else ""
            names.append(f"scripted {player.get('name')}{rate}")
        else:
            where = player.get("provider") or (f"port {player['port']}" if "port" in player else "remote")
            names.append(f"{player.get('model_name')} ({where})")
    return ", ".join(dict.fromkeys(names))


def leaf_specs(custom_envs: Mapping[str, Any], spec: str | Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The plain games of an entry of ``custom_envs`` (or its tag), in order: a nest's sub-tasks, tags or
    entries of their own, opened up; of a plain game, itself."""
    if isinstance(spec, str):
        spec = custom_envs.get(spec) or {}
    nested = (spec.get("env_config") or {}).get("base_env_list")
    return [leaf for sub in nested for leaf in leaf_specs(custom_envs, sub)] if nested else [spec]


def _own_players(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(spec.get("player_info") or (spec.get("env_config") or {}).get("player_info") or ())


def players_of(custom_envs: Mapping[str, Any], tag: str) -> list[Mapping[str, Any]]:
    """The ``player_info`` entries of a tag; of a nest, those of all its sub-tasks."""
    return [player for spec in leaf_specs(custom_envs, tag) for player in _own_players(spec)]


def trained_seats(custom_envs: Mapping[str, Any], tag: str) -> int:
    """Trajectories of one episode of a tag: the trained seat's, and one for each seat of self-play."""
    return max(_leaf_seats(spec) for spec in leaf_specs(custom_envs, tag))


def _leaf_seats(spec: Mapping[str, Any]) -> int:
    own = [p.get("type") == "policy" and not p.get("checkpoint") for p in _own_players(spec)]
    if not any(own):
        return 1
    others = env_class(spec["env_type"]).seats - 1
    return 1 + sum(own[min(i, len(own) - 1)] for i in range(others))


def _tag_plan(config: Mapping[str, Any], tag: str, groups: int) -> TagPlan:
    envs = config["custom_envs"]
    return TagPlan(tag, envs[tag]["env_type"], groups, describe_players(players_of(envs, tag)), trained_seats(envs, tag))


def step_plan(config: Mapping[str, Any], groups: Mapping[str, int], ranks: int) -> StepPlan:
    """One step that plays ``groups`` (tag -> number)."""
    tags = tuple(_tag_plan(config, tag, n) for tag, n in groups.items())
    size = config["es_manager"]["train"]["group_size"]
    actor = config["actor_rollout_ref"]["actor"]
    kept, exact = kept_groups(config, groups)
    trajectories = kept * size * max(t.seats for t in tags)
    mini = actor["ppo_mini_batch_size"]
    minis = tuple(min(mini, trajectories - i) for i in range(0, trajectories, mini))
    micro = None
    if not actor["use_dynamic_bsz"]:
        share = -(-minis[0] // ranks)
        micro = -(-share // actor["ppo_micro_batch_size_per_gpu"])
    budget = actor["ppo_max_token_len_per_gpu"] if actor["use_dynamic_bsz"] else None
    return StepPlan(tags, size, kept, exact, trajectories, minis, micro, budget)


def resolve(config: Mapping[str, Any], device: str, warnings: tuple[str, ...] = ()) -> ResolvedPlan:
    """The plan of a configuration that passed its checks; ``device``: ``cpu`` or ``cuda``."""
    trainer, rollout = config["trainer"], config["actor_rollout_ref"]["rollout"]
    env, schedule = config["es_manager"], config["schedule"]
    ranks = trainer["nnodes"] * trainer["n_gpus_per_node"]
    cst = schedule["type"] == "cst"
    return ResolvedPlan(
        name=trainer["experiment_name"],
        model_path=config["actor_rollout_ref"]["model"]["path"],
        device=device,
        ranks=ranks,
        nodes=trainer["nnodes"],
        tensor_parallel=rollout["tensor_model_parallel_size"],
        engine=rollout["name"],
        adv_estimator=config["algorithm"]["adv_estimator"],
        max_turn=config["agent_proxy"]["max_turn"],
        ppo_epochs=config["actor_rollout_ref"]["actor"]["ppo_epochs"],
        schedule=schedule["type"],
        k_list=tuple(schedule["k_list"]) if cst else None,
        steps=tuple(step_plan(config, groups, ranks) for groups in rounds(config)),
        validation=tuple(_tag_plan(config, tag, n) for tag, n in groups_per_tag(env["val"]).items()),
        val_group_size=env["val"]["group_size"],
        total_training_steps=trainer["total_training_steps"],
        test_freq=trainer["test_freq"],
        save_freq=trainer["save_freq"],
        folder=trainer["default_local_dir"],
        warnings=warnings,
        split_ranks=rollout_ranks(config) if is_split(config) else 0,
        split_nodes=config["rollout"]["nnodes"],
        rollout_ahead=trainer["rollout_ahead"],
    )
