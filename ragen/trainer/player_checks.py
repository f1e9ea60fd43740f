"""Checks of who plays: the entries of every ``player_info``, and that no seat is left without a player."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from ragen.env import REGISTERED_ENVS, env_class, make_env
from ragen.env.base import SoloEnv
from ragen.env.seating import other_seats
from ragen.players.entries import check_entry
from verl.utils.config_check import describe

logger = logging.getLogger(__name__)

Config = Mapping[str, Any]


def check_player_info(path: str, env_type: str, player_info: Any) -> Iterator[str]:
    """The entries of the list at ``path``."""
    if player_info is None:
        return
    if not isinstance(player_info, list) or not all(isinstance(p, Mapping) for p in player_info):
        yield describe(path, player_info, "a list of entries such as {type: scripted, name: random}")
        return
    for i, entry in enumerate(player_info):
        try:
            check_entry(entry, env_type)
        except ValueError as error:
            yield f"{path}[{i}]: {error}"


def check_seats(config: Config) -> Iterator[str]:
    """Every game that training or validation plays has a player for each seat that is not trained. The key named
    is the one that is read: a tag's own, in validation with ``val_env_config`` laid over, and of a nest its
    sub-tasks'. Faults in anything else are other checks' business and passed over here."""
    found: dict[str, None] = {}
    for part in ("train", "val"):
        for tag in config["es_manager"][part]["env_configs"]["tags"]:
            found.update(dict.fromkeys(_seats_of_tag(config["custom_envs"], tag, part, ())))
    yield from found


def _seats_of_tag(envs: Config, tag: str, part: str, trail: tuple[str, ...]) -> Iterator[str]:
    if tag in trail:
        yield f"custom_envs.{tag}.env_config.base_env_list: the nest {' > '.join((*trail, tag))} contains itself; take {tag} out of it"
        return
    spec = envs.get(tag)
    if not isinstance(spec, Mapping):
        return
    env_config, over = dict(spec.get("env_config") or {}), dict(spec.get("val_env_config") or {}) if part == "val" else {}
    path = f"custom_envs.{tag}.env_config"
    where = {key: f"custom_envs.{tag}.val_env_config" for key in over}
    yield from _seats_of_game(envs, spec.get("env_type"), {**env_config, **over}, part, (*trail, tag), path, where)


def _seats_of_game(
    envs: Config, env_type: Any, env_config: Config, part: str, trail: tuple[str, ...], path: str, where: Mapping[str, str]
) -> Iterator[str]:
    """``path`` of its ``env_config``; ``where``: keys that come from elsewhere."""
    at = f"{where.get('player_info', path)}.player_info"
    players, subs = env_config.get("player_info"), env_config.get("base_env_list")
    if not subs:
        if not players and (seats := _open_seats(env_type, env_config)):
            shown = "null" if players is None else "[]"
            yield (
                f"{at} = {shown}: {env_type} has {seats} seat{'s' * (seats > 1)} that {'are' if seats > 1 else 'is'} not trained; "
                "list who plays there, e.g. [{type: scripted, name: random}] or [{type: policy}] for self-play"
            )
        return
    if players:
        yield f"{at} is not read: the opponents of a nest are those of its sub-tasks; move it to theirs"
    for i, sub in enumerate(subs):
        if isinstance(sub, str):
            yield from _seats_of_tag(envs, sub, part, trail)
        elif isinstance(sub, Mapping):
            here, inner = f"{where.get('base_env_list', path)}.base_env_list[{i}]", dict(sub.get("env_config") or {})
            if sub.get("player_info"):  # goes before one inside env_config
                inner["player_info"] = sub["player_info"]
            named = {"player_info": here} if "player_info" in sub or not inner.get("player_info") else {}
            yield from _seats_of_game(envs, sub.get("env_type"), inner, part, trail, f"{here}.env_config", named)


def _open_seats(env_type: Any, env_config: Config) -> int:
    """How many seats of a game nobody trains. The game itself is asked, since seats may follow from its options
    and the trained ones from the seed; one that cannot be built here (its data or package is missing) goes by its class."""
    if env_type not in REGISTERED_ENVS:
        return 0
    try:
        game: Any = env_class(env_type)
    except (ImportError, AttributeError):
        return 0
    if issubclass(game, SoloEnv):
        return 0
    try:
        game = make_env(env_type, {key: value for key, value in env_config.items() if key != "player_info"})
        game.reset(seed=0)
    except Exception as error:  # noqa: BLE001  a user's game may raise anything; other checks and the workers name it
        logger.debug("%s cannot be built to count its seats: %r", env_type, error)
    return len(other_seats(game.seats, game.trained_seats))
