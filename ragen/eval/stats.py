"""Scores with intervals: shares, means, paired differences, pass@k and majority vote. All intervals are 95%."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

Z95 = 1.959963984540054  # the normal quantile of 0.975
_TINY = 1e-12  # differences of means over samples are no nearer to each other than this
_MOST_SUMS = 300_000  # sums that a randomisation test may form, about 0.2 s


def share(successes: int, n: int) -> dict[str, float | int | None]:
    """``successes`` of ``n`` independent trials with Wilson's score interval (Wilson 1927):
    ``{value, low, high, n}``; all but ``n`` are ``None`` for ``n`` = 0."""
    if not 0 <= successes <= n:
        raise ValueError(f"share: {successes} successes out of {n} trials")
    if n == 0:
        return {"value": None, "low": None, "high": None, "n": 0}
    p, z2 = successes / n, Z95**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return {"value": p, "low": max(0.0, middle - half), "high": min(1.0, middle + half), "n": n}


def mean(values: Sequence[float], bounds: tuple[float, float] | None = None) -> dict[str, float | int | None]:
    """Mean of independent ``values`` with a 95% interval: ``{value, low, high, n}``.

    With ``bounds`` (no value can be outside) the interval is Agresti and Coull's (1998), carried over from shares to
    bounded values: to the data come ``Z95**2 / 2`` values at each bound, so that equal values, too, have an interval
    of some width. Without bounds it is Student's, and ``None`` where the values show no spread (one value, or all the same)."""
    n = len(values)
    if n == 0:
        return {"value": None, "low": None, "high": None, "n": 0}
    middle = math.fsum(values) / n
    if bounds:
        low, high = _bounded_interval(values, bounds, Z95**2 / 2)
        return {"value": middle, "low": low, "high": high, "n": n}
    if len(set(values)) == 1:
        return {"value": middle, "low": None, "high": None, "n": n}
    half = _student_975(n - 1) * math.sqrt(math.fsum((v - middle) ** 2 for v in values) / (n - 1) / n)
    return {"value": middle, "low": middle - half, "high": middle + half, "n": n}


def interval(score: Mapping[str, Any], low: str = "low", high: str = "high", form: str = ".4f") -> str:
    """``[0.1000, 0.3000]``, or that there is none."""
    return "[no interval]" if score[low] is None else f"[{score[low]:{form}}, {score[high]:{form}}]"


def paired_difference(
    a_rows: Sequence[Mapping[str, Any]], b_rows: Sequence[Mapping[str, Any]], key: str = "success"
) -> dict[str, Any]:
    """Score of ``a`` minus score of ``b`` on the rows (by ``id``) that both have.

    Rows without ``key`` (or with ``None``: unjudged, aborted) take no part. ``p_value``: :func:`sign_flip`, which for
    yes/no scores is McNemar's exact test. The interval is Bonett and Price's (2012) for paired proportions: one pair for
    each side is added, at a difference of 1 and of -1; the same for scores between 0 and 1 (a mean over samples). Scores
    further apart than 1 (rewards) get Student's.

    Returns ``{value, low, high, n, p_value, only_a, only_b, unmatched}``: ``only_a`` counts rows where
    ``a`` did better, ``unmatched`` ids that one side lacks. Raises ``ValueError`` if no row is common to both.
    """
    a, b = _by_id(a_rows, key), _by_id(b_rows, key)
    common = sorted(a.keys() & b.keys(), key=str)
    if not common:
        raise ValueError(
            f"paired difference: no row with a {key!r} is in both results; were they made with the same data and seed?"
        )
    pairs = [(a[i], b[i]) for i in common]
    only_a, only_b = sum(x > y for x, y in pairs), sum(x < y for x, y in pairs)
    found: dict[str, Any] = {"n": len(pairs), "only_a": only_a, "only_b": only_b, "unmatched": len(a.keys() ^ b.keys())}
    differences = [x - y for x, y in pairs]
    if max(map(abs, differences)) > 1:
        return {**mean(differences), "p_value": sign_flip(differences), **found}
    low, high = _bounded_interval(differences, (-1.0, 1.0), 1.0)
    return {"value": math.fsum(differences) / len(pairs), "low": low, "high": high, "p_value": sign_flip(differences), **found}


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided p-value of paired ``differences`` against none (Fisher's randomisation test): the share of all ways to
    swap the two sides of pairs that give a sum at least as far from 0. Exact where the sums can be counted (few pairs, or
    differences that are multiples of one step, as means over samples are); with more, Student's paired test."""
    moved = [abs(d) for d in differences if abs(d) > _TINY]
    if len(set(moved)) <= 1:
        up = sum(d > _TINY for d in differences)
        return mcnemar(up, len(moved) - up)
    sums, work = {0.0: 1.0}, 0
    for d in moved:
        work += 2 * len(sums)
        if work > _MOST_SUMS:
            return _paired_t(differences)
        after: dict[float, float] = {}
        for total, share_of_ways in sums.items():
            for key in (round(total + d, 9), round(total - d, 9)):
                after[key] = after.get(key, 0.0) + share_of_ways / 2
        sums = after
    seen = abs(math.fsum(differences)) - 1e-7
    return min(1.0, math.fsum(p for total, p in sums.items() if abs(total) >= seen))


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value of ``only_a`` against ``only_b`` discordant pairs (a fair coin each)."""
    n, k = only_a + only_b, min(only_a, only_b)
    tail, term = 0, 1
    for i in range(k + 1):
        tail += term
        term = term * (n - i) // (i + 1)
    return min(1.0, float(2 * tail / 2**n)) if n < 1000 else min(1.0, math.exp(math.log(2 * tail) - n * math.log(2)))


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Chance that one of ``k`` samples drawn without replacement from ``n`` with ``correct`` right ones is
    right (Chen et al. 2021, equation 1)."""
    if not 0 <= correct <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {n} samples with {correct} right ones is not defined")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def majority(answers: Sequence[Hashable | None]) -> Hashable | None:
    """The most frequent answer; ``None`` stands for no answer and has no vote; the earliest of equals."""
    counts = Counter(answer for answer in answers if answer is not None)
    return max(counts, key=counts.__getitem__) if counts else None


def _by_id(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, float]:
    return {row["id"]: float(row[key]) for row in rows if row.get(key) is not None}


def _bounded_interval(values: Sequence[float], bounds: tuple[float, float], extra: float) -> tuple[float, float]:
    """Wald's interval after ``extra`` values more at each bound, cut to ``bounds``; the mean of ``values`` is inside."""
    least, most = bounds
    if min(values) < least - _TINY or max(values) > most + _TINY:
        raise ValueError(f"mean: values from {min(values)} to {max(values)} are outside their bounds {bounds}")
    n = len(values) + 2 * extra
    middle = (math.fsum(values) + extra * (least + most)) / n
    spread = (math.fsum((v - middle) ** 2 for v in values) + extra * ((least - middle) ** 2 + (most - middle) ** 2)) / n
    half, value = Z95 * math.sqrt(spread / n), math.fsum(values) / len(values)
    return max(least, min(middle - half, value)), min(most, max(middle + half, value))


def _student_975(freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.975, freedom))


def _paired_t(differences: Sequence[float]) -> float:
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(differences, 0.0).pvalue)
