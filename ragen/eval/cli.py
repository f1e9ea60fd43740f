"""What all scripts of ``reason_test`` share on their command line."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ragen.eval import protocol

#: used where neither the command line nor ``--config`` says otherwise
DEFAULTS = {
    "system_prompt": "You're a helpful assistant. ",
    "think": True,
    "temperature": 0.5,
    "top_p": 1.0,
    "top_k": -1,
    "max_tokens": 600,
    "max_model_len": None,
    "max_num_seqs": 256,
    "max_turn": None,
    "window": 0,
    "forfeit_on_invalid": False,
}


@dataclass(frozen=True)
class Settings:
    """A parsed command line. ``max_model_len`` (tokens, ``None``: what the model can, at most 8192) and
    ``max_turn`` (``None``: the benchmark's) come from the command line, else from the run's config, else
    from :data:`DEFAULTS`; ``dtype`` ``None`` is float32 on a CPU and bfloat16 on a GPU."""

    output: str
    model_path: str | None = None
    api: str | None = None
    scripted: str | None = None
    seed: int = 0
    limit: int | None = None
    chunk_size: int = 512
    temperature: float = 0.5
    top_p: float = 1.0
    top_k: int = -1
    max_tokens: int = 600
    max_turn: int | None = None
    window: int = 0
    forfeit_on_invalid: bool = False
    system_prompt: str = ""
    think: bool = True
    chat_template_kwargs: dict[str, Any] | None = None
    engine: str = "vllm"
    dtype: str | None = None
    max_model_len: int | None = None
    max_num_seqs: int = 256
    gpu_memory_utilization: float = 0.9
    kv_cache_memory_bytes: int | None = None
    enforce_eager: bool = False
    trust_remote_code: bool = False
    base_url: str | None = None
    port: int | None = None
    provider: str | None = None
    max_concurrency: int = 32
    timeout_s: float = 120.0
    retries: int = 4

    @property
    def sampling(self) -> dict[str, Any]:
        """What a result says of its sampling."""
        return {key: getattr(self, key) for key in ("temperature", "top_p", "top_k", "max_tokens")}


def add_common(parser: argparse.ArgumentParser) -> None:
    who = parser.add_argument_group("who replies (one of three)").add_mutually_exclusive_group(required=True)
    who.add_argument("--model_path", help="Hugging Face folder (scripts/merge.sh makes one of a checkpoint) or a name of the hub")
    who.add_argument("--api", metavar="MODEL", help="a model behind an OpenAI-compatible server")
    who.add_argument(
        "--scripted", metavar="NAME", help="a rule instead of a model: random, perfect (what a score must be compared to)"
    )
    run = parser.add_argument_group("the run")
    run.add_argument("--output", required=True, help="FILE.json, or a folder; a run that was killed goes on where it was")
    run.add_argument(
        "--seed", type=int, default=0, help="of the evaluation's games and samples; never meets training's (default 0)"
    )
    run.add_argument("--limit", type=int, help="only the first N questions or games")
    run.add_argument(
        "--chunk_size", type=int, default=512, help="questions or games finished together and kept if killed (default 512)"
    )
    run.add_argument(
        "--config", type=Path, help="config.yaml of a training run: prompts, limits and sampling as in its validation"
    )
    run.add_argument(
        "--protocol", choices=protocol.PROTOCOLS, default=protocol.GIFT,
        help="paper: games end at the first invalid reply, questions are read in the answer block alone, sampling as in "
        "the paper (docs/fidelity.md); gift: our own rules (default)",
    )  # fmt: skip
    prompt = parser.add_argument_group("prompt and sampling")
    prompt.add_argument(
        "--think",
        action=argparse.BooleanOptionalAction,
        help="replies are <think>..</think><answer>..</answer>, or the answer alone (default: think)",
    )
    prompt.add_argument("--system_prompt", help="as in training by default; '' for none")
    prompt.add_argument(
        "--chat_template_kwargs", type=json_object, metavar="JSON", help="of the model's chat template, e.g. '{\"enable_thinking\": false}'"
    )
    prompt.add_argument("--temperature", type=float, help="0 is greedy (default 0.5, the paper's)")
    prompt.add_argument("--top_p", type=float)
    prompt.add_argument("--top_k", type=int)
    prompt.add_argument("--max_tokens", type=int, help="most tokens of a reply (default 600)")
    _add_engine(parser)
    _add_api(parser)


def json_object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(text)
    return value


def _add_engine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("engine (--model_path)")
    group.add_argument("--engine", choices=("vllm", "hf"), default="vllm")
    group.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: float32 on a CPU, bfloat16 on a GPU")
    group.add_argument(
        "--max_model_len", type=int, help="prompt and reply, in tokens (default: what the model can, at most 8192)"
    )
    group.add_argument("--max_num_seqs", type=int, help="requests generated side by side (default 256)")
    group.add_argument("--gpu_memory_utilization", type=float, default=0.9)
    group.add_argument("--kv_cache_memory_bytes", type=int, help="on a CPU (default 256 MiB)")
    group.add_argument("--enforce_eager", action="store_true")
    group.add_argument("--trust_remote_code", action="store_true")


def _add_api(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("server (--api); keys as for remote opponents: PROVIDER_API_KEY or api-keys.json")
    group.add_argument("--base_url", help="up to and including /v1")
    group.add_argument("--port", type=int, help="a server on this machine")
    group.add_argument("--provider", help="deepseek, openrouter, dmx")
    group.add_argument("--max_concurrency", type=int, default=32)
    group.add_argument("--timeout_s", type=float, default=120.0)
    group.add_argument("--retries", type=int, default=4)


def settings_from(args: argparse.Namespace) -> Settings:
    """The command line over ``--config`` over the defaults; under ``--protocol paper`` its fixed values. Raises ``ValueError`` naming what is wrong."""
    known = set(Settings.__dataclass_fields__)
    given = {key: value for key, value in vars(args).items() if key in known and value is not None}
    layers = {**DEFAULTS, **(_from_run_config(args.config) if args.config else {}), **given}
    settings = Settings(**protocol.settings_of(args.protocol, layers, given))
    for key in ("limit", "chunk_size", "max_tokens", "max_num_seqs"):
        value = getattr(settings, key)
        if value is not None and value < 1:
            raise ValueError(f"--{key} must be at least 1, got {value}")
    if settings.temperature < 0:
        raise ValueError(f"--temperature must be 0 (greedy) or above, got {settings.temperature}")
    return settings


def _from_run_config(path: Path) -> dict[str, Any]:
    """What a training run's validation plays with, out of its ``config.yaml``."""
    if not path.is_file():
        raise FileNotFoundError(f"--config: there is no file {path}; give the config.yaml in a run's folder")
    config = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    try:
        rollout, proxy = config["actor_rollout_ref"]["rollout"], config["agent_proxy"]
        val = rollout["val_kwargs"]
        return {
            "system_prompt": config["ctx_manager"]["system_prompt"],
            "think": proxy["enable_think"],
            "chat_template_kwargs": (config.get("data") or {}).get("apply_chat_template_kwargs"),
            "max_turn": proxy["max_turn"],
            "window": max(int(proxy["max_context_window"]), 0),
            "forfeit_on_invalid": bool(proxy.get("forfeit_on_invalid", False)),
            "max_tokens": rollout["response_length"],
            "max_model_len": rollout["max_model_len"],
            "max_num_seqs": rollout["max_num_seqs"],
            "temperature": val["temperature"] if val["do_sample"] else 0.0,
            "top_p": val["top_p"],
            "top_k": val["top_k"],
        }
    except (KeyError, TypeError) as error:
        raise ValueError(f"--config: {path} is not the config.yaml of a training run (it lacks {error})") from None


def say(text: str) -> None:
    """To the person at the terminal."""
    print(text, flush=True)


def run(main: Callable[[Sequence[str] | None], Any], argv: Sequence[str] | None = None) -> int:
    """A script's entry: quiet libraries, errors as sentences. Exit status 0; 2 for what the user must mend, 3
    where a benchmark has no data on this machine, 130 on Ctrl-C."""
    from ragen.eval.data import NoData

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a busy core makes generation ten times slower
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("ragen").setLevel(logging.INFO)
    try:
        main(argv)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 3 if isinstance(error, NoData) else 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    return 0
