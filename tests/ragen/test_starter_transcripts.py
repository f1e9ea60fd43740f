"""What the starters are taught: looking is right, guessing is not, and prompts are those of an episode."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_engine import ScriptedEngine

from ragen.env import make_env
from ragen.llm_agent.agent_proxy import AgentProxy
from ragen.llm_agent.ctx_manager import ChatTokens
from ragen.llm_agent.episode import EpisodeLimits, EpisodeSpec, Sampling
from ragen.llm_agent.es_manager import read_tags
from ragen.llm_agent.reply_format import format_instruction, parse_reply
from ragen.players.factory import PlayerFactory
from ragen.trainer.config import compose
from scripts.starter import game_transcripts
from scripts.starter.game_transcripts import CONFIGS, MATH, NASH, SPY, TICTACTOE, make_game, play_episode
from scripts.starter.pretrain import encode
from scripts.starter.teachers import add_by_digits, teach
from scripts.starter.tokenizer import train_tokenizer

INSTRUCTION = format_instruction(enable_think=True)


@given(st.integers(0, 200), st.integers(-99, 99))
def test_every_line_of_a_working_is_true_and_ends_in_the_sum(a, b):
    told = add_by_digits(a, b)
    sums = re.findall(r"([\d+*-]+)=(-?\d+)", told)
    assert sums and all(eval(left) == int(right) for left, right in sums)  # digits and signs alone
    tens, units = int(sums[-1][1]), int(sums[0][1]) % 10
    assert 10 * tens + units == abs(a + b)


@pytest.mark.parametrize("name", [MATH, NASH])
def test_who_looks_is_right_and_who_guesses_is_often_wrong(name):
    won = {True: 0, False: 0}
    for seed in range(60):
        for look in won:
            rng = random.Random(seed)
            env = make_env(name, dict(CONFIGS[name]))
            env.reset(seed=seed)
            assert env.act(0, teach(name, env, 0, look, rng).answer).valid
            won[look] += env.outcome()[0].success
    assert won[True] == 60 and won[False] < 45


def test_looking_wins_more_of_the_games_against_others():
    for name in (TICTACTOE, SPY):
        won = {}
        for skill in (0.0, 1.0):
            rng, won[skill] = random.Random(3), 0
            for _ in range(80):
                env = make_game((name,), rng)
                while env.acting():
                    seat = env.acting()[0]
                    look = rng.random() < skill if seat in env.trained_seats else name == SPY
                    assert env.act(seat, teach(name, env, seat, look, rng).answer).valid
                won[skill] += env.outcome()[env.trained_seats[0]].success
        assert won[1.0] > won[0.0] + 8, (name, won)


@pytest.mark.parametrize("games", [games for games, _ in game_transcripts.EPISODES], ids="+".join)
def test_replies_are_well_formed_and_mistakes_are_not_learnt(monkeypatch, games):
    monkeypatch.setattr(game_transcripts, "EPISODES", [(games, 1.0)])
    rng, refused = random.Random(1), 0
    for _ in range(40):
        transcript = play_episode(rng, [(0.5, 1.0)], INSTRUCTION, mistake_rate=0.5)
        replies = [m["content"] for m in transcript.messages if m["role"] == "assistant"]
        assert len(replies) == len(transcript.learn) == len(transcript.choices)
        for reply, choices in zip(replies, transcript.choices, strict=True):
            parsed = parse_reply(reply, enable_think=True)
            assert parsed.ok and (not choices or parsed.answer in choices)
        refused += transcript.learn.count(False)
    assert refused > 0 or games == (MATH,)


def test_a_transcript_reads_as_the_episode_would(monkeypatch, chatml):
    monkeypatch.setattr(game_transcripts, "EPISODES", [((MATH, NASH), 1.0)])
    for seed in range(5):
        transcript = play_episode(random.Random(seed), [(0.5, 1.0)], INSTRUCTION, coached=0.0, mistake_rate=0.0)
        rng = random.Random(seed)
        rng.choices([0], [1.0])
        replies = iter(m["content"] for m in transcript.messages if m["role"] == "assistant")

        def write(prompt, params, replies=replies):
            return chatml(next(replies), add_special_tokens=False)["input_ids"] + [chatml.eos_token_id]

        subs = [{"env_type": name, "env_config": dict(CONFIGS[name])} for name in (MATH, NASH)]
        tags = read_tags({"Nest": {"env_type": "compose_new", "env_config": {"base_env_list": subs}}}, "train")
        limits = EpisodeLimits(max_turn=4, max_model_len=4000)
        proxy = AgentProxy([ScriptedEngine(write)], ChatTokens(chatml), PlayerFactory(), limits)
        spec = EpisodeSpec(tag="Nest", env_type="compose_new", group=0, member=0, seed=rng.getrandbits(40))
        (played,) = proxy.play([spec], tags, Sampling((1, "train", 1), 200))
        assert [m for m in played.messages if m["role"] != "system"] == transcript.messages


def test_training_targets_are_replies_alone_and_soft_where_several_answers_are_as_good():
    rng = random.Random(0)
    transcripts = [play_episode(rng, [(0.0, 1.0)], INSTRUCTION, coached=0.0) for _ in range(200)]
    tokenizer = train_tokenizer([m["content"] for t in transcripts for m in t.messages] + ["system user assistant"], 1280)
    chat = ChatTokens(tokenizer, system_prompt="s")
    for transcript in transcripts:
        row = encode(chat, transcript, 0.25)
        for position, choices in row.soft:
            assert row.ids[position] in choices and row.weights[position] > 1.0
        learnt = [i for i, w in zip(row.ids, row.weights, strict=True) if w >= 1.0]
        replies = [m["content"] for m, learn in zip(transcript.messages[1::2], transcript.learn, strict=True) if learn]
        assert tokenizer.decode(learnt, skip_special_tokens=True) == "".join(replies)


def test_the_laptop_form_plays_what_the_starter_has_seen():
    tags = read_tags(compose("_20_FI3_mix", ["+form=laptop"]).custom_envs, "train")
    assert tuple(tags["MathTrain"].env_config["levels"]) == CONFIGS[MATH]["levels"]
    assert tuple(tags["NashNew"].env_config["games"]) == CONFIGS[NASH]["games"]
    assert tags["Undercover"].env_config["word_list"] == CONFIGS[SPY]["word_list"]
