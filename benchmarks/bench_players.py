"""Games a second with slow opponents: episodes as coroutines against a barrier after every turn.

Both play the same games over the same engine with the same opponents, which take 0.2 to 2 s a move
(log-normal). With a barrier nobody moves before the slowest opponent of the round has.
"""

from __future__ import annotations

import concurrent.futures
import math
import time
from pathlib import Path

from ragen.env.base import derived_rng
from ragen.llm_agent.agent_proxy import AgentProxy
from ragen.llm_agent.ctx_manager import ChatTokens
from ragen.llm_agent.episode import EpisodeLimits, Sampling
from ragen.llm_agent.es_manager import deal_groups, deal_to_ranks, read_tags
from ragen.llm_agent.tasks import Runner
from ragen.players.base import Pending, Player

GAMES = 24
STARTER = Path(__file__).resolve().parents[1] / "assets" / "starter"
TAGS = {"T": {"env_type": "tictactoe", "env_config": {"opening_moves": 0, "player_info": [{"type": "scripted", "name": "slow"}]}}}


def seconds_of(seed: int, public) -> float:
    """Log-normal with median 0.5 s, cut to [0.2, 2]."""
    return min(2.0, max(0.2, math.exp(derived_rng("latency", seed, public).gauss(math.log(0.5), 0.8))))


class SlowPlayer(Player):
    """Answers on a thread after its time; any legal cell."""

    name = "slow"

    def __init__(self, threads: int):
        self._pool = concurrent.futures.ThreadPoolExecutor(threads)

    async def reply(self, view):
        return await Pending(self._pool.submit(self._answer, view))

    def _answer(self, view) -> str:
        time.sleep(seconds_of(view.seed, view.public))
        return derived_rng(view.seed, view.public).choice(view.legal)


class BarrierRunner(Runner):
    """A runner that goes on only when every outstanding answer has come, and calls opponents one after another:
    what an environment does that asks its opponent inside ``step()``."""

    def _collect(self, block: bool) -> None:
        while self._waiting:
            super()._collect(block=True)


def play(runner_class: type[Runner], threads: int) -> tuple[float, int]:
    from transformers import AutoTokenizer

    from verl.workers.rollout.vllm_rollout import VLLMEngine

    tags = read_tags(TAGS, "train")
    specs = deal_to_ranks(deal_groups(base_seed=3, phase="bench", step=0, tags=tags, plays=[("T", GAMES)], group_size=1), 1)[0]
    engine = VLLMEngine(str(STARTER), max_model_len=512)
    chat = ChatTokens(AutoTokenizer.from_pretrained(STARTER), system_prompt="You're a helpful assistant. ")
    player = SlowPlayer(threads)
    proxy = AgentProxy([engine], chat, lambda entry, env_type: player, EpisodeLimits(5, 512), runner_class=runner_class)
    sampling = Sampling((3, "bench", 0), 32)
    proxy.play(specs[:2], tags, sampling)  # the engine's first calls are slow
    started = time.perf_counter()
    trajectories = proxy.play(specs, tags, sampling)
    took = time.perf_counter() - started
    engine.close()
    return took, sum(len(t.turns) for t in trajectories)


def run() -> list[dict]:
    free, turns = play(Runner, threads=GAMES)
    barrier, same = play(BarrierRunner, threads=1)
    assert turns == same, "the two must play the same games"
    detail = f"{GAMES} games, {turns} turns: {free:.1f} s against {barrier:.1f} s with a barrier and opponents in turn"
    return [{"name": "games/s, coroutines over barrier", "ratio": barrier / free, "target": ">= 5", "detail": detail}]
