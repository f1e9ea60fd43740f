"""The report in the terminal: the headline, or episodes as conversations with their boards.

Texts of models and envs are shown as they are, control characters made visible: a reply cannot move
the cursor, change colours or be read as markup.
"""

from __future__ import annotations

import argparse
import math
import re

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ragen.report.boards import board_text
from ragen.report.console import duration, sparkline
from ragen.report.episodes import Card, index_run, mask_faults, read_rows
from ragen.report.headline import Headline, headline
from ragen.report.outcome import outcome
from ragen.report.runs import ReportError, Run, load_run

#: episodes shown when no number is asked for
FIRST = 3
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_BLOCKS = re.compile(r"<(think|answer)>(.*?)</\1>", re.DOTALL)
_OUTCOME_STYLES = {"win": "bold blue", "draw": "bold", "loss": "bold dark_orange", "aborted": "bold magenta", "truncated": "bold magenta"}


#: (field of a card, option that chooses by it)
_FILTERS = (
    ("phase", "phase"), ("tag", "task"), ("opponent", "opponent"), ("outcome", "outcome"), ("step", "step"), ("group", "group"), ("member", "member"),
)  # fmt: skip


def show(args: argparse.Namespace, console: Console | None = None) -> int:
    """``python -m ragen.report show``: the headline, unless the arguments choose episodes."""
    console = console or Console()
    run = load_run(args.run)
    cards = index_run(run)
    chosen_by = (*(option for _, option in _FILTERS), "worst", "best", "first", "tokens")
    chooses = any(getattr(args, name) is not None for name in chosen_by)
    if not chooses:
        print_headline(console, run, headline(run, cards))
        return 0
    chosen, of = pick(cards, args)
    rows = read_rows(chosen)
    for row in rows:
        print_episode(console, row, args.tokens)
    console.print(Text(f"{len(chosen)} of {of} episodes that fit", style="dim"))
    return 0


def safe(text: object) -> str:
    """Control and direction characters as ``\\x1b``: what a model wrote must not steer a terminal."""
    return _CONTROL.sub(lambda m: f"\\x{ord(m[0]):02x}" if ord(m[0]) < 256 else f"\\u{ord(m[0]):04x}", str(text).replace("\r\n", "\n"))


# -- which episodes -----------------------------------------------------------------------------


def pick(cards: list[Card], args: argparse.Namespace) -> tuple[list[Card], int]:
    """The episodes that the arguments ask for, and of how many. Raises :class:`ReportError` naming
    what there is when none fits."""
    if not cards:
        raise ReportError(f"{args.run}: the run wrote no trajectories")
    fit = cards
    for name, option in _FILTERS:
        wanted = getattr(args, option)
        if wanted is None:
            continue
        here = [c for c in fit if getattr(c, name) == wanted]
        if not here:
            there = sorted({getattr(c, name) for c in fit})
            said = ", ".join(map(str, there[:20])) + (", …" if len(there) > 20 else "")
            raise ReportError(f"no episode with --{option} {wanted}; there is {option} {said}")
        fit = here
    if args.step is None:
        last = max(c.step for c in fit)
        fit = [c for c in fit if c.step == last]
    if args.tokens:
        fit = [c for c in fit if c.tokens]
        if not fit:
            raise ReportError("none of these episodes carries its tokens: only a sample of each step does; leave --tokens out, or ask for another step")
    count = args.worst or args.best or args.first or FIRST
    if args.worst or args.best:
        fit = sorted(fit, key=lambda c: c.reward, reverse=bool(args.best))
    return fit[:count], len(fit)


# -- headline -----------------------------------------------------------------------------------


def print_headline(console: Console, run: Run, head: Headline) -> None:
    console.print(Text(safe(run.name), style="dim"))
    console.print(Text(safe(head.sentence), style="bold"))
    if head.doubt:
        console.print(Text(f"▲ {safe(head.doubt)}", style="bold dark_orange"))
    console.print(_results_table(run, head))
    cost = head.cost
    console.print(Text(f"{duration(cost.seconds)} · {cost.steps:,} steps · {cost.episodes:,.0f} training episodes · {cost.tokens:,.0f} tokens sampled"))
    for warning in head.warnings:
        first, last = warning.steps
        steps = f"step {first}" if first == last else f"steps {first} to {last}"
        style = "dark_orange" if warning.severity == "bad" else "yellow"
        console.print(Text.assemble((f"▲ {warning.title} ", f"bold {style}"), (f"({steps}) ", "dim"), safe(warning.text), (f" {warning.remedy}", "dim")))
    if head.telling:
        console.print(Text("\nEpisodes to read", style="bold"))
    for told in head.telling:
        console.print(Text(f"  {told.title}. {safe(told.why)}"))
        for card in told.cards:
            console.print(Text(f"    {_command(run, card, told.view)}", style="blue"), soft_wrap=True)


def _command(run: Run, card: Card, view: str) -> str:
    tokens = " --tokens trained" if view == "tokens" else ""
    return f"python -m ragen.report show {run.folder} --phase {card.phase} --step {card.step} --group {card.group} --member {card.member}{tokens}"


