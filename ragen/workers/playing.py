"""The playing half of a worker: a rollout engine and the episodes over it, in one process."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch.distributed as dist
from omegaconf import OmegaConf

from ragen.llm_agent.agent_proxy import AgentProxy
from ragen.llm_agent.ctx_manager import ChatTokens
from ragen.llm_agent.episode import EpisodeLimits, EpisodeSpec, Sampling
from ragen.llm_agent.es_manager import Tag
from ragen.llm_agent.overlong import OverlongRule
from ragen.llm_agent.trajectory import Trajectory
from ragen.players.factory import PlayerFactory
from ragen.players.policy import PastSelfPlayer
from verl.model_merger import MergeConfig, merge
from verl.single_controller.base.decorator import Dispatch, register
from verl.utils.import_utils import import_external_libs
from verl.utils.tokenizer import hf_tokenizer
from verl.workers.rollout import build_engine
from verl.workers.rollout.mirror import LeadingEngine, follow

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlayOrder:
    """What one rank is told to play. ``success_rates``: the driver's memory of past episodes, by tag."""

    specs: list[EpisodeSpec]
    tags: Mapping[str, Tag]
    sampling: Sampling
    success_rates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def chat_of(config, tokenizer) -> ChatTokens:
    """The chat of a run. Raises ``ValueError`` where its template cannot be played with, and says how it can."""
    kwargs = OmegaConf.to_container(config.data.apply_chat_template_kwargs, resolve=True)
    chat = ChatTokens(tokenizer, system_prompt=config.ctx_manager.system_prompt, template_kwargs=kwargs)
    chat.check_form(bool(config.agent_proxy.enable_think))
    return chat


def episode_limits(config, max_model_len: int) -> EpisodeLimits:
    """The limits that a run's config sets for its episodes."""
    section = config.agent_proxy
    return EpisodeLimits(
        max_turn=int(section.max_turn),
        max_model_len=max_model_len,
        enable_think=bool(section.enable_think),
        format_penalty=float(config.es_manager.format_penalty),
        window=max(int(section.max_context_window), 0),
        max_think_tokens=section.max_think_tokens,
        overlong=OverlongRule(section.overlong_replies, int(section.overlong_buffer.len), float(section.overlong_buffer.penalty_factor)),
        forfeit_on_invalid=bool(section.forfeit_on_invalid),
    )


class PlayingMixin:
    """What every worker that plays has. Beside it stands a :class:`Worker` whose process has a default group.

    Attributes that the worker sets: ``run_config`` (the whole run's) and ``config`` (its ``actor_rollout_ref``).
    """

    proxy: AgentProxy | None = None
    #: of the engine's weights; every trajectory carries it, and differences count updates
    policy_version: int = 0

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_engine(self) -> None:
        """Start the engine from the model's folder; its weights are the trainer's after the first sync."""
        config, model = self.run_config, self.config.model
        import_external_libs(model.get("external_lib"))  # a worker that only plays has not done so yet
        trust = bool(model.get("trust_remote_code", False))
        tokenizer = hf_tokenizer(model.path, trust_remote_code=trust)
        self.engine = build_engine(
            self.config.rollout, model.path, trust_remote_code=trust, seed=int(config.seed.train),
            keep_torch_compile=bool(self.config.actor.get("use_torch_compile", False)), log_file=self._engine_log,
        )  # fmt: skip
        self._join_tensor_parallel_group(int(self.config.rollout.get("tensor_model_parallel_size", 1)))
        limits = episode_limits(config, int(self.config.rollout.max_model_len))
        chat = chat_of(config, tokenizer)
        self.proxy = AgentProxy([self.leader or self.engine], chat, PlayerFactory(self._past_self), limits)

    def _past_self(self, entry: dict) -> PastSelfPlayer:
        """A player over an engine of its own with the weights of ``entry["checkpoint"]``: a Hugging Face
        folder, or the ``actor`` folder of a checkpoint of this project, which is merged first."""
        rollout = self.config.rollout
        if int(rollout.get("tensor_model_parallel_size", 1)) > 1:
            raise ValueError("player_info {type: policy, checkpoint: ...} needs rollout.tensor_model_parallel_size=1")
        with hf_folder(entry["checkpoint"]) as folder:
            engine = build_engine(
                rollout, str(folder), role="past_self", trust_remote_code=bool(self.config.model.get("trust_remote_code", False)),
                log_file=self._engine_log, seed=int(self.run_config.seed.train),
            )  # fmt: skip
        self.proxy.engines.append(engine)
        return PastSelfPlayer(
            entry.get("name") or f"past:{Path(entry['checkpoint']).name}", len(self.proxy.engines) - 1, self.proxy.chat,
            max_tokens=int(rollout.response_length), enable_think=self.proxy.limits.enable_think,
            temperature=float(entry.get("temperature", rollout.temperature)),
        )  # fmt: skip

    @property
    def _engine_log(self) -> str:
        """Where the engines of this rank log on a GPU."""
        return str(Path(self.run_config.trainer.default_local_dir, "logs", f"engine_rank{self.rank}.log"))

    def _join_tensor_parallel_group(self, size: int) -> None:
        self.leader, self.follows = None, None
        if size == 1:
            return
        for first in range(0, self.world_size, size):  # every rank takes part in making every group
            group = dist.new_group(list(range(first, first + size)), backend="gloo")
            if first <= self.rank < first + size:
                if self.rank == first:
                    self.leader = LeadingEngine(self.engine, group, first)
                else:
                    self.follows = (group, first)

    @register(dispatch_mode=Dispatch.DP_COMPUTE)
    def play(self, order: PlayOrder) -> tuple[list[Trajectory], dict[str, float]]:
        """Play this rank's episodes. Returns trajectories in (group, member) order, and counters.
        With tensor parallelism only the first rank of a group is given episodes."""
        started = time.perf_counter()
        if self.follows is not None:
            follow(self.engine, *self.follows)
            return [], {}
        trajectories = self.proxy.play(order.specs, order.tags, order.sampling, order.success_rates)
        for trajectory in trajectories:
            trajectory.policy_version = self.policy_version
        if self.leader is not None:
            self.leader.release()
        return trajectories, {"seconds": time.perf_counter() - started, **self.proxy.players.metrics()}


@contextlib.contextmanager
def hf_folder(checkpoint: str) -> Iterator[Path]:
    """``checkpoint`` as a Hugging Face folder: itself, or merged into a temporary one."""
    folder = Path(checkpoint)
    if not (folder / "huggingface").is_dir():
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="gift-past-self-") as scratch:
        merge(MergeConfig(local_dir=str(folder), target_dir=str(Path(scratch, "merged"))))
        yield Path(scratch, "merged")
