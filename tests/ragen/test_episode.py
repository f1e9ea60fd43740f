"""Episodes over a scripted engine: order, seeds, turns, rewards, opponents that fail."""

import concurrent.futures
import threading
import time

import pytest
from toy_engine import ScriptedEngine

from ragen.llm_agent.agent_proxy import AgentProxy
from ragen.llm_agent.batch import build_batch
from ragen.llm_agent.ctx_manager import ChatTokens
from ragen.llm_agent.episode import EpisodeLimits, Sampling
from ragen.llm_agent.es_manager import deal_groups, deal_to_ranks, read_tags
from ragen.players.base import Pending, Player, PlayerError
from ragen.players.factory import PlayerFactory

TAGS = {
    "T": {"env_type": "tictactoe", "env_config": {"opening_moves": 0, "player_info": [{"type": "scripted", "name": "random"}]}},
    "S": {"env_type": "tictactoe", "env_config": {"opening_moves": 0, "player_info": [{"type": "policy"}]}},
}


def first_free_cell(tokenizer, tail=""):
    """A policy that takes the first free cell it sees, well formed."""

    def write(prompt, params):
        board = tokenizer.decode(prompt)
        start = board.rindex("(1,1)")
        cell = next(f"({r},{c})" for r in (1, 2, 3) for c in (1, 2, 3) if f"({r},{c})-" in board[start:])
        text = f"<think>hm{tail}</think><answer>{cell}</answer>"
        return tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]

    return write


def proxy(tokenizer, write, limits=None, players=None, max_len=4096):
    engine = ScriptedEngine(write, max_len)
    limits = limits or EpisodeLimits(max_turn=5, max_model_len=max_len)
    return AgentProxy([engine], ChatTokens(tokenizer), players or PlayerFactory(), limits), engine


def play(agent_proxy, tag="T", groups=2, size=3, step=1, **sampling):
    tags = read_tags(TAGS, "train")
    dealt = deal_groups(base_seed=7, phase="train", step=step, tags=tags, plays=[(tag, groups)], group_size=size)
    specs = deal_to_ranks(dealt, 1)[0]
    return agent_proxy.play(specs, tags, Sampling((7, "train", step), 64, **sampling))


def test_a_group_shares_one_prompt_and_one_opponent_and_comes_back_in_order(chatml):
    agent_proxy, engine = proxy(chatml, first_free_cell(chatml))
    trajectories = play(agent_proxy)
    assert [t.key for t in trajectories] == sorted(t.key for t in trajectories)
    for group in (0, 1):
        members = [t for t in trajectories if t.group == group]
        # one policy without randomness, one opponent that answers by (seed, board): the same game thrice
        assert len(members) == 3 and len({tuple(t.samples[0].ids) for t in members}) == 1
        assert len({t.seed for t in members}) == 1
    assert len(set(engine.seeds)) == len(engine.seeds)  # every request draws from a seed of its own


def test_request_seeds_depend_on_run_step_group_member_and_turn_alone(chatml):
    runs = []
    for size in (2, 3):
        agent_proxy, engine = proxy(chatml, first_free_cell(chatml))
        by_prompt = play(agent_proxy, size=size)
        assert len(by_prompt) == 2 * size
        runs.append(set(engine.seeds))
    assert runs[0] < runs[1]  # more members change nobody else's seed


def test_rewards_lie_on_the_turns_that_earned_them(chatml):
    replies = iter(range(10**6))

    def write(prompt, params):
        if next(replies) % 2 == 0:
            return chatml("no form at all", add_special_tokens=False)["input_ids"] + [chatml.eos_token_id]
        return first_free_cell(chatml)(prompt, params)

    agent_proxy, _ = proxy(chatml, write, EpisodeLimits(max_turn=10, max_model_len=4096, format_penalty=-0.25))
    (trajectory,) = play(agent_proxy, groups=1, size=1)
    off_form = trajectory.turns[0::2]
    assert off_form and all(not t.valid and t.reward == -0.25 and "form" in t.feedback for t in off_form)
    assert trajectory.reward == pytest.approx(sum(t.reward for t in trajectory.turns))
    batch = build_batch([trajectory], chatml.pad_token_id)
    scores = batch.batch["token_level_scores"][0]
    for turn in trajectory.turns:
        assert float(scores[turn.end - 2]) == pytest.approx(turn.reward)  # aligned with responses = ids[1:]
    assert float(scores.sum()) == pytest.approx(trajectory.reward)
    trained = batch.batch["responses"][0][batch.batch["response_mask"][0]].tolist()
    assert trained == [i for i, m in zip(trajectory.samples[0].ids, trajectory.samples[0].mask, strict=True) if m]


def test_out_of_turns_is_unfinished_and_earns_no_result(chatml):
    agent_proxy, _ = proxy(chatml, first_free_cell(chatml), EpisodeLimits(max_turn=1, max_model_len=4096))
    played = play(agent_proxy)
    assert played
    for t in played:
        assert t.status == "unfinished" and not t.success and t.reward == 0 and len(t.turns) == 1


