"""Scores with intervals: shares, means, paired differences, pass@k and majority vote. All intervals are 95%."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

Z95 = 1.959963984540054  # the normal quantile of 0.975


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
    """Mean of independent ``values`` with Student's interval, cut to ``bounds``. One value alone has no
    interval of its own: then the interval is ``bounds``."""
    n = len(values)
    if n == 0:
        return {"value": None, "low": None, "high": None, "n": 0}
    middle = math.fsum(values) / n
    if n == 1:
        low, high = bounds or (None, None)
        return {"value": middle, "low": low, "high": high, "n": 1}
    spread = math.sqrt(math.fsum((v - middle) ** 2 for v in values) / (n - 1) / n)
    half = _student_975(n - 1) * spread
    low, high = middle - half, middle + half
    if bounds:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return {"value": middle, "low": low, "high": high, "n": n}


def paired_difference(
    a_rows: Sequence[Mapping[str, Any]], b_rows: Sequence[Mapping[str, Any]], key: str = "success"
) -> dict[str, Any]:
    """Score of ``a`` minus score of ``b`` on the rows (by ``id``) that both have.

    Rows without ``key`` (or with ``None``: unjudged, aborted) take no part. For yes/no scores the interval is
    Bonett and Price's (2012) for paired proportions and ``p_value`` McNemar's exact test; for other numbers
    (a mean over samples) both are Student's paired ones.

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
    if all(v in (0.0, 1.0) for pair in pairs for v in pair):
        return {**_bonett_price(only_a, only_b, len(pairs)), "p_value": mcnemar(only_a, only_b), **found}
    scores = mean([x - y for x, y in pairs], (-1.0, 1.0))
    return {**scores, "p_value": _paired_t([x - y for x, y in pairs]), **found}


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


def _bonett_price(only_a: int, only_b: int, n: int) -> dict[str, float]:
    up, down = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = Z95 * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return {"value": (only_a - only_b) / n, "low": max(-1.0, up - down - half), "high": min(1.0, up - down + half)}


def _student_975(freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.975, freedom))


def _paired_t(differences: Sequence[float]) -> float:
    from scipy.stats import ttest_1samp

    if len(set(differences)) < 2:  # no spread: the test is not defined; all equal to 0 is no difference
        return 1.0 if not any(differences) or len(differences) < 2 else 0.0
    return float(ttest_1samp(differences, 0.0).pvalue)
