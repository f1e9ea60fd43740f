"""Transcripts of all four games and their nests, by players of mixed skill (:mod:`scripts.starter.teachers`).

As in :mod:`scripts.starter.tictactoe_transcripts`: in coached episodes the prompt says to look and the
player always does; in the others, whose prompt is that of training, it mostly guesses. The prompts are
put together as an episode does it (rules when they are new, then the form, then the observation).
"""

from __future__ import annotations

import random

from ragen.env import make_env
from ragen.env.nash_new.config import PAPER_GAMES
from ragen.env.tictactoe import rules as ttt
from ragen.players.undercover import UndercoverSpeaker
from scripts.starter.teachers import refused_reply, teach
from scripts.starter.tictactoe_transcripts import Transcript, choose

#: as in config/form/laptop.yaml: what the starter has seen is what the laptop form plays
CONFIGS = {
    "math_lv3to5": {"source": "embedded", "levels": (1, 2, 3)},
    "nash_new": {"games": tuple(name for name in PAPER_GAMES if name != "duo_polistic")},  # its 36 cells fill a window
    "tictactoe": {},
    "undercover": {"word_list": "described"},
}
MATH, NASH, TICTACTOE, SPY = CONFIGS
#: (games of an episode, weight); more than one is a nest
EPISODES = [
    ((MATH,), 0.26), ((NASH,), 0.26), ((TICTACTOE,), 0.22), ((SPY,), 0.1),
    ((MATH, NASH), 0.03), ((NASH, TICTACTOE), 0.04), ((MATH, NASH, TICTACTOE), 0.05), ((MATH, NASH, TICTACTOE, SPY), 0.04),
]  # fmt: skip

COACHING = "Look before you answer."


def make_game(games: tuple[str, ...], rng: random.Random):
    configs = {name: dict(CONFIGS[name]) for name in games}
    if TICTACTOE in configs:
        configs[TICTACTOE]["opening_moves"] = 1 if rng.random() < 0.6 else 0
    if len(games) == 1:
        env = make_env(games[0], configs[games[0]])
    else:
        env = make_env("compose_new", {"base_env_list": [{"env_type": name, "env_config": configs[name]} for name in games]})
    env.reset(seed=rng.getrandbits(40))
    return env


def play_episode(rng: random.Random, skills: list[tuple[float, float]], instruction: str, *, coached: float = 0.5, mistake_rate: float = 0.04) -> Transcript:
    """One episode. The arguments are those of ``play_transcript``."""
    games = rng.choices([games for games, _ in EPISODES], [weight for _, weight in EPISODES])[0]
    env = make_game(games, rng)
    skill = rng.choices([s for s, _ in skills], [w for _, w in skills])[0]
    if rng.random() < coached:
        skill, instruction = 1.0, f"{instruction} {COACHING}"
    opponent_skill = rng.choice((0.0, 0.0, rng.random()))
    mistakes = rng.random() < mistake_rate * len(games)
    transcript, shown, feedback = Transcript(), None, ""
    while env.acting():
        seat = env.acting()[0]
        name, game = getattr(env, "current_env_type", games[0]), getattr(env, "env", env)
        if seat not in env.trained_seats:
            env.act(seat, _opponent(name, game, seat, opponent_skill, rng))
            continue
        rules = env.rules(seat)
        lead = feedback + "\n" if feedback else ""
        if rules != shown:  # as Episode._prompt_text
            lead += (rules if not rules or rules.endswith("\n") else rules + "\n") + instruction + "\n"
        shown, prompt = rules, lead + env.observe(seat)
        said = refused_reply(name, game, seat, rng) if mistakes and rng.random() < 0.4 else None
        learn = said is None
        mistakes = mistakes and learn
        said = said or teach(name, game, seat, rng.random() < skill, rng)
        transcript.add(prompt, f"<think>{said.thought}</think><answer>{said.answer}</answer>", list(said.choices), learn=learn)
        feedback = env.act(seat, said.answer).feedback
    return transcript


def _opponent(name: str, game, seat: int, skill: float, rng: random.Random) -> str:
    if name == TICTACTOE:
        board, mark = game.public(seat)
        return ttt.cell_name(rng.choice(choose(board, mark, skill, rng)[1]))
    speaker, seen = UndercoverSpeaker(), game.public(seat)
    return speaker.describe(seen, rng) if seen.phase == "describe" else speaker.vote(seen, rng)
