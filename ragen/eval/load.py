"""From a command line to a replier and to the players of the other seats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import OmegaConf
from transformers import AutoConfig

from ragen.eval.cli import Settings
from ragen.eval.repliers import ApiReplier, ModelReplier, ScriptedReplier, Seats
from ragen.eval.results import hash_model
from ragen.eval.text_chat import TextChat
from ragen.llm_agent.ctx_manager import ChatTokens
from ragen.players.base import Player
from ragen.players.factory import PlayerFactory, player_kind
from ragen.players.policy import PastSelfPlayer
from verl.utils.tokenizer import hf_tokenizer
from verl.workers.rollout import RolloutEngine, build_engine

_LONGEST = 8192  # default limit of prompt plus reply, in tokens


def make_replier(settings: Settings, share_gpu: int = 1) -> ModelReplier | ScriptedReplier | ApiReplier:
    """The replier that a command line names. ``share_gpu``: how many engines the GPU must hold. Raises
    ``ValueError`` or ``FileNotFoundError`` if it cannot be had."""
    if settings.scripted:
        return ScriptedReplier(settings.scripted, TextChat(settings.system_prompt))
    if settings.api:
        from ragen.eval.api import ApiClient

        return ApiReplier(ApiClient.from_settings(settings), TextChat(settings.system_prompt))
    folder = model_folder(settings.model_path, "--model_path")
    engine, chat, about = _engine(folder, settings, share_gpu)
    return ModelReplier(engine, chat, {"kind": "model", "name": settings.model_path, "hash": hash_model(folder), **about})


def seat_opponents(entries: Sequence[dict], settings: Settings) -> Seats:
    """Players for ``player_info`` entries, an engine for each checkpoint among them. Self-play of the
    evaluated model (``{type: policy}``) needs nothing."""
    folders = [e["checkpoint"] for e in entries if player_kind(e) == "policy" and e.get("checkpoint")]
    offset = 1 if settings.model_path else 0
    engines, players = [], {}
    for place, folder in enumerate(dict.fromkeys(folders)):
        engine, chat, _ = _engine(model_folder(folder, "--opponent checkpoint"), settings, len(set(folders)) + offset)
        engines.append(engine)
        players[folder] = PastSelfPlayer(
            Path(folder).name,
            offset + place,
            chat,
            max_tokens=settings.max_tokens,
            enable_think=settings.think,
            temperature=settings.temperature,
        )

    def past_self(entry: dict) -> Player:
        return players[entry["checkpoint"]]

    return Seats(PlayerFactory(past_self), engines)


def count_checkpoints(entries: Sequence[dict]) -> int:
    return len({e["checkpoint"] for e in entries if e.get("checkpoint")})


def _engine(folder: Path, settings: Settings, share_gpu: int) -> tuple[RolloutEngine, ChatTokens, dict]:
    trust, gpu = settings.trust_remote_code, torch.cuda.is_available()
    tokenizer = hf_tokenizer(str(folder), trust_remote_code=trust)
    able = getattr(AutoConfig.from_pretrained(folder, trust_remote_code=trust).get_text_config(), "max_position_embeddings", None)
    length = settings.max_model_len or min(able or _LONGEST, _LONGEST)
    if able and length > able:
        raise ValueError(f"--max_model_len {length}: {folder} was made for at most {able} tokens")
    about = {
        "dtype": settings.dtype or ("bfloat16" if gpu else "float32"), "engine": settings.engine,
        "max_model_len": length, "max_num_seqs": settings.max_num_seqs,
    }  # fmt: skip
    rollout = {
        "name": settings.engine, "dtype": about["dtype"], "max_model_len": length, "tensor_model_parallel_size": 1,
        "gpu_memory_utilization": settings.gpu_memory_utilization / share_gpu,
        "kv_cache_memory_bytes": settings.kv_cache_memory_bytes,
        "block_size": None if gpu else 32, "max_num_seqs": settings.max_num_seqs, "enforce_eager": settings.enforce_eager,
        "free_cache_engine": False,  # nothing to make room for, and vLLM lets one engine of a process sleep
    }  # fmt: skip
    engine = build_engine(OmegaConf.create(rollout), str(folder), trust_remote_code=trust, seed=settings.seed)
    if settings.chat_template_kwargs:
        about["chat_template_kwargs"] = settings.chat_template_kwargs
    chat = ChatTokens(tokenizer, system_prompt=settings.system_prompt, template_kwargs=settings.chat_template_kwargs)
    return engine, chat, about


def model_folder(name: str, option: str) -> Path:
    """The folder of a model: ``name`` itself, or where the hub's model ``name`` lies (downloaded if need be)."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise FileNotFoundError(f"{option}: there is no folder {name}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]))
    except Exception as error:  # noqa: BLE001  the hub's client raises many kinds; all mean the same here
        raise FileNotFoundError(
            f"{option}: {name} is neither a folder nor a model that the hub gives ({type(error).__name__}: {error})"
        ) from None