def _results_table(run: Run, head: Headline) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("task", "first", "last", "change", "verdict", "training", "measured by"):
        table.add_column(name)
    for r in head.results:
        what = r.verdict + (f" (lost {r.losses[0]:.0%} → {r.losses[1]:.0%})" if r.losses else "")
        change = f"{100 * (r.last - r.first):+.0f}" + (f" ({100 * r.change[0]:+.0f} to {100 * r.change[1]:+.0f})" if r.change else "")
        curve = sparkline([v for _, v in run.series(f"train/{r.tag}/success")])
        basis = f"{r.basis}, step {r.steps[0]} to {r.steps[1]}" + (f", {r.episodes[1]:,} episodes" if r.episodes[1] else "")
        table.add_row(*(Text(safe(cell)) for cell in (r.tag, f"{r.first:.0%}", f"{r.last:.0%}", change, what, curve, basis)))
    return table


# -- one episode --------------------------------------------------------------------------------


def print_episode(console: Console, row: dict, tokens: str | None = None) -> None:
    how = outcome(row)
    facts = [
        f"step {row['step']}", "validation" if row["phase"] == "val" else "training", f"group {row.get('group')}, member {row.get('member')}",
        f"seed {row.get('seed')}", f"against {row['opponent']}" if row.get("opponent") else "", f"as {row['role']}" if row.get("role") else "",
    ]  # fmt: skip
    title = Text.assemble((f" {safe(row['tag'])} ", "bold"), (how, _OUTCOME_STYLES.get(how, "")), f"  reward {row.get('reward') or 0:+.3g} ")
    console.print(Panel(Text(safe(" · ".join(f for f in facts if f)), style="dim"), title=title, title_align="left", border_style="dim"))
    if row.get("error"):
        console.print(Text(f"✕ {safe(row['error'])}", style="dark_orange"))
    if tokens:
        _print_tokens(console, row, tokens)
    else:
        _print_turns(console, row)
    console.print()


def _print_turns(console: Console, row: dict) -> None:
    number, public, rewards = 0, row.get("public") or [], row.get("turn_rewards") or []
    for message in row.get("messages") or ():
        if message.get("role") != "assistant":
            if str(message.get("content", "")).strip():
                console.print(Padding(Text(safe(message["content"]).strip(), style="dim"), (0, 0, 0, 2)))
            continue
        answer = ([m[2] for m in _BLOCKS.finditer(message["content"]) if m[1] == "answer"] or [""])[-1]
        board = board_text(public[number] if number < len(public) else None, answer)
        if board:
            console.print(Padding(Text(safe(board)), (0, 0, 0, 4)))
        console.print(_reply(message, number, rewards))
        number += 1


def _reply(message: dict, number: int, rewards: list) -> Text:
    text = Text(f"▌ turn {number + 1} ", style="bold")
    reward = message.get("reward") if message.get("reward") is not None else rewards[number] if number < len(rewards) else None
    if reward is not None:
        text.append(f"reward {reward:+.3g} ", style="blue" if reward > 0 else "dark_orange" if reward < 0 else "dim")
    text.append("\n")
    last = 0
    content = message["content"]
    for block in _BLOCKS.finditer(content):
        text.append(safe(content[last : block.start()]), style="default")
        text.append(safe(block[2]).strip() + "\n", style="italic dim" if block[1] == "think" else "bold")
        last = block.end()
    text.append(safe(content[last:]), style="default")
    text.rstrip()
    if message.get("valid") is False:
        text.append(f"\n✕ refused: {safe(message.get('feedback') or 'no reason given')}", style="dark_orange")
    return text


def _print_tokens(console: Console, row: dict, mode: str) -> None:
    tokens = row["tokens"]
    scale = max([abs(a) for a in tokens["advantage"] if a is not None] or [1.0]) or 1.0
    body = Text()
    for text, trained, logprob, advantage in zip(tokens["text"], tokens["trained"], tokens["logprob"], tokens["advantage"], strict=True):
        body.append(safe(text), style=_token_style(mode, trained, logprob, advantage, scale))
    share = sum(map(bool, tokens["trained"])) / max(1, len(tokens["trained"]))
    console.print(Text(f"{share:.0%} of {len(tokens['text']):,} tokens trained; coloured by {mode}", style="dim"))
    if stray := mask_faults(row)[0]:
        console.print(Text(f"▲ {stray:,} trained tokens that the policy did not sample", style="bold dark_orange"))
    console.print(body)


def _token_style(mode: str, trained: object, logprob: float | None, advantage: float | None, scale: float) -> str:
    if mode == "trained":
        return "dim" if not trained else "on dark_blue" if logprob is not None else "on dark_orange3"
    if mode == "advantage":
        if not trained or advantage is None:
            return "dim"
        strong = abs(advantage) > scale / 2
        return ("on blue" if strong else "on dark_blue") if advantage >= 0 else ("on dark_orange3" if strong else "on orange4")
    if logprob is None:
        return "dim"
    return "" if logprob > math.log(0.5) else "on orange4" if logprob > math.log(0.05) else "on dark_orange3"
