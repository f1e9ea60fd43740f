"""A seat without a player is named, by the key that is read, before anything starts."""

import copy
import re
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_engine import ScriptedEngine

from ragen.env import REGISTERED_ENVS, Env, Outcome, SeatOutcome, Verdict, derived_rng
from ragen.llm_agent.agent_proxy import AgentProxy
from ragen.llm_agent.ctx_manager import ChatTokens
from ragen.llm_agent.episode import EpisodeLimits, EpisodeSpec, Sampling
from ragen.llm_agent.es_manager import read_tags
from ragen.players.factory import PlayerFactory
from ragen.trainer.player_checks import check_seats


@dataclass(frozen=True)
class CountConfig:
    """``trained``: how many of the seats are."""

    players: int = 2
    trained: int = 1


class CountEnv(Env):
    """A user's own game: its seats follow from its options, and which of them are trained from the seed."""

    def __init__(self, config=None):
        self.config = config or CountConfig()
        self.seats = self.config.players

    def reset(self, *, seed):
        self.trained_seats = tuple(sorted(derived_rng("count", seed).sample(range(self.seats), self.config.trained)))
        self.said = 0

    def acting(self):
        return (self.said,) if self.said < self.seats else ()

    def observe(self, seat):
        return "Say 1."

    def legal(self, seat):
        return ("1",)

    def act(self, seat, text):
        self._require_acting(seat)
        if text != "1":
            return Verdict(False, False)
        self.said += 1
        return Verdict(True, True)

    def outcome(self):
        return Outcome((SeatOutcome(0.0, False),) * self.seats)


@pytest.fixture(autouse=True)
def count_is_registered(monkeypatch):
    monkeypatch.setitem(REGISTERED_ENVS, "count", f"{__name__}:CountEnv:CountConfig")


SCRIPT = {"type": "scripted", "name": "random"}
PLAYERS = st.sampled_from([{}, {"player_info": []}, {"player_info": None}, {"player_info": [{"type": "policy"}]}, {"player_info": [SCRIPT]}])
GAMES = st.sampled_from([
    ("tictactoe", {}), ("nash_new", {}), ("undercover", {"rounds": 1}), ("bandit", {"pulls": 1}), ("count", {"players": 1}),
    ("count", {"players": 3}), ("count", {"players": 2, "trained": 2}),
])  # fmt: skip
PLAIN = st.builds(lambda game, players: {"env_type": game[0], "env_config": {**game[1], **players}}, GAMES, PLAYERS)
TAGS = st.builds(lambda spec, over: {**spec, "val_env_config": over}, PLAIN, st.one_of(st.just({}), PLAYERS))
OUTSIDE = st.builds(lambda game, players: {"env_type": game[0], "env_config": dict(game[1]), **players}, GAMES, PLAYERS)
SUBS = st.lists(st.one_of(st.sampled_from("AB"), PLAIN, OUTSIDE), min_size=1, max_size=3)
NESTS = st.one_of(
    st.builds(lambda subs: {"env_type": "compose_new", "env_config": {"base_env_list": subs}}, SUBS),
    st.builds(lambda subs, others: {"env_type": "compose_new", "env_config": {"base_env_list": [
        *others, {"env_type": "compose_new", "env_config": {"base_env_list": subs}}]}}, SUBS, SUBS),
    st.builds(lambda subs, others: {"env_type": "compose_new", "env_config": {"base_env_list": subs}, "val_env_config": {"base_env_list": others}}, SUBS, SUBS),
)  # fmt: skip


def write(tokenizer):
    def reply(prompt, params):
        text = tokenizer.decode(prompt)
        last = text[text.rfind("Answer with one of") :] if "Answer with one of" in text else text
        cells = re.findall(r"\(\d,\d\)(?=-)", text[text.rfind("(1,1)") :]) if "(1,1)" in text else []
        names = re.search(r"of: (\w+)", last)
        ask = max(("Your move", "Describe", "Vote for", "Answer with one of", "Say 1", "lever"), key=text.rfind)
        answer = {"Your move": (cells or ["1"])[0], "Describe": "It is nice.", "Vote for": re.findall(r"Player \d", text)[-1] if "Player" in text else "",
                  "Answer with one of": names and names[1]}.get(ask, "1")  # fmt: skip
        return tokenizer(f"<think></think><answer>{answer}</answer>", add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]

    return reply


def plays(tokenizer, custom_envs, names, phase):
    """Whether every seat has a player when the tags are really played."""
    tags = read_tags(custom_envs, phase)
    proxy = AgentProxy([ScriptedEngine(write(tokenizer), 30_000)], ChatTokens(tokenizer), PlayerFactory(), EpisodeLimits(40, 30_000))
    specs = [EpisodeSpec(name, tags[name].env_type, g, 0, 5 + g) for name in names for g in range(2)]
    try:
        assert all(t.status in ("finished", "unfinished") for t in proxy.play(specs, tags, Sampling(("r",), 64)))
    except ValueError as error:
        assert "has no player" in str(error)
        return False
    return True


def put(custom_envs, key, value):
    """Set ``key`` as it is written in a message: ``custom_envs.A.env_config.base_env_list[1].player_info``."""
    place = custom_envs
    *steps, last = re.findall(r"[^.\[\]]+", key.removeprefix("custom_envs."))
    for step in steps:
        place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
    place[last] = value


@given(a=TAGS, b=TAGS, nest=NESTS, train=st.sets(st.sampled_from("ABN"), min_size=1), val=st.sets(st.sampled_from("ABN"), min_size=1))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_passes_the_check_is_played_and_what_is_named_mends_it(chatml, a, b, nest, train, val):
    config = {"custom_envs": copy.deepcopy({"A": a, "B": b, "N": nest})}  # two tags may hold one object
    config["es_manager"] = {part: {"env_configs": {"tags": sorted(names)}} for part, names in (("train", train), ("val", val))}
    for _ in range(20):
        problems = list(check_seats(config))
        seated = [plays(chatml, config["custom_envs"], sorted(names), phase) for phase, names in (("train", train), ("val", val))]
        assert (not problems) == all(seated)
        if not problems:
            return
        put(config["custom_envs"], problems[0].split(" = ")[0], [SCRIPT])
        assert problems[0] not in list(check_seats(config))  # the key that was named is the one that is read
    raise AssertionError(problems)
