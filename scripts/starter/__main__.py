"""Make a starter model: ``python -m scripts.starter [--recipe games]`` (see make_starter.sh)."""

from __future__ import annotations

import argparse
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ragen.llm_agent.ctx_manager import ChatTokens
from ragen.llm_agent.reply_format import format_instruction
from scripts.starter.game_transcripts import play_episode
from scripts.starter.pretrain import Row, build_model, encode, train
from scripts.starter.tictactoe_transcripts import play_transcript
from scripts.starter.tokenizer import train_tokenizer

SYSTEM_PROMPT = "You're a helpful assistant. "
INSTRUCTION = format_instruction(enable_think=True)
#: (probability of looking, weight): most games by players who hardly look
SKILLS = [(0.0, 0.84), (0.2, 0.09), (1.0, 0.07)]


@dataclass(frozen=True)
class Phase:
    """``steps`` of pretraining with a learning rate schedule of their own. ``prompt_weight``: of predicting a prompt's
    token, a reply's being 1; ``prompt_share``: see :func:`scripts.starter.pretrain.train`; ``coached``: share of coached
    episodes; ``parts``: batches of like length that make a step."""

    steps: int
    prompt_weight: float = 0.3
    prompt_share: float = 1.0
    coached: float = 0.5
    parts: int = 1


@dataclass(frozen=True)
class Recipe:
    """What distinguishes a starter: its transcripts and sizes. ``batch``: transcripts of a batch at most,
    ``batch_tokens``: tokens of a batch at most, padding included; ``episodes``: different transcripts a phase;
    ``sample``: transcripts the tokenizer is trained on; ``max_len``: positions."""

    play: Callable
    out: str
    phases: tuple[Phase, ...]
    batch: int
    batch_tokens: int
    episodes: int
    sample: int
    vocab: int
    layers: int
    intermediate: int
    max_len: int


RECIPES = {
    "tictactoe": Recipe(play_transcript, "assets/starter", (Phase(1600),), 48, 10**9, 60_000, 2000, 640, 3, 256, 1024),
    # first language and boards, prompts included; then hardly more than the replies: a matrix game's payoffs cannot be
    # foretold, and their noise kept the model from learning to add
    "games": Recipe(
        play_episode, "assets/starter-games", (Phase(2200, 0.3, 0.15), Phase(2000, 0.02, 0.05, 0.7, 2)),
        64, 12_000, 80_000, 6000, 1280, 4, 320, 2048,
    ),
}  # fmt: skip


def main() -> None:
    first = argparse.ArgumentParser(add_help=False)  # the other options' defaults depend on it
    first.add_argument("--recipe", choices=RECIPES, default="tictactoe")
    recipe = RECIPES[first.parse_known_args()[0].recipe]
    parser = argparse.ArgumentParser(description=__doc__, parents=[first])
    parser.add_argument("--out", type=Path, default=Path(recipe.out))
    parser.add_argument("--first-phase", type=int, default=1, help="go on with the model in OUT from this phase")
    parser.add_argument("--shorten", type=float, default=1.0, help="share of the recipe's steps and transcripts, for a trial")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=400)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(2)
    if args.first_phase == 1:
        tokenizer, model = new_model(recipe, args.seed, args.hidden)
    else:
        tokenizer, model = AutoTokenizer.from_pretrained(args.out), AutoModelForCausalLM.from_pretrained(args.out)
    logging.info("vocabulary %d, %d parameters", len(tokenizer), sum(p.numel() for p in model.parameters()))
    for number in range(args.first_phase, len(recipe.phases) + 1):
        pretrain(recipe, recipe.phases[number - 1], number, model, tokenizer, args)
    logging.info("saved to %s", args.out)


def new_model(recipe: Recipe, seed: int, hidden: int):
    """A tokenizer trained on transcripts of the recipe, and random weights."""
    rng = random.Random(seed)
    sample = [recipe.play(rng, SKILLS, INSTRUCTION) for _ in range(recipe.sample)]
    texts = [SYSTEM_PROMPT, "system", "user", "assistant"] * 500 + [m["content"] for t in sample for m in t.messages]
    tokenizer = train_tokenizer(texts, recipe.vocab)
    sizes = dict(hidden=hidden, layers=recipe.layers, heads=hidden // 32, intermediate=recipe.intermediate, max_len=recipe.max_len)
    return tokenizer, build_model(tokenizer, **sizes, seed=seed)


def pretrain(recipe: Recipe, phase: Phase, number: int, model, tokenizer, args: argparse.Namespace) -> None:
    """One phase; saves to ``args.out`` on the way and at the end."""
    rng = random.Random(f"{args.seed} phase {number}")
    chat = ChatTokens(tokenizer, system_prompt=SYSTEM_PROMPT)
    count, steps = int(recipe.episodes * args.shorten), int(phase.steps * args.shorten)
    rows = [encode(chat, recipe.play(rng, SKILLS, INSTRUCTION, coached=phase.coached), phase.prompt_weight) for _ in range(count)]
    logging.info("phase %d: %d transcripts, %.1f million tokens", number, count, sum(len(row.ids) for row in rows) / 1e6)
    ready: list[list[Row]] = []

    def batch() -> list[Row]:
        if not ready:  # like lengths within a batch, so that little is padding; wordings stay mixed
            pool = sorted(rng.sample(rows, min(recipe.batch * 8, count)), key=lambda row: len(row.ids))
            ready.extend(cut(pool, recipe.batch, recipe.batch_tokens // phase.parts))
            rng.shuffle(ready)
        return ready.pop()

    def save(step: int, _: float) -> None:
        if step % args.save_every == 0 or step == steps:
            model.save_pretrained(args.out)
            tokenizer.save_pretrained(args.out)

    train(
        model, lambda step: [batch() for _ in range(phase.parts)], steps=steps, lr=args.lr,
        pad_id=tokenizer.pad_token_id, prompt_share=phase.prompt_share, on_step=save,
    )  # fmt: skip


def cut(rows: list[Row], size: int, tokens: int) -> list[list[Row]]:
    """Batches of neighbours out of ``rows`` (sorted by length): ``size`` rows or ``tokens`` padded tokens at most."""
    batches: list[list[Row]] = [[]]
    for row in rows:
        if batches[-1] and (len(batches[-1]) == size or (len(batches[-1]) + 1) * len(row.ids) > tokens):
            batches.append([])
        batches[-1].append(row)
    return batches


if __name__ == "__main__":
    main()
