"""Who is paid for what, and whose reply is judged: nests with self-play, rounds in which several act at once, and what
a sub-task leaves behind for the next."""

import re
from collections import defaultdict
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_engine import ScriptedEngine

from ragen.env import REGISTERED_ENVS, Env, Outcome, SeatOutcome, Verdict, derived_rng, make_env
from ragen.env.seating import agent_seats, by_seat, player_seats
from ragen.llm_agent.ctx_manager import ChatTokens
from ragen.llm_agent.episode import Episode, EpisodeLimits, EpisodeSpec, Sampling
from ragen.llm_agent.tasks import Runner
from ragen.players.base import Player, PlayerError
from ragen.players.factory import PlayerFactory

SELF, SCRIPT = {"type": "policy"}, {"type": "scripted", "name": "random"}
OFF_FORM = "no form"
ASKED = re.compile(r"Describe your word|Vote for the player whose word differs: ([^\n]*)\.|Answer with one of: ([^\n]*)\.|Your move|Say go")


def answers(text):
    """What the last question of a prompt may be answered with."""
    asked = list(ASKED.finditer(text))[-1]
    if asked[0].startswith("Vote"):
        return asked[1].split(", ")
    if asked[0].startswith("Answer"):
        return asked[2].split(", ")
    if asked[0] == "Your move":
        return re.findall(r"\(\d,\d\)(?=-)", text[text.rfind("(1,1)") :])
    return ["go"] if asked[0] == "Say go" else ["It is known to many."]


def random_policy(tokenizer, off_form=0.0, illegal=0.0):
    def write(prompt, params):
        rng, text = derived_rng("policy", params.seed), tokenizer.decode(prompt)
        answer = rng.choice(answers(text)) if rng.random() >= illegal else "(7,7)"
        return encode(tokenizer, OFF_FORM if rng.random() < off_form else f"<think>hm</think><answer>{answer}</answer>")

    return write


def encode(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]


def episode(tokenizer, env, write, *, seed=0, players=(), make_player=None, env_type="compose_new", max_turn=30, max_len=60_000):
    limits = EpisodeLimits(max_turn=max_turn, max_model_len=max_len, format_penalty=-0.25)
    spec = EpisodeSpec("N", env_type, 0, 0, seed)
    made = Episode(spec, env, ChatTokens(tokenizer), limits, Sampling(("run",), 200), list(players), make_player or PlayerFactory())
    (trajectories,) = Runner([ScriptedEngine(write, max_len)]).run([made.run()])
    return trajectories


# -- pay by agent ----------------------------------------------------------------------------------


GAMES = {
    "board": {"env_type": "tictactoe", "env_config": {"opening_moves": 0}},
    "four": {"env_type": "undercover", "env_config": {"rounds": 1}},
    "matrix": {"env_type": "nash_new"},
}
TASKS = st.one_of(
    st.just(GAMES["matrix"]),
    st.builds(lambda p, s: {**GAMES["board"], "player_info": p, "env_config": {"opening_moves": 0, "trained_seat": s}},
              st.sampled_from([[SELF], [SCRIPT]]), st.sampled_from(["first", "second", "random"])),
    st.builds(lambda p: {**GAMES["four"], "player_info": p}, st.lists(st.sampled_from([SELF, SCRIPT]), min_size=1, max_size=3)),
)  # fmt: skip


class Watched:
    """A nest's moves written down as they are made: ``moves[i][seat]`` of a sub-task is a list of
    (verdict, or ``None`` for a reply off the form)."""

    def __init__(self, nest):
        self.nest, self.moves, self.order = nest, defaultdict(lambda: defaultdict(list)), []
        act, refused = nest.act, nest.refused
        for i, env in enumerate(nest.envs):
            env.act = self._watch(i, env.act)
        nest.act = lambda seat, text: self._note(nest.current, seat) or act(seat, text)
        nest.refused = lambda seat: (self._note(nest.current, seat), self.moves[nest.current][seat].append(None), refused(seat))[-1]

    def _note(self, i, seat):
        self.order.append((i, seat))

    def _watch(self, i, act):
        def watched(seat, text):
            verdict = act(seat, text)
            self.moves[i][seat].append(verdict)
            return verdict

        return watched


def seats_of(nest, i):
    """The policy's seats in sub-task ``i``, told from the configuration alone."""
    env, entries = nest.envs[i], nest.tasks[i].player_info
    others = [s for s in range(env.seats) if s not in env.trained_seats]
    return [*env.trained_seats, *(s for n, s in enumerate(others) if entries and entries[min(n, len(entries) - 1)] == SELF)]


