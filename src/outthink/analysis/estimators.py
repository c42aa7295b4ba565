"""What k samples would have done, from one pool of n: unbiased, in log space, exact where there is a closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from random import Random

from ..core.errors import InvalidInput


def none_of(n: int, c: int, k: int) -> float:
    """Return P(a random subset of `k` of `n` has none of `c` marked ones): C(n - c, k) / C(n, k)."""
    if not (0 <= c <= n and 0 <= k <= n):
        raise InvalidInput(f"n={n}, c={c}, k={k}: 0 <= c <= n and 0 <= k <= n")
    if n - c < k:
        return 0.0
    log = math.lgamma
    return math.exp(log(n - c + 1) - log(n - c - k + 1) - log(n + 1) + log(n - k + 1))


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the probability that at least one of `k` is right, given that `c` of `n` samples were; 0 of k = 0.

    Unbiased over the draw of the pool; 1 where n - c < k. Its mean over problems is coverage. Source: Chen et al. 2021.
    """
    return 1.0 - none_of(n, c, k)


def coverage(counts: Sequence[tuple[int, int]], k: int) -> float:
    """Return the mean of pass@k over problems, given (n, c) of each; raises InvalidInput of no problems."""
    if not counts:
        raise InvalidInput("coverage of no problems; give (samples, right ones) of at least one")
    return math.fsum(pass_at_k(n, c, k) for n, c in counts) / len(counts)


def best_of_k(scores: Sequence[float], right: Sequence[bool], k: int) -> float:
    """Return the probability that the best scored of `k` of these samples is right.

    Ties are broken at random, exactly: a block of equal scores counts with its share of right ones. Shortest-of-k is
    this with score = -length. Raises InvalidInput unless 1 <= k <= len(scores) and nothing is nan.
    """
    n = len(scores)
    if len(right) != n or not 1 <= k <= n:
        raise InvalidInput(f"{n} scores, {len(right)} marks, k={k}: as many marks as scores, and 1 <= k <= {n}")
    if any(score != score for score in scores):
        raise InvalidInput("a score is nan; a sample without a score must be left out or given the worst one")
    order = sorted(range(n), key=lambda i: -scores[i])
    total, passed = 0.0, 0
    for _, block in groupby(order, key=lambda i: scores[i]):
        members = list(block)
        # the best is in this block: none of those before it was drawn, and not none of those up to its end
        here = none_of(n, passed, k) - none_of(n, passed + len(members), k)
        total += here * sum(right[i] for i in members) / len(members)
        passed += len(members)
    return total


def over_subsets(
    n: int, k: int, success: Callable[[Sequence[int]], float], *, subsets: int = 100, seed: int = 0
) -> float:
    """Return the mean of `success(indices)` over random subsets of `k` of `n`, without replacement; one if k = n.

    For majorities, which have no closed form. The indices are sorted.
    """
    if not 1 <= k <= n or subsets < 1:
        raise InvalidInput(f"n={n}, k={k}, subsets={subsets}: 1 <= k <= n and at least one subset")
    if k == n:
        return float(success(range(n)))
    rng = Random(seed)
    return math.fsum(success(sorted(rng.sample(range(n), k))) for _ in range(subsets)) / subsets


def majority_at_k(answers: Sequence[str | None], reference: str, k: int, *, subsets: int = 100, seed: int = 0) -> float:
    """Return how often the commonest answer of `k` of these is `reference`; a tie of m answers counts 1/m if it is one.

    None abstains; a subset of abstentions is wrong.
    """

    def success(indices: Sequence[int]) -> float:
        votes: dict[str, int] = {}
        for i in indices:
            answer = answers[i]
            if answer is not None:
                votes[answer] = votes.get(answer, 0) + 1
        most = max(votes.values(), default=0)
        leaders = [answer for answer, count in votes.items() if count == most]
        return (reference in leaders) / len(leaders) if leaders else 0.0

    return over_subsets(len(answers), k, success, subsets=subsets, seed=seed)


def spaced(n: int, points: int = 40) -> list[int]:
    """Return at most `points` numbers of samples from 1 to `n`, evenly spaced on a logarithmic axis, rising."""
    if n < 1 or points < 1:
        raise InvalidInput(f"n={n}, points={points}: both are at least 1")
    return sorted({round(n ** (i / max(1, points - 1))) for i in range(points)} | {n})
