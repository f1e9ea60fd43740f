"""Remote players against a real server that is slow, drops connections and answers nonsense."""

import json
import logging
import pickle
import random
import threading
import time

import pytest
from chat_server import ChatServer

from ragen.env import make_env
from ragen.llm_agent.reply_format import find_answer
from ragen.llm_agent.tasks import Gather, Runner
from ragen.players.answer_cache import AnswerCache
from ragen.players.base import PlayerError, SeatView
from ragen.players.endpoint import RetryRule, without_thoughts
from ragen.players.factory import PlayerFactory
from ragen.players.keys import load_keys
from ragen.players.remote import RemoteConfig, RemotePlayer
from ragen.players.remote_loop import RemoteLoop
from ragen.players.scripted import make_scripted
from ragen.players.sync import reply_now

VIEW = SeatView("tictactoe", 0, 1, "The rules.", "The board.")


def player(server, **options):
    return RemotePlayer.from_entry({"model_name": "m", "port": server.port, "backoff_s": 0.01, **options})


def always(action):
    return lambda n, body: action


def first(action, then="fine"):
    return lambda n, body: action if n == 0 else then


# -- a call ----------------------------------------------------------------------------------------


def test_a_call_says_what_the_seat_sees_and_counts_what_it_cost():
    with ChatServer(always("(1,1)")) as server:
        asked = player(server, temperature=0.7, price_in=2.0, price_out=10.0, extra_body={"chat_template_kwargs": {"enable_thinking": False}})
        view = SeatView("tictactoe", 0, 1, "The rules.", "The board.", feedback="That cell is taken.", attempt=1)
        assert reply_now(asked, view) == "(1,1)"
        (body,) = server.requests
        assert body["model"] == "m" and body["temperature"] == 0.7 and body["max_tokens"] == 600
        assert body["chat_template_kwargs"] == {"enable_thinking": False}
        text = body["messages"][-1]["content"]
        assert [text.index(part) for part in ("The rules.\n", "That cell is taken.", "The board.")] == sorted(
            text.index(part) for part in ("The rules.\n", "That cell is taken.", "The board.")
        )
        assert "Authorization" not in server.headers[0]
        counted = asked.metrics()
        assert counted.pop("remote/m/wait_s") > 0
        assert counted == {
            "remote/m/calls": 1, "remote/m/retries": 0, "remote/m/failures": 0, "remote/m/cached": 0,
            "remote/m/prompt_tokens": 100, "remote/m/completion_tokens": 7, "remote/m/cost": pytest.approx(270e-6),
        }  # fmt: skip


@pytest.mark.parametrize(
    "fault",
    [429, 500, 502, 503, 408, "drop!", b"<html>oops</html>", b"", b"\xff\xfe", {"choices": []}, {"error": "busy"}, "", "<think>hm</think>", {"choices": [{"message": {"content": None, "reasoning_content": "long"}}]}, {"choices": [{"message": None}]}, [1]],
    ids=repr,
)  # fmt: skip
def test_faults_that_pass_are_tried_again(fault):
    fault = json.dumps(fault).encode() if isinstance(fault, list) else fault
    with ChatServer(first(fault)) as server:
        asked = player(server)
        assert reply_now(asked, VIEW) == "fine"
        assert len(server.requests) == 2 and asked.metrics()["remote/m/retries"] == 1


@pytest.mark.parametrize(("status", "hint"), [(400, ""), (401, "check the key"), (404, "check model_name"), (422, "")])
def test_faults_that_stay_fail_at_once(status, hint):
    with ChatServer(always(status)) as server:
        asked = player(server)
        with pytest.raises(PlayerError, match=f"HTTP {status}.*{hint}"):
            reply_now(asked, VIEW)
        assert len(server.requests) == 1 and asked.metrics()["remote/m/failures"] == 1


def test_after_its_retries_it_gives_up_with_the_reason():
    with ChatServer(always(503)) as server:
        asked = player(server, retries=2)
        with pytest.raises(PlayerError, match="no answer in 3 calls; last: HTTP 503"):
            reply_now(asked, VIEW)
        assert len(server.requests) == 3 and asked.metrics()["remote/m/failures"] == 1