@given(tasks=st.lists(TASKS, min_size=1, max_size=4), seed=st.integers(0, 2**30), credit=st.sampled_from(["trajectory", "subtask"]),
       max_turn=st.sampled_from([2, 4, 30]), off_form=st.sampled_from([0.0, 0.2]), order=st.sampled_from(["fixed", "shuffled"]))  # fmt: skip
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_agent_is_paid_for_what_it_did_itself(chatml, tasks, seed, credit, max_turn, off_form, order):
    nest = make_env("compose_new", {"base_env_list": tasks, "credit": credit, "order": order})
    seen = Watched(nest)
    trajectories = episode(chatml, nest, random_policy(chatml, off_form, illegal=off_form / 2), seed=seed, max_turn=max_turn)
    begun = {i for i, _ in seen.order} | {nest.current}
    for t in trajectories:
        mine = {i: seats_of(nest, i)[t.agent] for i in range(len(tasks)) if t.agent < len(seats_of(nest, i))}
        turns = [(i, seat) for i, seat in seen.order if mine.get(i) == seat]
        assert len(turns) == len(t.turns)  # every reply that was sampled was judged
        pay, won = {}, {}
        for i, seat in mine.items():
            result, moves = nest.envs[i].outcome()[seat], seen.moves[i][seat]
            earned = sum(v.reward for v in moves if v is not None and v.valid)
            ended = not nest.envs[i].acting()
            pay[i], won[i] = (earned + result.reward, result.success and ended) if i in begun else (0.0, False)
            name = f"sub/{nest.tasks[i].name}"
            assert (f"{name}/success" in t.metrics) == (i in begun)
            if i in begun:
                assert t.metrics[f"{name}/success"] == won[i]
        lost = {i: sum(-0.25 if v is None else v.reward for v in seen.moves[i][s] if v is None or not v.valid) for i, s in mine.items()}
        if turns:
            assert t.reward == pytest.approx(sum(pay.values()) / len(mine) + sum(lost.values()))
        assert t.success == (all(won.values()) and nest.over and t.status == "finished")
        if credit == "subtask" and turns:
            by_task = defaultdict(float)
            for (i, _), turn in zip(turns, t.turns, strict=True):
                by_task[i] += turn.reward
            played = {i for i, _ in turns}
            final = turns[-1][0]
            for i in played - {final}:  # what was earned where it did not reply lies on its last turn
                assert by_task[i] == pytest.approx(pay[i] / len(mine) + lost[i])
        reached = [i for i in nest._order[: nest._place + 1] if i in mine]
        if turns and reached:
            assert (t.seat, t.role) == (mine[reached[-1]], nest.envs[reached[-1]].role(mine[reached[-1]]))


def test_a_scripted_player_of_one_sub_task_is_not_the_agent_of_another(chatml):
    """Agent 1 exists in the second game alone: nothing that the script did in the first is its own."""
    tasks = [{**GAMES["board"], "player_info": [SCRIPT]}, {**GAMES["board"], "player_info": [SELF]}]
    for seed in range(6):
        nest = make_env("compose_new", {"base_env_list": tasks})
        _, other = episode(chatml, nest, random_policy(chatml), seed=seed)
        (seat,) = set(range(2)) - set(nest.envs[1].trained_seats)
        assert other.agent == 1 and other.reward == nest.envs[1].outcome()[seat].reward
        assert not any(name.startswith("sub/0_") for name in other.metrics)


def test_a_nest_within_a_nest_pays_by_agent(chatml):
    inner = {"env_type": "compose_new", "env_config": {"base_env_list": [{**GAMES["board"], "player_info": [SELF]}, GAMES["matrix"]]}}
    for seed in range(12):
        nest = make_env("compose_new", {"base_env_list": [inner, GAMES["matrix"]]})
        one, other = episode(chatml, nest, random_policy(chatml), seed=seed)
        board, matrix = nest.envs[0].envs
        seat = board.trained_seats[0]
        parts = [board.outcome()[seat].reward, matrix._return]
        assert one.reward == pytest.approx((sum(parts) / 2 + nest.envs[1]._return) / 2)
        assert other.reward == pytest.approx(board.outcome()[1 - seat].reward) and other.success == board.outcome()[1 - seat].success


