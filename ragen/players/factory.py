"""From a ``player_info`` entry to a player."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from ragen.players.base import Player


class PlayerFactory:
    """Makes and keeps players: one object for each distinct entry and game in a process (a remote
    player has connections and counters).

    Entries: ``{type: scripted, name: random, ...options}``; ``{model_name: M, port: P}`` or with
    ``base_url`` or ``provider`` (remote); ``{type: policy, checkpoint: DIR}`` (a past self, played by
    ``past_self(entry)``, which the worker hands in because it owns the engines).
    """

    def __init__(self, past_self: Callable[[dict], Player] | None = None):
        self._past_self = past_self
        self._players: dict[str, Player] = {}

    def __call__(self, entry: Mapping, env_type: str) -> Player:
        kind = player_kind(entry)
        key = json.dumps([dict(entry), env_type if kind == "scripted" else ""], sort_keys=True, default=str)
        if key not in self._players:
            self._players[key] = self._make(kind, dict(entry), env_type)
        return self._players[key]

    def _make(self, kind: str, entry: dict, env_type: str) -> Player:
        if kind == "scripted":
            from ragen.players.scripted import make_scripted

            options = {k: v for k, v in entry.items() if k not in ("type", "name")}
            return make_scripted(env_type, entry["name"], **options)
        if kind == "remote":
            from ragen.players.remote import RemotePlayer

            return RemotePlayer.from_entry(entry)
        if self._past_self is None:
            raise ValueError(f"player_info entry {entry} needs an engine for its checkpoint, and there is none here")
        return self._past_self(entry)

    def metrics(self) -> dict[str, float]:
        """Sums over players that count (calls, tokens, cost)."""
        total: dict[str, float] = {}
        for player in self._players.values():
            for name, value in getattr(player, "metrics", dict)().items():
                total[name] = total.get(name, 0.0) + value
        return total


def player_kind(entry: Mapping) -> str:
    """``scripted``, ``remote`` or ``policy``. Raises ``ValueError`` naming the entry otherwise."""
    kind = entry.get("type") or ("remote" if "model_name" in entry else None)
    if kind not in ("scripted", "remote", "policy") or (kind == "scripted" and "name" not in entry):
        raise ValueError(
            f"player_info entry {dict(entry)} is none of {{type: scripted, name: ...}}, "
            "{model_name: ..., port: ...} or {type: policy[, checkpoint: DIR]}"
        )
    return kind
