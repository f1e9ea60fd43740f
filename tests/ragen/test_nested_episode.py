"""Nests and who's the spy through the episode: rules shown anew, opponents a sub-task, rewards on turns, summaries."""

import re

import pytest
from chat_server import ChatServer
from toy_engine import ScriptedEngine

from ragen.llm_agent.agent_proxy import AgentProxy
from ragen.llm_agent.ctx_manager import ChatTokens
from ragen.llm_agent.episode import EpisodeLimits, Sampling
from ragen.llm_agent.es_manager import deal_groups, deal_to_ranks, read_tags
from ragen.players.factory import PlayerFactory

TAGS = {
    "Nash": {"env_type": "nash_new", "env_config": {}},
    "Board": {"env_type": "tictactoe", "env_config": {"player_info": [{"type": "scripted", "name": "perfect"}]}},
    "Spy": {"env_type": "undercover", "env_config": {"word_list": "described", "player_info": [{"type": "scripted", "name": "speaker"}]}},
    "Nest": {"env_type": "compose_new", "env_config": {"base_env_list": ["Nash", "Board", "Spy"], "credit": "subtask"}},
    "Alone": {"env_type": "undercover", "env_config": {"player_info": [{"type": "policy"}]}},
}


def obedient(tokenizer, broken=lambda text: False):
    """A policy that answers whatever it is asked last, well formed unless ``broken``."""

    def write(prompt, params):
        text = tokenizer.decode(prompt)
        asks = {"Describe your word": "It is nice.", "Vote for the player": None, "Answer with one of:": None, "Your move": None}
        last = max(asks, key=text.rfind)
        tail = text[text.rfind(last) :]
        answer = asks[last]
        if last == "Vote for the player":
            answer = re.search(r"Player \d", tail)[0]
        elif last == "Answer with one of:":
            answer = re.search(r"of: (\w+)", tail)[1]
        elif last == "Your move":
            board = text[text.rfind("(1,1)") :]
            answer = next(f"({r},{c})" for r in (1, 2, 3) for c in (1, 2, 3) if f"({r},{c})-" in board)
        reply = "hm" if broken(tail) else f"<think>hm</think><answer>{answer}</answer>"
        return tokenizer(reply, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]

    return write


def play(tokenizer, tag, write, groups=4, tags=TAGS, max_turn=10):
    proxy = AgentProxy([ScriptedEngine(write, 16_000)], ChatTokens(tokenizer), PlayerFactory(), EpisodeLimits(max_turn=max_turn, max_model_len=16_000))
    read = read_tags(tags, "train")
    dealt = deal_groups(base_seed=5, phase="train", step=1, tags=read, plays=[(tag, groups)], group_size=2)
    return proxy.play(deal_to_ranks(dealt, 1)[0], read, Sampling((5, "train", 1), 64))


def test_a_nest_is_one_trajectory_with_each_sub_tasks_reward_on_its_last_turn(chatml):
    for t in play(chatml, "Nest", obedient(chatml), groups=6):
        assert t.status == "finished" and t.opponent == "perfect,speaker" and len(t.samples) == 1
        told = "".join(m["content"] for m in t.messages if m["role"] == "user")
        assert [told.count(f"Task {i} of 3.") for i in (1, 2, 3)] == [1, 1, 1]  # each game's rules once, in order
        assert sorted(told.index(f"Task {i} of 3.") for i in (1, 2, 3)) == [told.index(f"Task {i} of 3.") for i in (1, 2, 3)]
        ends = {"nash_new": 0, "tictactoe": len(t.turns) - 4, "undercover": len(t.turns) - 1}
        earned = {i: turn.reward for i, turn in enumerate(t.turns) if turn.reward}
        board = 1 / 3 if t.metrics["sub/1_tictactoe/success"] else t.metrics["sub/1_tictactoe/draw"] / 6
        expected = {ends["nash_new"]: t.metrics["sub/0_nash_new/success"] / 3, ends["tictactoe"]: board, ends["undercover"]: t.metrics["sub/2_undercover/success"] / 3}
        assert earned == pytest.approx({i: r for i, r in expected.items() if r})
        assert t.reward == pytest.approx(sum(expected.values()))


def test_members_of_a_group_in_a_nest_play_the_same_game(chatml):
    trajectories = play(chatml, "Nest", obedient(chatml))
    for group in range(4):
        one, two = (t for t in trajectories if t.group == group)
        assert one.samples[0].ids == two.samples[0].ids and one.reward == two.reward


def test_replies_off_the_form_use_up_a_sub_tasks_turns(chatml):
    for t in play(chatml, "Nest", obedient(chatml, broken=lambda tail: tail.startswith("Answer with one of")), max_turn=9):
        assert t.turns[0].reward == pytest.approx(-0.1) and not t.turns[0].valid
        assert t.metrics["sub/0_nash_new/unfinished"] == 1.0 and t.status == "finished" and not t.success


def test_self_play_of_four_seats_votes_at_once(chatml):
    trajectories = play(chatml, "Alone", obedient(chatml), groups=3)
    assert len(trajectories) == 3 * 2 * 4
    for group in range(3):
        four = [t for t in trajectories if t.group == group and t.member == 0]
        assert [len(t.turns) for t in four] == [3] * 4 and sorted(t.role for t in four) == ["civilian"] * 3 + ["undercover"]
        won = {t.role: t.success for t in four}
        assert len({t.success for t in four if t.role == "civilian"}) == 1 and won["civilian"] != won["undercover"]
        for t in four:  # nobody is shown a vote
            assert not re.search(r"votes? for Player", "".join(m["content"] for m in t.messages if m["role"] == "user"))


def test_a_long_record_is_summarised_by_a_remote_model(chatml):
    summariser = {"model_name": "m", "retries": 0}
    tags = {"Spy": {"env_type": "undercover", "env_config": {**TAGS["Spy"]["env_config"], "max_history_chars": 100, "summariser": summariser}}}
    with ChatServer(lambda n, body: "<think>hm</think>They were all vague.") as server:
        summariser["port"] = server.port
        (t, *_) = play(chatml, "Spy", obedient(chatml), groups=1, tags=tags)
        shown = [m["content"] for m in t.messages if m["role"] == "user"]
        assert t.status == "finished" and "They were all vague." in shown[-1] and "Player" in server.requests[0]["messages"][-1]["content"]
    with ChatServer(lambda n, body: 500) as server:  # the summary fails: the rule cuts, the game goes on
        summariser["port"] = server.port
        (t, *_) = play(chatml, "Spy", obedient(chatml), groups=1, tags=tags)
        shown = [m["content"] for m in t.messages if m["role"] == "user"]
        assert t.status == "finished" and "left out)" in shown[-1]


def test_a_remote_opponent_that_fails_aborts_and_is_no_loss(chatml):
    board = {"env_type": "tictactoe", "env_config": {"trained_seat": "first", "player_info": [{"model_name": "m", "retries": 1, "backoff_s": 0.01}]}}
    with ChatServer(lambda n, body: 503) as server:
        board["env_config"]["player_info"][0]["port"] = server.port
        trajectories = play(chatml, "Board", obedient(chatml), groups=2, tags={"Board": board})
    for t in trajectories:
        assert t.status == "aborted" and t.reward == 0.0 and not t.success and t.metrics["loss"] == 0.0 and "503" in t.error
