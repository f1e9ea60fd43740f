"""Whether an entry of ``player_info`` makes a player, before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ragen.players.factory import player_kind
from ragen.players.remote import RemoteConfig
from ragen.players.scripted import make_scripted


def check_entry(entry: Mapping[str, Any], env_type: str) -> None:
    """Raises ``ValueError`` for an entry of no known kind, a scripted player that the game does not have, and
    options that the player does not take."""
    kind = player_kind(entry)
    options = {key: value for key, value in entry.items() if key != "type"}
    if kind == "scripted":
        make_scripted(env_type, options.pop("name"), **options)
    elif kind == "remote":
        RemoteConfig.from_entry(entry)
    elif set(options) - {"checkpoint"}:
        raise ValueError(f"{{type: policy}} takes a checkpoint and nothing else, got {dict(entry)}")
