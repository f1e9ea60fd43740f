"""Signs of a sick run, read from its metrics alone.

A *history* is a list of metric rows (dicts of ``metrics.jsonl``), oldest first. Each check looks at
its end and returns what is wrong in one sentence, or ``None``. The console shows
:func:`current_warnings` after each step, the report :func:`warning_spans` of the whole run; a row
that lacks a metric fires nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from statistics import fmean, median

Row = Mapping[str, object]
History = Sequence[Row]

#: steps that must agree before a noisy metric counts as a sign
WINDOW = 3
#: steps that say how the run began
BEGINNING = 5
#: steps back in which "at its best" is looked for
LOOKBACK = 200

ENTROPY_FLOOR, ENTROPY_FRACTION = 0.01, 0.1
SIGNAL_SHARE = 0.25
TRUNCATED_SHARE = 0.1
ABORTED_SHARE = 0.1
INVALID_SHARE, INVALID_RISE = 0.3, 0.1
LOGPROB_GAP, LOGPROB_GAP_BROKEN, LOGPROB_JUMP = 0.05, 1.0, 100.0
TRAINED_SHARE = (0.001, 0.97)
CLIP_SHARE, KL_STEP = 0.4, 0.3
NEVER_FINITE = ("actor/grad_norm", "actor/pg_loss", "actor/entropy", "actor/ppo_kl", "critic/vf_loss", "critic/grad_norm")


@dataclass(frozen=True)
class RunWarning:
    """``code``: stable name of the check. ``severity``: ``"bad"`` (what follows is not worth its
    compute) or ``"look"``. ``steps``: first and last step it held."""

    code: str
    severity: str
    title: str
    text: str
    remedy: str
    steps: tuple[int, int]


@dataclass(frozen=True)
class _Check:
    code: str
    severity: str
    title: str
    remedy: str
    sign: Callable[[History], str | None]


_CHECKS: list[_Check] = []


def _check(code: str, severity: str, title: str, remedy: str):
    def register(sign: Callable[[History], str | None]):
        _CHECKS.append(_Check(code, severity, title, remedy, sign))
        return sign

    return register


def number(row: Row, key: str) -> float | None:
    """The metric as a float (NaN and infinities included), ``None`` where it is not logged."""
    value = row.get(key)
    if isinstance(value, str):  # JSON has no NaN: some writers spell it
        value = {"nan": math.nan, "inf": math.inf, "infinity": math.inf, "-inf": -math.inf}.get(value.lower())
    return float(value) if isinstance(value, Real) else None


def _tail(history: History, key: str, window: int = WINDOW) -> list[float] | None:
    """The last ``window`` finite values of ``key``; ``None`` before there are as many or when the
    newest training row lacks it."""
    values: list[float] = []
    for row in reversed(history):
        value = number(row, key)
        if value is None:
            if not values and is_training_row(row):
                return None
            continue
        if math.isfinite(value):
            values.append(value)
        if len(values) == window:
            return values
    return None


def _beginning(history: History, key: str) -> float | None:
    """Median of the first values of ``key``: how the run began."""
    values: list[float] = []
    for row in history:
        value = number(row, key)
        if value is not None and math.isfinite(value):
            values.append(value)
        if len(values) == BEGINNING:
            return median(values)
    return None


def is_training_row(row: Row) -> bool:
    """Step 0 holds a validation alone."""
    return any(key.startswith(("train/", "actor/", "rollout/")) for key in row)


def share(row: Row, key: str) -> float | None:
    """A share in [0, 1] of a step's episodes; a count is divided by ``rollout/episodes``."""
    value, episodes = number(row, key), number(row, "rollout/episodes")
    if value is not None and value > 1 and episodes:
        return value / episodes
    return value


def _mean_share(history: History, key: str) -> float | None:
    rows = [row for row in history[-WINDOW - 1 :] if number(row, key) is not None][-WINDOW:]
    if len(rows) < WINDOW or number(history[-1], key) is None:
        return None
    return fmean(share(row, key) for row in rows)


