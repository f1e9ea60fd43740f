"""The answer to "did it learn, on what, at what cost", and the three episodes that say most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ragen.report.episodes import Card, mask_faults, read_rows, widest_pair
from ragen.report.outcome import difference, wilson
from ragen.report.runs import Run
from ragen.report.warnings import RunWarning, number, warning_spans

#: steps averaged at either end where a run never validates
ENDS = 5
#: trajectories with tokens that are searched for a wrong mask
MASK_SAMPLES = 60
_GIVEN_UP = "Given up"


@dataclass(frozen=True)
class TaskResult:
    """First and last success of one task with 95% intervals. ``basis``: "validation" or "training".
    ``episodes``: behind (first, last), 0 where unknown. ``change``: interval of last - first,
    ``None`` where the numbers of episodes are unknown. ``best``: (step, success). ``losses``: shares
    lost, first and last, where the task logs them."""

    tag: str
    basis: str
    steps: tuple[int, int]
    first: float
    last: float
    best: tuple[int, float]
    episodes: tuple[int, int]
    intervals: tuple[tuple[float, float], tuple[float, float]] | None
    change: tuple[float, float] | None
    losses: tuple[float, float] | None = None

    @property
    def verdict(self) -> str:
        """"learned" (it wins more), "steadier" (it wins as often and loses less: all there is to
        learn against a perfect player), "worse" or "unclear" (the intervals hold 0, or are unknown)."""
        if self.change is None or self.steps[0] == self.steps[1]:
            return "unclear"
        if self.change[0] > 0 or self.change[1] < 0:
            return "learned" if self.change[0] > 0 else "worse"
        lost = difference(*self.losses, *self.episodes) if self.losses else (0.0, 0.0)
        return "steadier" if lost[1] < 0 else "worse" if lost[0] > 0 else "unclear"


@dataclass(frozen=True)
class Cost:
    """What the run took. ``seconds``: wall time of its steps. ``tokens``: sampled by the policy."""

    steps: int
    seconds: float
    tokens: float
    episodes: float


@dataclass(frozen=True)
class Telling:
    """One or two episodes to read, and why. ``view``: "conversation" or "tokens"."""

    title: str
    why: str
    cards: tuple[Card, ...]
    view: str = "conversation"


@dataclass(frozen=True)
class Headline:
    """``sentence``: the answer in words. ``doubt``: why it may not hold, or empty."""

    sentence: str
    doubt: str
    results: list[TaskResult]
    cost: Cost
    warnings: list[RunWarning]
    telling: list[Telling]


def headline(run: Run, cards: Sequence[Card]) -> Headline:
    results = task_results(run, cards)
    warnings, wrong = warning_spans(run.metrics), mask_warning(cards)
    if wrong:
        warnings = [wrong[0], *warnings]
    told = telling_episodes(cards, results, wrong[1] if wrong else None)
    return Headline(sentence(results), doubt(warnings), results, cost(run), warnings, told)


# -- did it learn -------------------------------------------------------------------------------


def task_results(run: Run, cards: Sequence[Card] = ()) -> list[TaskResult]:
    """One result a task: validated tasks by validation, others by their first and last training steps."""
    validated = [t for t in run.tags("val") if len(run.series(f"val/{t}/success")) > 1]
    trained = [t for t in run.tags("train") if t not in validated]
    return [_validated(run, tag, cards) for tag in validated] + [_trained(run, tag) for tag in trained]


def _validated(run: Run, tag: str, cards: Sequence[Card]) -> TaskResult:
    curve = run.series(f"val/{tag}/success")
    (step0, first), (step1, last) = curve[0], curve[-1]
    episodes = tuple(_val_episodes(run, tag, s, cards) for s in (step0, step1))
    lost = dict(run.series(f"val/{tag}/loss"))
    losses = (lost[step0], lost[step1]) if step0 in lost and step1 in lost else None
    return _result(tag, "validation", curve, (step0, step1), (first, last), episodes, losses)


def _val_episodes(run: Run, tag: str, step: int, cards: Sequence[Card]) -> int:
    """Episodes behind a validation: logged, else configured, else counted in the trajectories."""
    row = next((row for row in run.metrics if row["step"] == step), {})
    if logged := number(row, f"val/{tag}/episodes"):
        return int(logged)
    tags = run.config.get("es_manager.val.env_configs.tags") or []
    groups = run.config.get("es_manager.val.env_configs.n_groups") or []
    size = run.config.get("es_manager.val.group_size") or 0
    if tag in tags and len(groups) == len(tags):
        return int(groups[tags.index(tag)]) * int(size)
    return sum(card.tag == tag and card.step == step and card.phase == "val" for card in cards)


def _trained(run: Run, tag: str) -> TaskResult:
    curve = run.series(f"train/{tag}/success")
    ends = max(1, min(ENDS, len(curve) // 2))
    tags = len(run.tags("train"))
    episodes = [(dict(run.series("rollout/episodes")).get(step, 0.0)) / tags for step, _ in curve]
    return _result(
        tag, "training", curve, (curve[0][0], curve[-1][0]),
        (fmean(v for _, v in curve[:ends]), fmean(v for _, v in curve[-ends:])), (int(sum(episodes[:ends])), int(sum(episodes[-ends:]))),
    )  # fmt: skip


def _result(tag, basis, curve, steps, values, episodes, losses=None) -> TaskResult:
    best = max(curve, key=lambda point: point[1])
    known = all(episodes)
    intervals = tuple(wilson(v, n) for v, n in zip(values, episodes, strict=True)) if known else None
    change = difference(*values, *episodes) if known else None
    return TaskResult(tag, basis, steps, *values, best, episodes, intervals, change, losses)


def sentence(results: Sequence[TaskResult]) -> str:
    """What the results say, in words."""
    if not results:
        return "No task has a success curve yet."
    if all(r.steps[0] == r.steps[1] for r in results):
        return "Too early to say: one measurement so far."
    said: dict[str, list[str]] = {"learned": [], "steadier": [], "worse": [], "unclear": []}
    for r in results:
        by_losses = r.losses and r.verdict in ("steadier", "worse") and r.change[0] <= 0 <= r.change[1]
        numbers = f"lost {r.losses[0]:.0%} → {r.losses[1]:.0%}" if by_losses else f"{r.first:.0%} → {r.last:.0%}"
        said[r.verdict].append(f"{r.tag} ({numbers})")
    words = {"learned": "it learned", "steadier": "it loses less at", "worse": "it got worse at", "unclear": "no clear change in"}
    text = "; ".join(f"{words[verdict]} {_and(tasks)}" for verdict, tasks in said.items() if tasks)
    return f"{text[0].upper()}{text[1:]}."


def doubt(warnings: Sequence[RunWarning]) -> str:
    titles = [w.title[0].lower() + w.title[1:] for w in warnings if w.severity == "bad"]
    return f"Not to be trusted before you have looked: {_and(titles)}." if titles else ""


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def cost(run: Run) -> Cost:
    seconds = tokens = episodes = 0.0
    for row in run.metrics:
        parts = sum(v for key in row if key.startswith("timing_s/") and (v := number(row, key)) is not None)
        seconds += number(row, "timing_s/step") or parts
        tokens += number(row, "rollout/gen_tokens") or 0.0
        episodes += number(row, "rollout/episodes") or 0.0
    return Cost(max(row["step"] for row in run.metrics), seconds, tokens, episodes)


# -- the episodes that say most -----------------------------------------------------------------


def mask_warning(cards: Sequence[Card]) -> tuple[RunWarning, Card] | None:
    """A warning from the tokens themselves, with the episode to look at. Sampled tokens without
    training are no fault: an episode may be left out of the loss."""
    with_tokens = [c for c in cards if c.tokens]
    some = with_tokens[:: max(1, len(with_tokens) // MASK_SAMPLES)]
    wrong = [(card, faults) for card, row in zip(some, read_rows(some), strict=True) if (faults := mask_faults(row)[0])]
    if not wrong:
        return None
    steps = [card.step for card, _ in wrong]
    text = f"{len(wrong)} of {len(some)} episodes looked into train tokens that the policy did not sample ({sum(n for _, n in wrong):,} tokens)."
    remedy = "Open one below: the coloured tokens must be the policy's replies and nothing else."
    return RunWarning("wrong_mask", "bad", "Tokens are trained that nobody sampled", text, remedy, (min(steps), max(steps))), wrong[-1][0]


def telling_episodes(cards: Sequence[Card], results: Sequence[TaskResult], wrong_mask: Card | None = None) -> list[Telling]:
    """At most three: what is wrong with the run if something is, the same start with two endings,
    and then against now."""
    found = []
    if wrong_mask:
        found.append(Telling("What is trained here", "Coloured tokens enter the loss. Some of these were never sampled.", (wrong_mask,), "tokens"))
    found += [t for t in (_two_endings(cards), _then_and_now(cards, results), _refused(cards), _given_up(cards), _latest(cards)) if t]
    found.sort(key=lambda t: t.title != _GIVEN_UP)
    told: set[Card] = set()
    return [t for t in found if not told.issuperset(t.cards) and (told.update(t.cards) or True)][:3]


def _two_endings(cards: Sequence[Card]) -> Telling | None:
    """From the latest step that has one."""
    for step in sorted({c.step for c in cards}, reverse=True):
        if pair := widest_pair(c for c in cards if c.step == step):
            best, worst = pair
            why = f"Step {step}, {best.tag}: two members of one group, the same prompt and seed. Rewards {best.reward:.2g} and {worst.reward:.2g}."
            return Telling("One start, two endings", why, (best, worst))
    return None


def _then_and_now(cards: Sequence[Card], results: Sequence[TaskResult]) -> Telling | None:
    """The task that changed most: its first loss and its latest win, or the reverse if it got worse."""
    moved = sorted(results, key=lambda r: -abs(r.last - r.first))
    for result in moved:
        before, after = ("loss", "win") if result.last >= result.first else ("win", "loss")
        for phase in ("val", "train"):
            mine = [c for c in cards if c.tag == result.tag and c.phase == phase]
            first = next((c for c in mine if c.outcome == before), None)
            last = next((c for c in reversed(mine) if c.outcome == after), None)
            if first and last and first.step < last.step:
                why = f"{result.tag}: a {before} at step {first.step}, a {after} at step {last.step}."
                return Telling("Then and now", why, (first, last))
    return None


def _refused(cards: Sequence[Card]) -> Telling | None:
    last = max((c.step for c in cards), default=0)
    late = [c for c in cards if c.refused > 1 and c.step == last]
    if not late:
        return None
    card = max(late, key=lambda c: c.refused)
    return Telling("Most refused", f"Step {card.step}, {card.tag}: {card.refused} of {card.turns} replies were refused.", (card,))


def _given_up(cards: Sequence[Card]) -> Telling | None:
    aborted = [c for c in cards if c.outcome == "aborted"]
    if len(aborted) < 0.05 * len(cards) or not aborted:
        return None
    card = aborted[-1]
    why = f"Step {card.step}, {card.tag}: aborted because {card.opponent or 'a player'} gave no usable reply ({len(aborted):,} of {len(cards):,} episodes)."
    return Telling(_GIVEN_UP, why, (card,))


def _latest(cards: Sequence[Card]) -> Telling | None:
    wins = [c for c in cards if c.outcome == "win"] or list(cards)
    if not wins:
        return None
    card = max(wins, key=lambda c: (c.step, c.turns))
    return Telling("The longest of the latest", f"Step {card.step}, {card.tag}: {card.turns} replies, {card.outcome}, reward {card.reward:+.2g}.", (card,))