def test_a_turn_limit_of_a_sub_task_holds_for_both_sides_of_self_play(chatml):
    tasks = [{**GAMES["board"], "player_info": [SELF], "max_turn": 2, "env_config": {"opening_moves": 0, "trained_seat": "second"}}, GAMES["matrix"]]

    def write(prompt, params):
        text = chatml.decode(prompt)
        text = text[text.rfind("Your move") :]
        return encode(chatml, OFF_FORM) if text.startswith("Your move, O") else random_policy(chatml)(prompt, params)

    nest = make_env("compose_new", {"base_env_list": tasks})
    one, other = episode(chatml, nest, write)
    assert [t.valid for t in other.turns] == [False, False] and other.metrics["sub/0_tictactoe/unfinished"] == 1.0
    assert one.status == "finished" and len(one.turns) == 1  # the nest went on to the second game


@given(st.integers(1, 6), st.data())
def test_seatings_number_every_player_once(seats, data):
    trained = data.draw(st.lists(st.integers(0, seats - 1), unique=True, min_size=1))
    entries = data.draw(st.lists(st.sampled_from([SELF, SCRIPT, {**SELF, "checkpoint": "x"}]), max_size=4))
    agents = agent_seats(seats, trained, entries)
    assert list(agents[: len(trained)]) == trained and len(set(agents)) == len(agents)
    assert sorted(player_seats(seats, trained, entries)) == list(by_seat(seats, trained)) == list(range(seats))
    assert entries or agents == tuple(trained)


# -- every reply that is sampled is judged ---------------------------------------------------------


def voters_off_form(tokenizer, long_seat=None, extra=0):
    """Describes well and votes off the form; the player ``long_seat`` thinks at length."""

    def write(prompt, params):
        text = tokenizer.decode(prompt)
        last = text[text.rfind("You are Player") :]
        if "Vote for" in last:
            return encode(tokenizer, OFF_FORM)
        thought = "hm " * extra if last.startswith(f"You are Player {long_seat}.") else "hm"
        return encode(tokenizer, f"<think>{thought}</think><answer>It is known.</answer>")

    return write


def check_judged(trajectories):
    turns = [turn for t in trajectories for turn in t.turns]
    for turn in turns:
        assert turn.valid == (turn.reply != OFF_FORM)
        assert turn.valid or (turn.reward <= -0.25 and "form" in turn.feedback)
    for t in trajectories:
        assert t.metrics["invalid"] == (sum(turn.reply == OFF_FORM for turn in t.turns) / len(t.turns) if t.turns else 0.0)
    return turns


@pytest.mark.parametrize("seed", range(4))
def test_a_round_that_cannot_be_completed_for_want_of_turns_asks_nobody(chatml, seed):
    env, spoken = make_env("undercover", {"rounds": 2}), []

    def write(prompt, params):
        text = chatml.decode(prompt)
        me = re.findall(r"You are Player (\d)", text)[-1]
        spoken.append(me)
        if len(spoken) == 1:
            return encode(chatml, OFF_FORM)  # the first speaker loses a turn, and so has none left for the vote
        return voters_off_form(chatml)(prompt, params)

    trajectories = episode(chatml, env, write, seed=seed, players=[SELF], env_type="undercover", max_turn=3)
    assert {t.status for t in trajectories} == {"unfinished"} and len(trajectories) == 4
    check_judged(trajectories)
    assert len(spoken) == sum(len(t.turns) for t in trajectories) == 9


def test_a_round_in_which_one_has_no_room_asks_nobody(chatml):
    def run(limit):
        env, asked = make_env("undercover", {"rounds": 1}), []
        write = voters_off_form(chatml, long_seat=2, extra=30)

        def counting(prompt, params):
            asked.append(len(prompt))
            return write(prompt, params)

        return asked, episode(chatml, env, counting, seed=3, players=[SELF], env_type="undercover", max_turn=2, max_len=limit)

    asked, trajectories = run(60_000)
    lengths = sorted(asked[4:])
    assert len(asked) == 8 and lengths[-1] > lengths[-2] + 40  # the one who thought at length has the longest prompt
    asked, trajectories = run(lengths[-2] + 20)
    assert len(asked) == 4 and {t.status for t in trajectories} == {"truncated"}  # the vote was not begun
    check_judged(trajectories)


class Voter(Player):
    """Speaks, and at the vote does what it was made to do."""

    name = "voter"

    def __init__(self, vote):
        self.vote = vote

    async def reply(self, view):
        if view.legal is None:
            return "It is known to some."
        if self.vote is None:
            raise PlayerError("the line is dead")
        return self.vote


