"""Asking a player outside an episode: wait for the reply, whoever gives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ragen.env.base import Env
from ragen.env.seating import entry_of
from ragen.players.base import Pending, Player, SeatView
from ragen.players.factory import PlayerFactory


def reply_now(player: Player, view: SeatView) -> str:
    """The reply of ``player``, blocking until it is there. For scripted and remote players (a policy
    player needs an engine's runner). Raises what the player raises."""
    coro = player.reply(view)
    try:
        wanted = coro.send(None)
        while True:
            if not isinstance(wanted, Pending):
                raise TypeError(f"{player.name} waits for {type(wanted).__name__}, which only an episode can give")
            try:
                result = wanted.future.result()
            except Exception as error:  # noqa: BLE001  handed to the player, who may know what to do
                wanted = coro.throw(error)
            else:
                wanted = coro.send(result)
    except StopIteration as stop:
        return stop.value
    finally:
        coro.close()


def opponents(player_info: Sequence[Mapping], env_type: str, read: Callable[[str], str] = str.strip) -> Callable[[Env, int, int, int], str]:
    """``reply(env, seat, seed, attempt)`` for :class:`~ragen.env.adapters.to_gymnasium.GymnasiumGame`:
    the untrained seats of ``env`` played by the entries of ``player_info``, the last serving any
    further seat; in a nest each sub-task's own entries hold. ``read`` takes the answer out of a
    reply."""
    make = PlayerFactory()

    def reply(env: Env, seat: int, seed: int, attempt: int) -> str:
        now = env.player_info_now()
        entries = player_info if now is None else now
        name = getattr(env, "current_env_type", env_type)
        entry = entry_of(seat, env.seats_now, env.trained_seats, entries)
        if entry is None:
            raise ValueError(f"opponents: seat {seat} of {name} has no player; list one in its player_info")
        player = make(entry, name)
        view = SeatView(name, seat, seed, env.rules(seat), env.observe(seat), "", env.public(seat), env.legal(seat), attempt)
        return read(reply_now(player, view))

    return reply