def test_a_slow_server_is_not_waited_for():
    with ChatServer(first((5.0, "late"), "in time")) as server:
        start = time.monotonic()
        assert reply_now(player(server, timeout_s=0.5), VIEW) == "in time"
        assert time.monotonic() - start < 4
    with ChatServer(always((5.0, "late"))) as server, pytest.raises(PlayerError, match="no answer within 0.3 s"):
        reply_now(player(server, timeout_s=0.3, retries=1), VIEW)


def test_nobody_there():
    with ChatServer(always("x")) as server:
        port = server.port
    with pytest.raises(PlayerError, match="Connect"):
        reply_now(RemotePlayer.from_entry({"model_name": "m", "port": port, "retries": 1, "backoff_s": 0.01}), VIEW)


def test_an_answer_that_is_all_thought_names_the_limit():
    cut = {"choices": [{"message": {"content": "<think>and so on"}, "finish_reason": "length"}]}
    with ChatServer(always(cut)) as server, pytest.raises(PlayerError, match="max_tokens=9"):
        reply_now(player(server, retries=0, max_tokens=9), VIEW)


def test_calls_in_flight_are_limited():
    with ChatServer(always((0.05, "x"))) as server:
        asked = player(server, max_concurrency=3)
        loop = RemoteLoop.get()
        futures = [loop.submit(asked._ask(VIEW, loop)) for _ in range(20)]
        assert [f.result(20) for f in futures] == ["x"] * 20
        assert server.most_in_flight <= 3 and len(server.requests) == 20


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>hm</think>(1,1)", "(1,1)"), ("hm</think> (1,1)", "(1,1)"), ("<think>hm", ""), ("(1,1)", "(1,1)"),
        ("<think>a</think>b<think>c</think>d", "bd"), ("<THINKING>a</THINKING>\n<answer>x</answer>", "<answer>x</answer>"),
    ],
)  # fmt: skip
def test_thoughts_are_removed(text, left):
    assert without_thoughts(text) == left


def test_waits_grow_and_are_jittered():
    rule = RetryRule(backoff_s=1.0, max_backoff_s=8.0)
    for attempt, grown in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (9, 8.0)):
        waits = [rule.wait(attempt) for _ in range(200)]
        assert 0.5 * grown <= min(waits) < 0.7 * grown and 1.3 * grown < max(waits) <= 1.5 * grown
    assert rule.wait(1, asked=5.0) == 5.0 and rule.wait(1, asked=1e9) == 8.0


# -- keys ------------------------------------------------------------------------------------------


def test_keys_from_the_environment_or_the_file_in_turn(tmp_path):
    file = tmp_path / "api-keys.json"
    file.write_text('{"deepseek": ["key-one", "key-two"], "dmx": "single"}')
    environ = {"GIFT_API_KEYS": str(file)}
    ring = load_keys("deepseek", required=True, environ=environ)
    assert [ring.headers()["Authorization"] for _ in range(3)] == ["Bearer key-one", "Bearer key-two", "Bearer key-one"]
    assert len(load_keys("dmx", required=True, environ=environ)) == 1
    assert len(load_keys("deepseek", required=True, environ={**environ, "DEEPSEEK_API_KEY": "a, b,c ,"})) == 3
    assert load_keys("vllm", required=False, environ=environ).headers() == {}
    with pytest.raises(ValueError, match="OPENROUTER_API_KEY"):
        load_keys("openrouter", required=True, environ=environ)
    for bad in ("{", "[]", '{"deepseek": 3}'):
        file.write_text(bad)
        with pytest.raises(ValueError, match="api-keys.json"):
            load_keys("deepseek", required=True, environ=environ)


def test_several_keys_are_used_in_turn_and_a_refused_one_is_passed_over(monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "sk-bad-1,sk-good-2")
    with ChatServer(first(401)) as server:
        assert reply_now(player(server, max_concurrency=5), VIEW) == "fine"
        assert [h["Authorization"] for h in server.headers] == ["Bearer sk-bad-1", "Bearer sk-good-2"]


