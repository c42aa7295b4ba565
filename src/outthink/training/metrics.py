"""Arithmetic of evaluation: areas under curves, votes, and what n samples are worth. Standard library only."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence


def area_under_curve(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Return the chance that a random positive scores above a random negative, ties counting one half.

    nan if one of the two classes is empty.
    """
    order = sorted(range(len(scores)), key=lambda i: scores[i])
    positives = sum(labels)
    negatives = len(labels) - positives
    if not positives or not negatives:
        return math.nan
    wins = 0.0
    below = at = 0
    while at < len(order):
        tied = at
        while tied < len(order) and scores[order[tied]] == scores[order[at]]:
            tied += 1
        ups = sum(labels[i] for i in order[at:tied])
        downs = tied - at - ups
        wins += ups * (below + downs / 2)
        below, at = below + downs, tied
    return wins / (positives * negatives)


def coverage(right: int, n: int, *, k: int) -> float:
    """Return the chance that `k` of `n` samples, of which `right` are right, hold a right one (pass@k).

    Source: Chen et al. 2021, section 2.1, the unbiased estimator.
    """
    return 1.0 if n - right < k else 1.0 - math.comb(n - right, k) / math.comb(n, k)


def vote_share(answers: Sequence[str | None], truth: str, *, weights: Sequence[float] | None = None) -> float:
    """Return the chance that the (weighted) vote gives `truth` if ties are broken at random; None has no vote."""
    totals: dict[str, float] = defaultdict(float)
    for answer, weight in zip(answers, weights or [1.0] * len(answers), strict=True):
        if answer is not None:
            totals[answer] += weight
    if not totals:
        return 0.0
    best = max(totals.values())
    winners = [answer for answer, total in totals.items() if math.isclose(total, best, rel_tol=1e-12)]
    return (truth in winners) / len(winners)


def best_right(answers: Sequence[str | None], truth: str, *, scores: Sequence[float]) -> float:
    """Return the chance that the answer with the best score is `truth`, ties at random; None never competes."""
    kept = [(score, answer == truth) for score, answer in zip(scores, answers, strict=True) if answer is not None]
    if not kept:
        return 0.0
    best = max(score for score, _ in kept)
    winners = [right for score, right in kept if score == best]
    return sum(winners) / len(winners)


def mean(values: Sequence[float]) -> float:
    """Return the mean of the values that are not nan; nan if there are none."""
    kept = [value for value in values if not math.isnan(value)]
    return sum(kept) / len(kept) if kept else math.nan
