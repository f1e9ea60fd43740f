"""Transcripts of tic-tac-toe by players of mixed skill.

A player of skill ``s`` looks before it moves with probability ``s``: it completes a line if it can
(``win``), stops one if it must (``block``), else takes a cell that keeps the value of the position
(``plan``). When it does not look it takes any free cell (``any``). The thought says which of the four
it was, so what reinforcement has to find is *when to look*, not how.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from ragen.env import make_env
from ragen.env.tictactoe import rules as ttt


@dataclass
class Transcript:
    """``messages`` alternate user/assistant; ``learn[i]`` says whether reply ``i`` is worth imitating."""

    messages: list[dict] = field(default_factory=list)
    learn: list[bool] = field(default_factory=list)

    def add(self, prompt: str, reply: str, learn: bool = True) -> None:
        self.messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]
        self.learn.append(learn)


def choose(board: str, mark: str, skill: float, rng: random.Random) -> tuple[str, int]:
    """Thought and cell of a player of ``skill`` (probability of looking)."""
    if rng.random() >= skill:
        return "any", rng.choice(ttt.empty_cells(board))
    for thought, cells in (
        ("win", ttt.winning_cells(board, mark)),
        ("block", ttt.winning_cells(board, ttt.OTHER[mark])),
        ("plan", ttt.best_cells(board)),
    ):
        if cells:
            return thought, rng.choice(cells)
    raise AssertionError("a game that is not over has a best cell")


def reply_text(thought: str, cell: int) -> str:
    return f"<think>{thought}</think><answer>{ttt.cell_name(cell)}</answer>"


def play_transcript(rng: random.Random, skills: list[tuple[float, float]], instruction: str, mistake_rate: float = 0.04) -> Transcript:
    """One game. ``skills``: (skill, weight) pairs to draw the player's from. The opponent looks with
    a probability of its own, 0 in two of three games. ``mistake_rate``: how often one refused reply
    is shown (and not learnt), so that what follows a refusal is known too."""
    env = make_env("tictactoe", {"opening_moves": 1 if rng.random() < 0.6 else 0})
    env.reset(seed=rng.getrandbits(40))
    me = env.trained_seats[0]
    skill = rng.choices([s for s, _ in skills], [w for _, w in skills])[0]
    opponent_skill = rng.choice((0.0, 0.0, rng.random()))
    transcript, lead = Transcript(), env.rules(me) + instruction + "\n"
    mistake = rng.random() < mistake_rate
    while env.acting():
        seat = env.acting()[0]
        board, mark = env.public(seat)
        if seat != me:
            env.act(seat, ttt.cell_name(choose(board, mark, opponent_skill, rng)[1]))
            continue
        if mistake and board != ttt.EMPTY_BOARD and rng.random() < 0.4:
            taken = rng.choice([i for i in range(9) if board[i] != "."])
            verdict = env.act(seat, ttt.cell_name(taken))
            transcript.add(lead + env.observe(seat), reply_text("any", taken), learn=False)
            lead, mistake = verdict.feedback + "\n", False
        thought, cell = choose(board, mark, skill, rng)
        transcript.add(lead + env.observe(seat), reply_text(thought, cell))
        env.act(seat, ttt.cell_name(cell))
        lead = ""
    return transcript