def test_a_prompt_that_no_longer_fits_ends_as_truncated_without_unanswered_tokens(chatml):
    agent_proxy, engine = proxy(chatml, first_free_cell(chatml, " long thoughts" * 4))
    play(agent_proxy, groups=1, size=1)
    limit = len(engine.prompts[0]) + 20  # one reply fits, cut; the next prompt does not
    agent_proxy, _ = proxy(chatml, first_free_cell(chatml, " long thoughts" * 4), EpisodeLimits(5, limit), max_len=limit)
    (t,) = play(agent_proxy, groups=1, size=1)
    assert t.status == "truncated" and len(t.samples[0].ids) <= limit and t.samples[0].mask[-1]


def test_self_play_trains_both_seats(chatml):
    agent_proxy, _ = proxy(chatml, first_free_cell(chatml))
    trajectories = play(agent_proxy, tag="S", groups=1, size=1)
    assert [t.agent for t in trajectories] == [0, 1]
    assert {t.role for t in trajectories} == {"O", "X"} and all(t.turns for t in trajectories)
    assert {t.reward for t in trajectories} == {1.0, 0.0}  # opposite rewards in one session
    assert len(set(build_batch(trajectories, 0).non_tensor_batch["uid"])) == 2


class Slow(Player):
    """Answers on another thread; fails on purpose in one game of two if asked to."""

    name = "slow"
    _threads = concurrent.futures.ThreadPoolExecutor(16)

    def __init__(self, seconds, fail_seeds=()):
        self.seconds, self.fail_seeds, self.busy, self.most = seconds, fail_seeds, 0, 0
        self._lock = threading.Lock()

    async def reply(self, view):
        return await Pending(self._threads.submit(self._answer, view))

    def _answer(self, view):
        with self._lock:
            self.busy += 1
            self.most = max(self.most, self.busy)
        time.sleep(self.seconds)
        with self._lock:
            self.busy -= 1
        if view.seed in self.fail_seeds:
            raise PlayerError("no answer")
        return view.legal[0]


def test_slow_players_hold_up_nobody_else(chatml):
    slow = Slow(0.05)
    agent_proxy, _ = proxy(chatml, first_free_cell(chatml), players=lambda entry, env_type: slow)
    started = time.perf_counter()
    trajectories = play(agent_proxy, groups=4, size=3)
    took = time.perf_counter() - started
    waits = sum(len(t.turns) for t in trajectories) * 0.05
    assert slow.most > 3 and took < 0.6 * waits  # one at a time would take at least `waits`


def test_an_opponent_that_fails_aborts_its_episode_alone(chatml):
    tags = read_tags(TAGS, "train")
    dealt = deal_groups(base_seed=7, phase="train", step=1, tags=tags, plays=[("T", 2)], group_size=3)
    slow = Slow(0.0, fail_seeds={dealt[0][0].seed})
    agent_proxy, _ = proxy(chatml, first_free_cell(chatml), players=lambda entry, env_type: slow)
    trajectories = play(agent_proxy)
    assert [t.status == "aborted" for t in trajectories] == [True] * 3 + [False] * 3
    assert "no answer" in trajectories[0].error
    assert set(build_batch(trajectories, 0).non_tensor_batch["group"].tolist()) == {1}  # left out of the loss


class Stubborn(Player):
    name = "stubborn"

    async def reply(self, view):
        return "<answer>(9,9)</answer>"


def test_an_opponent_without_a_legal_move_aborts(chatml):
    agent_proxy, _ = proxy(chatml, first_free_cell(chatml), players=lambda entry, env_type: Stubborn())
    for t in play(agent_proxy):
        assert t.status == "aborted" and "no legal move" in t.error


def test_a_bug_in_a_game_is_raised_not_swallowed(chatml, monkeypatch):
    from ragen.env.tictactoe import TicTacToeEnv

    monkeypatch.setattr(TicTacToeEnv, "observe", lambda self, seat: 1 / 0)
    agent_proxy, _ = proxy(chatml, first_free_cell(chatml))
    with pytest.raises(ZeroDivisionError):
        play(agent_proxy)


def test_a_past_self_plays_on_an_engine_that_joins_when_it_is_first_asked(chatml):
    from ragen.players.policy import PastSelfPlayer

    later = ScriptedEngine(first_free_cell(chatml))
    agent_proxy, engine = proxy(chatml, first_free_cell(chatml))

    def past_self(entry):
        agent_proxy.engines.append(later)
        return PastSelfPlayer("past", len(agent_proxy.engines) - 1, agent_proxy.chat, max_tokens=64, enable_think=True)

    agent_proxy.players = PlayerFactory(past_self)
    entry = {"env_type": "tictactoe", "env_config": {"opening_moves": 0, "player_info": [{"type": "policy", "checkpoint": "somewhere"}]}}
    tags = read_tags({"P": entry}, "train")
    dealt = deal_groups(base_seed=7, phase="train", step=1, tags=tags, plays=[("P", 2)], group_size=3)
    trajectories = agent_proxy.play(deal_to_ranks(dealt, 1)[0], tags, Sampling((7, "train", 1), 64))
    assert [t.status for t in trajectories] == ["finished"] * 6 and {t.opponent for t in trajectories} == {"past"}
    assert later.prompts and engine.prompts  # both played
    assert all(t.samples[0].mask.count(True) == sum(turn.end - turn.start for turn in t.turns) for t in trajectories)  # its tokens are not trained
