"""Who replies in an evaluation: a model over an engine, a model behind a server, or a rule."""

from __future__ import annotations

import functools
import logging
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ragen.eval.cli import Settings
from ragen.eval.results import hash_model
from ragen.eval.text_chat import TextChat
from ragen.llm_agent.agent_proxy import AgentProxy
from ragen.llm_agent.ctx_manager import ChatTokens
from ragen.llm_agent.episode import Agent, Episode, EpisodeLimits
from ragen.players.base import Pending, Player, SeatView
from ragen.players.factory import PlayerFactory
from verl.workers.rollout.base import Reply, RolloutEngine, SamplingParams

logger = logging.getLogger(__name__)

_LONGEST = 8192  # default limit of prompt plus reply, in tokens
_NO_LIMIT = 10**9  # of a text chat, whose "tokens" are bytes


@dataclass
class ModelReplier:
    """A model in this process."""

    engine: RolloutEngine
    chat: ChatTokens
    identity: dict[str, Any]

    def proxy(self, limits: dict[str, Any]) -> AgentProxy:
        """Plays games exactly as a training worker does."""
        return AgentProxy([self.engine], self.chat, PlayerFactory(), EpisodeLimits(max_model_len=self.engine.max_model_len, **limits))

    def new_chunk(self) -> None:
        """Forget what earlier chunks left behind, so that a resumed run's are bit for bit the same."""
        self.engine.reset_prefix_cache()

    def close(self) -> None:
        self.engine.close()


@dataclass
class ScriptedReplier:
    """A rule in the model's place: the same prompts, parsing and scoring around it."""

    name: str
    chat: TextChat
    identity: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.identity = {"kind": "scripted", "name": self.name}

    def proxy(self, limits: dict[str, Any]) -> AgentProxy:
        make = functools.partial(PlayerEpisode, name=self.name)
        return AgentProxy([], self.chat, PlayerFactory(), EpisodeLimits(max_model_len=_NO_LIMIT, **limits), make)

    def new_chunk(self) -> None:
        pass

    def close(self) -> None:
        pass


class PlayerEpisode(Episode):
    """An episode whose trained seat is taken by the scripted player ``name`` of its game."""

    def __init__(self, *args: Any, name: str):
        super().__init__(*args)
        self._scripted = name

    async def _sample(self, agent: Agent, seat: int, prompt: list[int], params: SamplingParams) -> Reply:
        env_type = getattr(self.env, "current_env_type", self.spec.env_type)
        player: Player = self.make_player({"type": "scripted", "name": self._scripted}, env_type)
        view = SeatView(
            env_type=env_type, seat=seat, seed=self.spec.seed, rules=self.env.rules(seat), observation=self.env.observe(seat),
            feedback=agent.feedback, public=self.env.public(seat), legal=self.env.legal(seat), attempt=_refused_in_a_row(agent),
        )  # fmt: skip
        thought = "<think></think>" if self.limits.enable_think else ""
        return _text_reply(f"{thought}<answer>{await player.reply(view)}</answer>")


@dataclass
class ApiReplier:
    """A model behind an OpenAI-compatible server (:mod:`ragen.eval.api`)."""

    client: Any
    chat: TextChat
    identity: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.identity = {"kind": "api", "name": self.client.model, "url": self.client.url}

    def proxy(self, limits: dict[str, Any]) -> AgentProxy:
        make = functools.partial(ApiEpisode, client=self.client)
        return AgentProxy([], self.chat, PlayerFactory(), EpisodeLimits(max_model_len=_NO_LIMIT, **limits), make)

    def new_chunk(self) -> None:
        pass

    def close(self) -> None:
        pass


class ApiEpisode(Episode):
    """An episode whose trained seat is played by a server's model, the whole conversation sent each turn."""

    def __init__(self, *args: Any, client: Any):
        super().__init__(*args)
        self._client = client

    async def _sample(self, agent: Agent, seat: int, prompt: list[int], params: SamplingParams) -> Reply:
        messages = self.chat.messages(agent.conversation.turns)
        future: Future = self._client.ask(messages, params)
        try:
            return _text_reply(await Pending(future))
        finally:
            future.cancel()  # an episode that is closed while it waits


def make_replier(settings: Settings) -> ModelReplier | ScriptedReplier | ApiReplier:
    """The replier that a command line names. Raises ``ValueError`` or ``FileNotFoundError`` if it cannot be had."""
    if settings.scripted:
        return ScriptedReplier(settings.scripted, TextChat(settings.system_prompt))
    if settings.api:
        from ragen.eval.api import ApiClient

        return ApiReplier(ApiClient(settings), TextChat(settings.system_prompt))
    return _model_replier(settings)


def _model_replier(settings: Settings) -> ModelReplier:
    import torch
    from omegaconf import OmegaConf
    from transformers import AutoConfig

    from verl.utils.tokenizer import hf_tokenizer
    from verl.workers.rollout import build_engine

    folder = model_folder(settings.model_path)
    trust = settings.trust_remote_code
    tokenizer = hf_tokenizer(str(folder), trust_remote_code=trust)
    able = getattr(AutoConfig.from_pretrained(folder, trust_remote_code=trust).get_text_config(), "max_position_embeddings", None)
    length = settings.max_model_len or min(able or _LONGEST, _LONGEST)
    if able and length > able:
        raise ValueError(f"--max_model_len {length}: {folder} was made for at most {able} tokens")
    dtype = settings.dtype or ("bfloat16" if torch.cuda.is_available() else "float32")
    rollout = {
        "name": settings.engine, "dtype": dtype, "max_model_len": length, "tensor_model_parallel_size": 1,
        "gpu_memory_utilization": settings.gpu_memory_utilization, "kv_cache_memory_bytes": settings.kv_cache_memory_bytes,
        "block_size": None if torch.cuda.is_available() else 32, "max_num_seqs": settings.max_num_seqs,
        "enforce_eager": settings.enforce_eager,
    }  # fmt: skip
    engine = build_engine(OmegaConf.create(rollout), str(folder), trust_remote_code=trust, seed=settings.seed)
    identity = {"kind": "model", "name": settings.model_path, "hash": hash_model(folder), "dtype": dtype,
                "engine": settings.engine, "max_model_len": length, "max_num_seqs": settings.max_num_seqs}  # fmt: skip
    return ModelReplier(engine, ChatTokens(tokenizer, system_prompt=settings.system_prompt), identity)


def model_folder(name: str) -> Path:
    """The folder of a model: ``name`` itself, or where the hub's model ``name`` lies (downloaded if need be)."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise FileNotFoundError(f"--model_path: there is no folder {name}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]))
    except Exception as error:  # noqa: BLE001  the hub's client raises many kinds; all mean the same here
        raise FileNotFoundError(f"--model_path: {name} is neither a folder nor a model that the hub gives ({type(error).__name__}: {error})") from None


def _text_reply(text: str) -> Reply:
    ids = list(text.encode())
    return Reply("", ids, [0.0] * len(ids), cut=False)


def _refused_in_a_row(agent: Agent) -> int:
    count = 0
    for turn in reversed(agent.turns):
        if turn.valid:
            break
        count += 1
    return count