@_check(
    "nonfinite", "bad", "A value is not finite",
    "Resume from the last checkpoint with a lower actor.optim.lr or grad_clip, in float32 where the run was in bfloat16.",
)  # fmt: skip
def nonfinite(history: History) -> str | None:
    values = {key: number(history[-1], key) for key in NEVER_FINITE}
    bad = [f"{key} = {value}" for key, value in values.items() if value is not None and not math.isfinite(value)]
    return f"{', '.join(bad)}: the update was lost or the weights are." if bad else None


@_check(
    "broken_mask", "bad", "The mask does not fit the sampled tokens",
    "Look at an episode's tokens in the report: trained tokens must be the policy's replies and nothing else.",
)  # fmt: skip
def broken_mask(history: History) -> str | None:
    row = history[-1]
    trained = number(row, "rollout/trained_share")
    if trained is not None and not TRAINED_SHARE[0] <= trained <= TRAINED_SHARE[1]:
        return f"{trained:.1%} of all tokens are trained; a reply with a prompt before it cannot come to that."
    in_mask, sampled = number(row, "rollout/trained_tokens"), number(row, "rollout/gen_tokens")
    if in_mask is not None and sampled is not None and in_mask > sampled:
        return f"{in_mask:,.0f} tokens are trained but only {sampled:,.0f} were sampled."
    gap = number(row, "rollout/logprob_diff_mean")
    if gap is not None and gap > LOGPROB_GAP_BROKEN:
        return f"Engine and trainer differ by {gap:.2g} nats a trained token: these are not the tokens that were sampled."
    return None


@_check(
    "engine_disagreement", "bad", "Engine and trainer disagree",
    "Check the weight sync (tied heads, prefix cache reset) and the dtypes of engine and trainer; "
    "algorithm.rollout_correction weighs the rest.",
)  # fmt: skip
def engine_disagreement(history: History) -> str | None:
    key = "rollout/logprob_diff_mean"
    values = _tail(history, key, 1)
    if not values or values[0] > LOGPROB_GAP_BROKEN:  # beyond that it is the mask's warning
        return None
    gap, first = values[0], _beginning(history, key)
    if gap > LOGPROB_GAP:
        return f"Their log-probabilities of the sampled tokens differ by {gap:.2g} on average (expected below {LOGPROB_GAP})."
    if first is not None and gap > 1e-3 and gap > LOGPROB_JUMP * first:
        return f"Their log-probabilities differ by {gap:.2g} on average; it was {first:.1g} when the run began."
    return None


@_check(
    "entropy_collapse", "bad", "Entropy has collapsed",
    "Lower actor.optim.lr, raise actor.entropy_coeff or clip_ratio_high, or start again from before the fall.",
)  # fmt: skip
def entropy_collapse(history: History) -> str | None:
    tail, first = _tail(history, "actor/entropy"), _beginning(history, "actor/entropy")
    if tail is None or first is None:
        return None
    now = max(tail)
    if now < max(ENTROPY_FLOOR, ENTROPY_FRACTION * first) and now < first / 2:
        return f"{tail[0]:.3g} nats a token, {first:.3g} when the run began: the policy has nothing left to explore."
    return None


@_check(
    "success_collapse", "bad", "Success has collapsed",
    "Resume from the checkpoint before the fall with a lower actor.optim.lr; look at the worst episodes since.",
)  # fmt: skip
def success_collapse(history: History) -> str | None:
    fallen = []
    for tag in training_tags(history[-1]):
        values = [v for row in history[-LOOKBACK:] if (v := number(row, f"train/{tag}/success")) is not None and math.isfinite(v)]
        if len(values) < BEGINNING + WINDOW:
            continue
        best = max(fmean(values[i : i + BEGINNING]) for i in range(len(values) - BEGINNING + 1))
        now = fmean(values[-WINDOW:])
        if best >= 0.1 and now < best / 2:
            fallen.append(f"{tag} {now:.0%}, after {best:.0%} at its best")
    return "; ".join(fallen) + "." if fallen else None


@_check(
    "invalid_rising", "bad", "The policy forgets how to play",
    "Lower actor.optim.lr; see in the episodes what is refused and why (format or rules).",
)  # fmt: skip
def invalid_rising(history: History) -> str | None:
    now, first = _mean_share(history, "rollout/invalid"), _beginning(history, "rollout/invalid")
    if now is not None and first is not None and now > INVALID_SHARE and now > first + INVALID_RISE:
        return f"{now:.0%} of turns are refused; {first:.0%} when the run began."
    return None


