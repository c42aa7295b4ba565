"""How sure a number is: Wilson intervals, and paired bootstraps over problems."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from statistics import NormalDist

from ..core.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate between its confidence limits."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wilson(right: float, n: int, *, level: float = 0.95) -> Interval:
    """Return the Wilson score interval of a share: `right` of `n`; of n = 0 it is [0, 1] around nothing (value nan)."""
    if not 0 <= right <= n or not 0 < level < 1:
        raise InvalidInput(f"right={right}, n={n}, level={level}: 0 <= right <= n and 0 < level < 1")
    if n == 0:
        return Interval(math.nan, 0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p, shrink = right / n, 1 + z * z / n
    middle = (p + z * z / (2 * n)) / shrink
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / shrink
    return Interval(p, max(0.0, middle - half), min(1.0, middle + half))


def paired(
    a: Sequence[float], b: Sequence[float], *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Return mean(a - b) with a bootstrap interval over pairs.

    a, b: one number per problem, in the same order (the mean over seeds, where there are several: seeds of one problem
      are not independent of each other). Percentile interval of `draws` resamples.
    """
    if len(a) != len(b) or not a:
        raise InvalidInput(f"{len(a)} and {len(b)} numbers; pairs need as many of both, and at least one")
    if not 0 < level < 1 or draws < 1:
        raise InvalidInput(f"level={level}, draws={draws}: 0 < level < 1 and at least one draw")
    gaps = [x - y for x, y in zip(a, b, strict=True)]
    rng, n = Random(seed), len(gaps)
    means = sorted(math.fsum(rng.choices(gaps, k=n)) / n for _ in range(draws))
    tail = (1 - level) / 2
    return Interval(math.fsum(gaps) / n, means[int(tail * (draws - 1))], means[math.ceil((1 - tail) * (draws - 1))])
