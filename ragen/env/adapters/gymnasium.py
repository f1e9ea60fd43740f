"""A Gymnasium environment that speaks text, or can print itself, as an Env: ``env_type: gymnasium``."""

from __future__ import annotations

import importlib
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium

from ragen.env.base import SoloEnv

_ANSI = re.compile(r"\x1b\[([0-9;]*)m")
_NUMBER = re.compile(r"[-+]?\d+")


@dataclass(frozen=True)
class GymnasiumConfig:
    """``make``: an id of Gymnasium's registry (``FrozenLake-v1``) or ``module:callable`` that builds
    the environment. ``options``: its keyword arguments. ``rules``: what the player is told once.
    ``observation``: ``text``, the observation itself (``str`` of it if it is none), or ``render``,
    what ``render()`` returns in ``ansi`` mode, the coloured part in brackets.
    ``actions``: names of a ``Discrete`` environment's actions in order; without them its numbers.
    ``success_at``: the sum of rewards from which on the task is solved, unless ``info["success"]``
    says so itself."""

    make: str = "FrozenLake-v1"
    options: Mapping[str, Any] = field(default_factory=dict)
    rules: str = ""
    observation: str = "text"
    actions: tuple[str, ...] | None = None
    success_at: float = 1.0
    invalid_penalty: float = -0.1

    def __post_init__(self) -> None:
        if self.observation not in ("text", "render"):
            raise ValueError(f"gymnasium: observation must be text or render, got {self.observation!r}")
        if self.actions is not None:
            names = tuple(str(name) for name in self.actions)
            if len({n.casefold() for n in names}) != len(names):
                raise ValueError(f"gymnasium: actions holds a name twice: {names}")
            object.__setattr__(self, "actions", names)


class GymnasiumTextEnv(SoloEnv):
    """``inner`` is the Gymnasium environment. Its actions must be ``Discrete`` or ``Text``."""

    def __init__(self, config: GymnasiumConfig | None = None):
        super().__init__()
        self.config = config or GymnasiumConfig()
        options = dict(self.config.options)
        if self.config.observation == "render":
            options.setdefault("render_mode", "ansi")
        if ":" in self.config.make:
            module, name = self.config.make.split(":")
            self.inner = getattr(importlib.import_module(module), name)(**options)
        else:
            self.inner = gymnasium.make(self.config.make, disable_env_checker=True, **options)
        space = self.inner.action_space
        if isinstance(space, gymnasium.spaces.Discrete):
            numbers = range(int(space.start), int(space.start + space.n))
            names = self.config.actions or tuple(map(str, numbers))
            if len(names) != space.n:
                raise ValueError(f"gymnasium: {self.config.make} has {space.n} actions, but actions lists {len(names)}")
            self._actions: dict[str, int] | None = {name.casefold(): n for name, n in zip(names, numbers, strict=True)}
            self._names = names
        elif isinstance(space, gymnasium.spaces.Text):
            self._actions = None
        else:
            raise ValueError(f"gymnasium: the actions of {self.config.make} are {space}; only Discrete and Text can be played in words")

    def rules(self, seat: int) -> str:
        text = self.config.rules.rstrip()
        return text + "\n" if text else ""

    def legal(self, seat: int) -> tuple[str, ...] | None:
        if self._actions is None:
            return None
        return () if self._done else self._names

    def start(self, rng: random.Random) -> str:
        observation, _ = self.inner.reset(seed=rng.getrandbits(31))
        self._sum = 0.0
        return self._text(observation)

    def play(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        move: Any = action if self._actions is None else self._actions.get(action.strip().casefold())
        if move is None:
            told = f"That is not one of the actions ({', '.join(self._names)}). Try again."
            return self._obs, self.config.invalid_penalty, False, {"valid": False, "feedback": told}
        observation, reward, terminated, truncated, info = self.inner.step(move)
        self._sum += float(reward)
        done = bool(terminated or truncated)
        success = bool(info.get("success", self._sum >= self.config.success_at))
        return self._text(observation), float(reward), done, {"success": success and done}

    def _text(self, observation: Any) -> str:
        shown = self.inner.render() if self.config.observation == "render" else observation
        return _without_colours(shown if isinstance(shown, str) else str(shown)).strip()


def _without_colours(text: str) -> str:
    """Terminal colours as brackets: ``\\x1b[41mS\\x1b[0m`` -> ``[S]`` (toy-text marks the player so)."""
    return _ANSI.sub(lambda m: "]" if m[1] in ("", "0") else "[", text)