@_check(
    "dead_opponent", "bad", "An opponent does not answer",
    "Check the endpoint, key and model_name in player_info; aborted episodes are left out of the loss.",
)  # fmt: skip
def dead_opponent(history: History) -> str | None:
    row = history[-1]
    now = share(row, "rollout/aborted")
    if now is None or now <= ABORTED_SHARE:
        return None
    tags = [(number(row, key) or 0.0, key.split("/")[1]) for key in row if key.startswith("train/") and key.endswith("/aborted")]
    worst = f", {max(tags)[1]} above all" if len(tags) > 1 and max(tags)[0] > 0 else ""
    return f"{now:.0%} of this step's episodes were given up{worst}."


@_check(
    "no_signal", "look", "Hardly a group has signal",
    "Make the task easier or harder (opponent, difficulty), raise the temperature or group_size: groups whose members all earn the same teach nothing.",
)  # fmt: skip
def no_signal(history: History) -> str | None:
    if number(history[-1], "actor/no_signal"):
        steps = [value for row in history if (value := number(row, "actor/no_signal")) is not None]
        return f"{sum(steps):.0f} of {len(steps)} steps, this one among them, had no advantage anywhere and changed no weight."
    with_signal, total = (_tail(history, f"rollout/groups_{name}") for name in ("with_signal", "total"))
    if not with_signal or not total or sum(total) == 0:
        return None
    now = sum(with_signal) / sum(total)
    if now < SIGNAL_SHARE:
        return f"Rewards differ within {now:.0%} of groups (last {len(total)} steps); the others have no advantage to learn from."
    return None


@_check(
    "truncated", "look", "Replies are cut at the limit",
    "Raise rollout.response_length or max_model_len, or shorten the prompt; agent_proxy.max_think_tokens leads long thoughts to an answer.",
)  # fmt: skip
def truncated(history: History) -> str | None:
    episodes, turns = _mean_share(history, "rollout/truncated"), _mean_share(history, "rollout/cut_at_limit")
    if turns is not None and turns > TRUNCATED_SHARE:
        return f"{turns:.0%} of replies ran into the longest reply allowed."
    if episodes is not None and episodes > TRUNCATED_SHARE:
        return f"{episodes:.0%} of episodes ended because the next prompt no longer fitted."
    return None


@_check(
    "large_update", "look", "Updates are large",
    "Lower actor.optim.lr or ppo_epochs, or raise ppo_mini_batch_size.",
)  # fmt: skip
def large_update(history: History) -> str | None:
    clipped, kl = _tail(history, "actor/pg_clipfrac"), _tail(history, "actor/ppo_kl")
    if clipped and fmean(clipped) > CLIP_SHARE:
        return f"{fmean(clipped):.0%} of tokens are clipped."
    if kl and fmean(kl) > KL_STEP:
        return f"The policy moves {fmean(kl):.2g} nats a token in one step."
    return None


def training_tags(row: Row) -> list[str]:
    """Tags that the step trained on, in order."""
    return [key.split("/")[1] for key in row if key.startswith("train/") and key.endswith("/success") and key.count("/") == 2]


def current_warnings(history: History) -> list[RunWarning]:
    """What is wrong now, the worst first."""
    if not history or not is_training_row(history[-1]):
        return []
    step = int(history[-1].get("step", len(history)))
    found = [RunWarning(c.code, c.severity, c.title, text, c.remedy, (step, step)) for c in _CHECKS if (text := c.sign(history))]
    return sorted(found, key=lambda w: w.severity != "bad")


def warning_spans(history: History) -> list[RunWarning]:
    """Every warning of the run, each once: from the first step it held to the last, in its last
    words; the worst first."""
    spans: dict[str, RunWarning] = {}
    for end in range(1, len(history) + 1):
        for now in current_warnings(history[:end]):
            first = spans[now.code].steps[0] if now.code in spans else now.steps[0]
            spans[now.code] = RunWarning(now.code, now.severity, now.title, now.text, now.remedy, (first, now.steps[1]))
    return sorted(spans.values(), key=lambda w: (w.severity != "bad", w.steps[0]))
