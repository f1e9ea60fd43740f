"""Asking a player outside an episode: wait for the reply, whoever gives it."""

from __future__ import annotations

from ragen.players.base import Pending, Player, SeatView


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
