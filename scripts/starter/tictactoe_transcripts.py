"""Transcripts of tic-tac-toe by players of mixed skill.

A player of skill ``s`` looks before it moves with probability ``s`` (thought ``look``): it completes a
line if it can, stops one if it must, else takes a cell that keeps the value of the position. When it
does not look it takes any free cell (``guess``). In coached games the prompt says to look, and the player
always does; in the others, whose prompt is the one that training and evaluation use, it mostly guesses.
So the model knows how to look and seldom does; that looking pays is left for reinforcement to find.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from ragen.env import make_env
from ragen.env.tictactoe import rules as ttt


@dataclass
class Transcript:
    """``messages`` alternate user/assistant; ``learn[i]`` says whether reply ``i`` is worth imitating;
    ``choices[i]``: all answers that the player might have given with that thought, equally likely."""

    messages: list[dict] = field(default_factory=list)
    learn: list[bool] = field(default_factory=list)
    choices: list[list[str]] = field(default_factory=list)

    def add(self, prompt: str, reply: str, choices: list[str], learn: bool = True) -> None:
        self.messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]
        self.learn.append(learn)
        self.choices.append(choices)


def choose(board: str, mark: str, skill: float, rng: random.Random) -> tuple[str, tuple[int, ...]]:
    """Thought of a player of ``skill`` (probability of looking), and the cells it picks from at random."""
    if rng.random() >= skill:
        return "guess", ttt.empty_cells(board)
    # a thought that names its reason ("look: win") was worse: reinforcement then moves the names, not the habit
    best = ttt.winning_cells(board, mark) or ttt.winning_cells(board, ttt.OTHER[mark]) or ttt.best_cells(board)
    return "look", best


def reply_text(thought: str, cell: int) -> str:
    return f"<think>{thought}</think><answer>{ttt.cell_name(cell)}</answer>"


#: what the prompt of a coached game says in addition
COACHING = "Look before you move."


def play_transcript(
    rng: random.Random, skills: list[tuple[float, float]], instruction: str, *, coached: float = 0.5, mistake_rate: float = 0.04
) -> Transcript:
    """One game. ``skills``: (skill, weight) pairs to draw the player's from; ``coached``: share of games
    whose prompt says to look (skill 1). The opponent looks with a probability of its own, 0 in two of
    three games. ``mistake_rate``: how often one refused reply is shown (and not learnt), so that what
    follows a refusal is known too."""
    env = make_env("tictactoe", {"opening_moves": 1 if rng.random() < 0.6 else 0})
    env.reset(seed=rng.getrandbits(40))
    me = env.trained_seats[0]
    skill = rng.choices([s for s, _ in skills], [w for _, w in skills])[0]
    if rng.random() < coached:
        skill, instruction = 1.0, f"{instruction} {COACHING}"
    opponent_skill = rng.choice((0.0, 0.0, rng.random()))
    transcript, lead = Transcript(), env.rules(me) + instruction + "\n"
    mistake = rng.random() < mistake_rate
    while env.acting():
        seat = env.acting()[0]
        board, mark = env.public(seat)
        if seat != me:
            env.act(seat, ttt.cell_name(rng.choice(choose(board, mark, opponent_skill, rng)[1])))
            continue
        if mistake and board != ttt.EMPTY_BOARD and rng.random() < 0.4:
            taken = rng.choice([i for i in range(9) if board[i] != "."])
            verdict = env.act(seat, ttt.cell_name(taken))
            transcript.add(lead + env.observe(seat), reply_text("guess", taken), [], learn=False)
            lead, mistake = verdict.feedback + "\n", False
        thought, cells = choose(board, mark, skill, rng)
        cell = rng.choice(cells)
        transcript.add(lead + env.observe(seat), reply_text(thought, cell), [ttt.cell_name(c) for c in cells])
        env.act(seat, ttt.cell_name(cell))
        lead = ""
    return transcript