@pytest.mark.parametrize(("vote", "error"), [(None, "line is dead"), ("nobody", "no legal move")])
def test_a_player_that_fails_keeps_no_reply_from_being_judged(chatml, vote, error):
    """Two agents and two players vote at once; the players fail, whichever seats they have."""
    for seed in range(8):
        env = make_env("undercover", {"rounds": 1})
        make = {"a": Voter(vote), "b": Voter(vote)}
        players = [SELF, {"type": "scripted", "name": "a"}, {"type": "scripted", "name": "b"}]
        trajectories = episode(
            chatml, env, voters_off_form(chatml), seed=seed, players=players, env_type="undercover",
            make_player=lambda entry, _, make=make: make[entry["name"]],
        )  # fmt: skip
        assert [t.status for t in trajectories] == ["aborted"] * 2 and error in trajectories[0].error
        assert sum(turn.reply == OFF_FORM for turn in check_judged(trajectories)) >= 2


# -- rounds that another's move ends, and what a sub-task leaves behind ------------------------------


@dataclass(frozen=True)
class SnapConfig:
    seats: int = 2


class SnapEnv(Env):
    """All say go at once; the first go that is played ends the game and wins. Every move is commented on."""

    seats = 2

    def __init__(self, config=None):
        self.config = config or SnapConfig()

    def reset(self, *, seed):
        self.seats, self.winner = self.config.seats, None

    def acting(self):
        return tuple(range(self.seats)) if self.winner is None else ()

    def observe(self, seat):
        return "Say go"

    def act(self, seat, text):
        self._require_acting(seat)
        if text != "go":
            return Verdict(False, False, "Not like that.", -0.5)
        self.winner = seat
        return Verdict(True, True, f"Seat {seat} was quick.")

    def outcome(self):
        return Outcome(tuple(SeatOutcome(float(s == self.winner), s == self.winner) for s in range(self.seats)))


@pytest.fixture(autouse=True)
def snap_is_registered(monkeypatch):
    monkeypatch.setitem(REGISTERED_ENVS, "snap", f"{__name__}:SnapEnv:SnapConfig")


@pytest.mark.parametrize("late", ["<think>x</think><answer>go</answer>", OFF_FORM])
def test_a_reply_that_comes_too_late_is_judged_by_its_form_alone(chatml, late):
    said = iter(["<think>x</think><answer>go</answer>", late] * 2)
    nest = make_env("compose_new", {"base_env_list": [{"env_type": "snap", "player_info": [SELF]}] * 2})
    one, other = episode(chatml, nest, lambda prompt, params: encode(chatml, next(said)))
    assert one.reward == 1.0 and [t.effective for t in one.turns] == [True, True]
    assert [t.valid for t in other.turns] == [late != OFF_FORM] * 2 and not any(t.effective for t in other.turns)
    assert other.reward == (-0.5 if late == OFF_FORM else 0.0)


class Listener(Player):
    name = "listener"

    def __init__(self):
        self.views = []

    async def reply(self, view):
        self.views.append(view)
        return "go" if view.attempt or len(self.views) > 2 else "hm"


def test_nothing_that_was_said_of_a_reply_reaches_the_next_sub_task(chatml):
    """Neither a comment on the last move nor the number of attempts, for players and for the policy."""
    listener = Listener()
    nest = make_env("compose_new", {"base_env_list": [{"env_type": "snap", "player_info": [SCRIPT], "max_turn": 2}] * 2 + [GAMES["matrix"]] * 2})

    def write(prompt, params):
        text = chatml.decode(prompt)
        if answers(text) == ["go"]:
            return encode(chatml, "<think></think><answer>stop</answer>")
        return encode(chatml, OFF_FORM)  # uses up a matrix game's one turn

    (one,) = episode(chatml, nest, write, make_player=lambda entry, env_type: listener)
    told = [m["content"] for m in one.messages if m["role"] == "user"]
    firsts = [text for text in told if "Task " in text]
    assert len(firsts) == 4 and all(text.startswith("Task ") for text in firsts)  # no "Not like that", no word on the form
    assert any("Not like that" in text for text in told)  # within a sub-task there is
    starts = [v for v in listener.views if not v.attempt]
    assert listener.views[0].attempt == 0 and listener.views[1].attempt == 1 and listener.views[1].feedback == "Not like that."
    assert [v.feedback for v in starts] == [""] * len(starts) and len(starts) >= 2
