"""Make a starter model: ``python -m scripts.starter [tictactoe | games]`` (see make_starter.sh)."""

from __future__ import annotations

import argparse
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ragen.llm_agent.ctx_manager import ChatTokens
from ragen.llm_agent.reply_format import format_instruction
from scripts.starter.game_transcripts import play_episode
from scripts.starter.pretrain import Row, build_model, encode, train
from scripts.starter.tictactoe_transcripts import play_transcript
from scripts.starter.tokenizer import train_tokenizer

SYSTEM_PROMPT = "You're a helpful assistant. "
#: (probability of looking, weight): most games by players who hardly look
SKILLS = [(0.0, 0.84), (0.2, 0.09), (1.0, 0.07)]


@dataclass(frozen=True)
class Recipe:
    """What distinguishes a starter: its transcripts and sizes. ``batch``: transcripts a step at most,
    ``batch_tokens``: tokens a step at most, padding included; ``max_len``: positions;
    ``sample``: transcripts the tokenizer is trained on; ``prompt_share``: see :func:`scripts.starter.pretrain.train`."""

    play: Callable
    out: str
    steps: int
    batch: int
    batch_tokens: int
    games: int
    vocab: int
    layers: int
    intermediate: int
    max_len: int
    sample: int
    prompt_share: float


RECIPES = {
    "tictactoe": Recipe(play_transcript, "assets/starter", 1600, 48, 10**9, 60_000, 640, 3, 256, 1024, 2000, 1.0),
    "games": Recipe(play_episode, "assets/starter-games", 2400, 64, 12_000, 80_000, 1280, 4, 320, 2048, 6000, 0.15),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="?", choices=RECIPES, default="tictactoe")
    recipe = RECIPES[parser.parse_known_args()[0].recipe]
    parser.add_argument("--out", type=Path, default=Path(recipe.out))
    parser.add_argument("--steps", type=int, default=recipe.steps)
    parser.add_argument("--batch", type=int, default=recipe.batch, help="transcripts a step, at most")
    parser.add_argument("--batch-tokens", type=int, default=recipe.batch_tokens, help="tokens a step, at most")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--games", type=int, default=recipe.games, help="different transcripts to draw from")
    parser.add_argument("--vocab", type=int, default=recipe.vocab)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=recipe.layers)
    parser.add_argument("--intermediate", type=int, default=recipe.intermediate)
    parser.add_argument("--prompt-weight", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=500)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")

    rng = random.Random(args.seed)
    instruction = format_instruction(enable_think=True)
    sample = [recipe.play(rng, SKILLS, instruction) for _ in range(recipe.sample)]
    texts = [SYSTEM_PROMPT, "system", "user", "assistant"] * 500 + [m["content"] for t in sample for m in t.messages]
    tokenizer = train_tokenizer(texts, args.vocab)
    chat = ChatTokens(tokenizer, system_prompt=SYSTEM_PROMPT)
    rows = [encode(chat, t, args.prompt_weight) for t in sample]
    logging.info("vocabulary %d, %.0f tokens a game", len(tokenizer), sum(len(row.ids) for row in rows) / len(rows))
    while len(rows) < args.games:
        rows.append(encode(chat, recipe.play(rng, SKILLS, instruction), args.prompt_weight))
    logging.info("%d games, %.1f million tokens", len(rows), sum(len(row.ids) for row in rows) / 1e6)

    model = build_model(
        tokenizer, hidden=args.hidden, layers=args.layers, heads=4, intermediate=args.intermediate, max_len=recipe.max_len, seed=args.seed
    )
    logging.info("%d parameters", sum(p.numel() for p in model.parameters()))

    ready: list[list] = []

    def batch(step: int) -> list[Row]:
        if not ready:  # like lengths within a batch of eight, so that little is padding; wordings stay mixed
            pool = sorted(rng.sample(rows, args.batch * 8), key=lambda row: len(row.ids))
            ready.extend(cut(pool, args.batch, args.batch_tokens))
            rng.shuffle(ready)
        return ready.pop()

    def save(step: int, _: float) -> None:
        if step % args.save_every == 0 or step == args.steps:
            model.save_pretrained(args.out)
            tokenizer.save_pretrained(args.out)

    torch.set_num_threads(2)
    train(model, batch, steps=args.steps, lr=args.lr, pad_id=tokenizer.pad_token_id, prompt_share=recipe.prompt_share, on_step=save)
    logging.info("saved to %s", args.out)


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