def test_no_key_shows_anywhere(monkeypatch, caplog):
    monkeypatch.setenv("VLLM_API_KEY", "sk-very-secret")
    caplog.set_level(logging.DEBUG)
    with ChatServer(always(500)) as server:  # its error text repeats the header
        asked = player(server, retries=1, max_concurrency=7)
        with pytest.raises(PlayerError) as failure:
            reply_now(asked, VIEW)
    assert server.headers[0]["Authorization"] == "Bearer sk-very-secret"
    ring = load_keys("vllm", required=False)
    for shown in (str(failure.value), repr(asked), repr(asked.config), repr(vars(asked)), repr(ring), str(vars(asked._endpoint())), caplog.text, json.dumps(asked.metrics())):
        assert "secret" not in shown
    with pytest.raises(TypeError):
        pickle.dumps(ring)


def test_a_key_is_needed_only_when_the_player_is_asked(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEEPSEEK_API_KEY", raising=False)
    asked = RemotePlayer.from_entry({"model_name": "deepseek-chat", "provider": "deepseek"})
    with pytest.raises(ValueError, match="DEEPSEEK_API_KEY"):
        reply_now(asked, VIEW)


# -- the cache -------------------------------------------------------------------------------------


def test_answers_are_kept_by_request(tmp_path):
    with ChatServer(lambda n, body: f"answer {n}") as server:
        one, two = player(server, cache_dir=str(tmp_path)), player(server, cache_dir=str(tmp_path))
        assert [reply_now(one, VIEW), reply_now(one, VIEW), reply_now(two, VIEW)] == ["answer 0"] * 3
        again = SeatView("tictactoe", 0, 1, "The rules.", "The board.", attempt=1)
        assert reply_now(one, again) == "answer 1"
        assert one.metrics()["remote/m/cached"] == 1 and two.metrics()["remote/m/calls"] == 0
        for file in tmp_path.rglob("*.json"):
            file.write_text("{torn")
        assert reply_now(one, VIEW) == "answer 2"
    assert AnswerCache(tmp_path).get({"never": "asked"}) is None


# -- config ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ({"port": "1414"}, "http://localhost:1414/v1/chat/completions"),
        ({"base_url": "http://host:8000/v1/"}, "http://host:8000/v1/chat/completions"),
        ({"provider": "deepseek"}, "https://api.deepseek.com/v1/chat/completions"),
    ],
)
def test_where(entry, url):
    assert RemoteConfig.from_entry({"type": "remote", "model_name": "m", **entry}).url == url


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"model_name": "m"}, "exactly one of port, base_url and provider"),
        ({"model_name": "m", "port": 1, "provider": "dmx"}, "exactly one"),
        ({"model_name": "m", "provider": "deepseak"}, "did you mean 'deepseek'"),
        ({"model_name": "m", "port": 1, "temprature": 1}, "did you mean 'temperature'"),
        ({"model_name": "m", "port": 1, "api_key": "sk"}, "may not stand in a config"),
        ({"port": 1}, "model_name"),
        ({"model_name": "m", "base_url": "http://me:pw@host/v1"}, "no user"),
        ({"model_name": "m", "base_url": "host:80/v1"}, "http"),
        ({"model_name": "m", "port": 1, "timeout_s": 0}, "timeout_s"),
    ],
)
def test_bad_entries_are_named(entry, message):
    with pytest.raises(ValueError, match=message):
        RemoteConfig.from_entry(entry)


def test_the_factory_makes_one_player_an_entry():
    make = PlayerFactory()
    entry = {"model_name": "m", "port": 1}
    assert make(entry, "tictactoe") is make(dict(entry), "undercover") and isinstance(make(entry, "x"), RemotePlayer)
    assert make.metrics()["remote/m/calls"] == 0


# -- many episodes ---------------------------------------------------------------------------------


