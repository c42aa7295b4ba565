"""Intervals."""

from __future__ import annotations

import math
from random import Random

import pytest

from outthink.analysis.intervals import paired, wilson
from outthink.core.errors import InvalidInput


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_agrees_with_published_values(right, n, low, high):
    interval = wilson(right, n)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-4)


def test_wilson_of_nothing_says_nothing():
    interval = wilson(0, 0)
    assert math.isnan(interval.value) and (interval.low, interval.high) == (0, 1)


def test_paired_sees_a_small_gap_that_two_separate_intervals_would_not():
    rng = Random(1)
    a = [float(rng.random() < 0.5) for _ in range(400)]
    b = [x if i % 20 else 0.0 for i, x in enumerate(a)]
    gap = paired(a, b)
    assert gap.low > 0 and gap.value == pytest.approx(sum(a) / 400 - sum(b) / 400)
    assert wilson(sum(b), 400).high > wilson(sum(a), 400).low


def test_paired_covers_the_truth_about_as_often_as_it_says():
    rng, inside = Random(7), 0
    for trial in range(200):
        a = [rng.gauss(0.2, 1) for _ in range(40)]
        gap = paired(a, [0.0] * 40, draws=200, seed=trial)
        inside += gap.low <= 0.2 <= gap.high
    assert 0.88 <= inside / 200 <= 0.99


def test_unequal_pairs_are_refused():
    with pytest.raises(InvalidInput, match="2 and 1"):
        paired([1, 2], [1])
