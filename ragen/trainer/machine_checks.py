"""Checks against the machine a run is to start on: model folder, GPUs, packages, ports, opponents."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ragen.players.keys import load_keys
from ragen.trainer.config_checks import used_tags
from ragen.trainer.plan import is_split, players_of
from verl.utils.config_check import one_or_more
from verl.utils.gpus import visible_gpus

Config = Mapping[str, Any]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_TRACKER_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "swanlab": "swanlab"}


def resolve_device(config: Config) -> str:
    """``trainer.device`` with ``auto`` decided: ``cuda`` where this machine has a GPU, else ``cpu``."""
    asked = config["trainer"]["device"]
    return ("cuda" if visible_gpus() else "cpu") if asked == "auto" else asked


def check_device(config: Config, device: str) -> Iterator[str]:
    trainer = config["trainer"]
    rollout = config["actor_rollout_ref"]["rollout"]
    if device == "cpu":
        if rollout["tensor_model_parallel_size"] > 1:
            yield (
                f"actor_rollout_ref.rollout.tensor_model_parallel_size = {rollout['tensor_model_parallel_size']} "
                "needs GPUs: use 1 on a CPU"
            )
        if rollout["name"] == "vllm" and vllm_is_for_gpus():
            yield (
                "trainer.device = cpu, but the installed vLLM is its GPU build, which runs nowhere else: use "
                "actor_rollout_ref.rollout.name=hf (slow, runs anywhere), or install the CPU build"
            )
        return
    gpus = len(visible_gpus())
    if not gpus:
        yield (
            "trainer.device = cuda, but no GPU was found here (nvidia-smi, CUDA_VISIBLE_DEVICES): "
            "add +form=laptop for a run without one"
        )
        return
    shows = f"this machine shows {gpus} GPU{'s' if gpus > 1 else ''} (one rank each)"
    if trainer["n_gpus_per_node"] > gpus:
        yield (
            f"trainer.n_gpus_per_node = {trainer['n_gpus_per_node']}, but {shows}: "
            f"use trainer.n_gpus_per_node={gpus}, or trainer.device=cpu"
        )
    elif is_split(config) and not (os.environ.get("RAY_ADDRESS") or config["ray_kwargs"]["ray_init"]["address"]):
        players = config["rollout"]["n_gpus_per_node"]
        if trainer["n_gpus_per_node"] + players > gpus:
            yield (
                f"trainer.n_gpus_per_node = {trainer['n_gpus_per_node']} and rollout.n_gpus_per_node = {players}, but {shows}: "
                f"use at most {gpus} together, or join a cluster (RAY_ADDRESS)"
            )


def vllm_is_for_gpus() -> bool:
    """Whether the installed vLLM is a build for GPUs, told by its allocator; nothing is imported."""
    spec = importlib.util.find_spec("vllm")
    places = (spec and spec.submodule_search_locations) or ()
    return any(list(Path(place).glob("cumem_allocator*.so")) for place in places)


def looks_like_hub_id(path: str) -> bool:
    """``org/name`` that is no path of this machine."""
    return bool(_HUB_ID.fullmatch(path)) and not Path(path.split("/")[0]).is_dir()


def hub_snapshot(path: str) -> Path | None:
    """The folder of a hub model in this machine's cache, where there is one."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / f"models--{path.replace('/', '--')}" / "snapshots"
    found = sorted(p for p in cache.glob("*") if (p / "config.json").is_file()) if cache.is_dir() else []
    return found[-1] if found else None


def check_models(config: Config) -> Iterator[str]:
    seen = {"actor_rollout_ref.model.path (model_path)": config["actor_rollout_ref"]["model"]["path"]}
    if config["critic"]["model"]["path"] not in seen.values():
        seen["critic.model.path"] = config["critic"]["model"]["path"]
    for key, path in seen.items():
        yield from _check_model(key, path)


def _check_model(key: str, path: str) -> Iterator[str]:
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            hint = "; merge the checkpoint first (scripts/merge.sh)" if (folder / "actor").is_dir() or list(folder.glob("*.distcp")) else ""
            yield f"{key} = {path}: the folder holds no config.json, so it is no Hugging Face model{hint}"
        elif not list(folder.glob("*.safetensors")) and not list(folder.glob("*.bin")):
            yield f"{key} = {path}: the folder holds no weights (*.safetensors); copy them there"
    elif not looks_like_hub_id(path):
        yield (
            f"{key} = {path}: there is no such folder (looked in {Path.cwd()}); "
            "give a Hugging Face folder, or a hub name such as Qwen/Qwen2.5-1.5B-Instruct"
        )
    elif os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0", "false", "False") and hub_snapshot(path) is None:
        yield f"{key} = {path}: not in the local Hugging Face cache, and HF_HUB_OFFLINE is set; download it first or unset that"


def check_packages(config: Config) -> Iterator[str]:
    for name in one_or_more(config["trainer"]["logger"]):
        package = _TRACKER_PACKAGES.get(name)
        if package and importlib.util.find_spec(package) is None:
            yield f"trainer.logger holds {name}, which is not installed: pip install {package}, or take it out"
    if config["actor_rollout_ref"]["rollout"]["name"] == "vllm" and importlib.util.find_spec("vllm") is None:
        yield (
            "actor_rollout_ref.rollout.name = vllm, which is not installed: run scripts/install.sh, "
            "or use actor_rollout_ref.rollout.name=hf (slow, runs anywhere)"
        )


def check_ports(config: Config) -> Iterator[str]:
    ports = {
        "trainer.master_port": config["trainer"]["master_port"],
        "ray_kwargs.ray_init.dashboard_port": config["ray_kwargs"]["ray_init"]["dashboard_port"],
    }
    for key, port in ports.items():
        if port is not None and not _is_free(port):
            yield f"{key} = {port}: another process listens there; choose a free port, or null"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def check_opponents(config: Config) -> Iterator[str]:
    """Opponents served on this machine must answer on their port, a provider needs a key, a past self a folder."""
    met = set()
    for tag in used_tags(config):
        path = f"custom_envs.{tag}.env_config.player_info"
        for player in players_of(config["custom_envs"], tag):
            place = next(((key, player[key]) for key in ("port", "provider", "checkpoint") if player.get(key)), None)
            if place is None or place in met:
                continue
            met.add(place)
            kind, value = place
            if kind == "port" and not _answers(value):
                yield (
                    f"{path}: no opponent answers on port {value} of this machine; "
                    "start it with scripts/serve_opponent.sh, or name a scripted one"
                )
            elif kind == "provider":
                try:
                    load_keys(value, required=True)
                except ValueError as error:
                    yield f"{path}: {error}"
            elif kind == "checkpoint":
                yield from _check_model(f"{path} checkpoint", str(value))


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


CHECKS = (check_models, check_packages, check_ports, check_opponents)