async def game(opponent, seed, spent):
    """Tic-tac-toe of a scripted player against ``opponent``; ``spent[seed]``: seconds it waited."""
    env, own = make_env("tictactoe"), make_scripted("tictactoe", "random")
    env.reset(seed=seed)
    while acting := env.acting():
        (seat,) = acting
        view = SeatView("tictactoe", seat, seed, env.rules(seat), env.observe(seat), "", env.public(seat), env.legal(seat))
        if seat in env.trained_seats:
            text = await own.reply(view)
        else:
            start = time.monotonic()
            try:
                text = find_answer(await opponent.reply(view))
            except PlayerError:
                return "aborted"
            finally:
                spent[seed] = spent.get(seed, 0.0) + time.monotonic() - start
        assert env.act(seat, text).valid
    return "finished"


def legal_move(n, body, latency, faults):
    text = body["messages"][-1]["content"]
    cells = [f"({r},{c})" for r in (1, 2, 3) for c in (1, 2, 3) if f"({r},{c})-" in text]
    fault = random.Random(n).random()
    return (latency, 500 if fault < faults / 2 else "drop!" if fault < faults else f"<think>hm</think><answer>{cells[0]}</answer>")


def play_games(count, latency, faults, **options):
    """Seconds for ``count`` games at once, the longest wait of one, the results."""
    with ChatServer(lambda n, body: legal_move(n, body, latency, faults)) as server:
        opponent, spent = player(server, **options), {}
        start = time.monotonic()
        results = Runner([]).run([game(opponent, seed, spent) for seed in range(count)])
        return time.monotonic() - start, spent, results, opponent.metrics()


def test_slow_players_hold_up_nobody():
    """64 games against a server with latency and 10% failures take about as long as the longest of
    them waited for its own calls; one at a time it would be the sum."""
    seconds, spent, results, counted = play_games(64, latency=0.3, faults=0.1)
    assert results == ["finished"] * 64 and counted["remote/m/retries"] > 0
    assert seconds < 1.5 * max(spent.values()) + 1.0
    assert seconds < sum(spent.values()) / 8


def test_a_failed_player_aborts_its_own_game_alone():
    """Requests of one game fail for good; the others end."""
    with ChatServer(lambda n, body: 400 if n == 3 else legal_move(n, body, 0.0, 0.0)) as server:
        opponent, spent = player(server), {}
        results = Runner([]).run([game(opponent, seed, spent) for seed in range(12)])
    assert sorted(results) == ["aborted"] + ["finished"] * 11


def test_simultaneous_moves_are_asked_side_by_side():
    async def both(asked):
        return await Gather([asked.reply(VIEW), asked.reply(VIEW)])

    with ChatServer(always((0.3, "x"))) as server:
        start = time.monotonic()
        assert Runner([]).run([both(player(server))]) == [["x", "x"]]
        assert server.most_in_flight == 2 and time.monotonic() - start < 5


# -- the loop --------------------------------------------------------------------------------------


def test_the_loop_closes_with_calls_under_way_and_starts_again():
    with ChatServer(always((30.0, "late"))) as server:
        loop = RemoteLoop.get()
        future = loop.submit(player(server)._ask(VIEW, loop))
        while not server.requests:
            time.sleep(0.01)
        start = time.monotonic()
        loop.close()
        assert time.monotonic() - start < 4 and future.cancelled()
        loop.close()
        with pytest.raises(RuntimeError, match="closed"):
            loop.submit(player(server)._ask(VIEW, loop))
    assert not any(t.name == "remote-players" for t in threading.enumerate())
    with ChatServer(always("again")) as server:
        assert reply_now(player(server), VIEW) == "again"
        assert RemoteLoop.get() is RemoteLoop.get() is not loop


def test_a_game_that_is_given_up_cancels_its_call():
    with ChatServer(always((30.0, "late"))) as server:
        waiting = player(server).reply(VIEW)
        future = waiting.send(None).future
        while not server.requests:
            time.sleep(0.01)
        waiting.close()
        assert future.cancelled()
