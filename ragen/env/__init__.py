"""Registry of games: ``env_type`` (as in ``custom_envs.TAG.env_type``) -> env and config class.

Modules are imported on first use, so a game's own requirements are needed only by who plays it.
``register_env`` adds a game from outside the package.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import warnings
from typing import Any

from ragen.env.base import Env, Outcome, SeatOutcome, SoloEnv, Verdict, derived_rng

# `python -m ragen.env.NAME.env` runs a module that its package has imported already; runpy says so
warnings.filterwarnings("ignore", message=r"'ragen\.env\..*' found in sys\.modules", category=RuntimeWarning)

__all__ = [
    "Env", "Outcome", "SeatOutcome", "SoloEnv", "Verdict", "derived_rng",
    "REGISTERED_ENVS", "env_class", "env_config_class", "make_env", "register_env",
]

#: env_type -> "module:EnvClass:ConfigClass"
REGISTERED_ENVS: dict[str, str] = {
    "tictactoe": "ragen.env.tictactoe:TicTacToeEnv:TicTacToeConfig",
    "math_lv3to5": "ragen.env.math_lv3to5:MathEnv:MathConfig",
    "nash_new": "ragen.env.nash_new:NashEnv:NashConfig",
    "undercover": "ragen.env.undercover:UndercoverEnv:UndercoverConfig",
    "compose_new": "ragen.env.compose_new:ComposeEnv:ComposeConfig",
    "bandit": "ragen.env.bandit:BanditEnv:BanditConfig",
    "countdown": "ragen.env.countdown:CountdownEnv:CountdownConfig",
    "frozen_lake": "ragen.env.frozen_lake:FrozenLakeEnv:FrozenLakeConfig",
    "sokoban": "ragen.env.sokoban:SokobanEnv:SokobanConfig",
    "connect_four": "ragen.env.connect_four:ConnectFourEnv:ConnectFourConfig",
    "mmlu": "ragen.env.mmlu:MmluEnv:MmluConfig",
    "webshop": "ragen.env.webshop:WebShopEnv:WebShopConfig",
    "textarena": "ragen.env.adapters.textarena:TextArenaEnv:TextArenaConfig",
    "open_spiel": "ragen.env.adapters.open_spiel:OpenSpielEnv:OpenSpielConfig",
    "gymnasium": "ragen.env.adapters.gymnasium:GymnasiumTextEnv:GymnasiumConfig",
}


def register_env(env_type: str, target: str) -> None:
    """Add a game: ``register_env("my_game", "my_package.my_game:MyEnv:MyConfig")``."""
    if target.count(":") != 2:
        raise ValueError(f"register_env({env_type!r}): target must be 'module:EnvClass:ConfigClass', got {target!r}")
    REGISTERED_ENVS[env_type] = target


def _resolve(env_type: str) -> tuple[type[Env], type]:
    if env_type not in REGISTERED_ENVS:
        near = difflib.get_close_matches(env_type, REGISTERED_ENVS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown env_type {env_type!r}{hint} (known: {', '.join(sorted(REGISTERED_ENVS))})")
    module, env_name, config_name = REGISTERED_ENVS[env_type].split(":")
    mod = importlib.import_module(module)
    return getattr(mod, env_name), getattr(mod, config_name)


def env_class(env_type: str) -> type[Env]:
    return _resolve(env_type)[0]


def env_config_class(env_type: str) -> type:
    """The game's config dataclass."""
    return _resolve(env_type)[1]


def make_env(env_type: str, config: dict[str, Any] | None = None) -> Env:
    """Build the env ``env_type`` from keys of its config dataclass.

    Raises ``ValueError`` for an unknown env_type or config key, naming the nearest known one.
    """
    cls, config_cls = _resolve(env_type)
    known = {f.name for f in dataclasses.fields(config_cls)}
    for key in config or {}:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{env_type}: unknown env_config key {key!r}{hint} (known: {', '.join(sorted(known))})")
    return cls(config_cls(**(config or {})))
