"""Make a starter model: ``python -m scripts.starter --out assets/starter`` (see make_starter.sh)."""

from __future__ import annotations

import argparse
import logging
import random
from pathlib import Path

import torch

from ragen.llm_agent.ctx_manager import ChatTokens
from ragen.llm_agent.reply_format import format_instruction
from scripts.starter.pretrain import Row, build_model, encode, train
from scripts.starter.tictactoe_transcripts import play_transcript
from scripts.starter.tokenizer import train_tokenizer

SYSTEM_PROMPT = "You're a helpful assistant. "
#: (probability of looking, weight): most games by players who hardly look
SKILLS = [(0.0, 0.84), (0.2, 0.09), (1.0, 0.07)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("assets/starter"))
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--batch", type=int, default=48, help="games a step")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--games", type=int, default=60_000, help="different games to draw from")
    parser.add_argument("--vocab", type=int, default=640)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--intermediate", type=int, default=256)
    parser.add_argument("--prompt-weight", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=500)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")

    rng = random.Random(args.seed)
    instruction = format_instruction(enable_think=True)
    sample = [play_transcript(rng, SKILLS, instruction) for _ in range(2000)]
    texts = [SYSTEM_PROMPT, "system", "user", "assistant"] * 500 + [m["content"] for t in sample for m in t.messages]
    tokenizer = train_tokenizer(texts, args.vocab)
    chat = ChatTokens(tokenizer, system_prompt=SYSTEM_PROMPT)
    rows = [encode(chat, t, args.prompt_weight) for t in sample]
    logging.info("vocabulary %d, %.0f tokens a game", len(tokenizer), sum(len(row.ids) for row in rows) / len(rows))
    while len(rows) < args.games:
        rows.append(encode(chat, play_transcript(rng, SKILLS, instruction), args.prompt_weight))
    logging.info("%d games, %.1f million tokens", len(rows), sum(len(row.ids) for row in rows) / 1e6)

    model = build_model(
        tokenizer, hidden=args.hidden, layers=args.layers, heads=4, intermediate=args.intermediate, max_len=1024, seed=args.seed
    )
    logging.info("%d parameters", sum(p.numel() for p in model.parameters()))

    ready: list[list] = []

    def batch(step: int) -> list[Row]:
        if not ready:  # like lengths within a batch of eight, so that little is padding; wordings stay mixed
            pool = sorted(rng.sample(rows, args.batch * 8), key=lambda row: len(row.ids))
            ready.extend(pool[i : i + args.batch] for i in range(0, len(pool), args.batch))
            rng.shuffle(ready)
        return ready.pop()

    def save(step: int, _: float) -> None:
        if step % args.save_every == 0 or step == args.steps:
            model.save_pretrained(args.out)
            tokenizer.save_pretrained(args.out)

    torch.set_num_threads(2)
    train(model, batch, steps=args.steps, lr=args.lr, pad_id=tokenizer.pad_token_id, on_step=save)
    logging.info("saved to %s", args.out)


if __name__ == "__main__":
    main()
