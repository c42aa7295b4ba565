"""Estimators from one pool, against enumeration."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.analysis.estimators import best_of_k, coverage, majority_at_k, none_of, over_subsets, pass_at_k, spaced
from outthink.core.errors import InvalidInput


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [(10, 0, 5, 0), (10, 10, 1, 1), (10, 3, 1, 0.3), (4, 2, 2, 5 / 6), (5, 1, 5, 1), (5, 2, 4, 1), (5, 2, 0, 0)],
)
def test_pass_at_k(n, c, k, expected):
    assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_is_stable_for_large_pools():
    product = 1.0
    for j in range(100_000 - 7 + 1, 100_001):
        product *= 1 - 5_000 / j
    assert pass_at_k(100_000, 7, 5_000) == pytest.approx(1 - product, rel=1e-9)


def test_coverage_is_the_mean_over_problems():
    assert coverage([(4, 2), (4, 0)], 2) == pytest.approx(5 / 12)
    with pytest.raises(InvalidInput):
        coverage([], 1)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=7), st.data())
def test_best_of_k_is_the_mean_over_all_subsets_with_ties_shared(rows, data):
    k = data.draw(st.integers(1, len(rows)))
    total = count = 0.0
    for subset in combinations(rows, k):
        most = max(score for score, _ in subset)
        leaders = [right for score, right in subset if score == most]
        total, count = total + sum(leaders) / len(leaders), count + 1
    assert best_of_k([s for s, _ in rows], [r for _, r in rows], k) == pytest.approx(total / count)


def test_best_of_k_refuses_what_it_cannot_rank():
    with pytest.raises(InvalidInput, match="nan"):
        best_of_k([0.5, float("nan")], [True, False], 1)
    with pytest.raises(InvalidInput, match="k=3"):
        best_of_k([0.5, 0.1], [True, False], 3)


def test_majority_shares_ties_and_abstentions_do_not_vote():
    assert majority_at_k(["7", "4", None], "7", 3) == 0.5
    assert majority_at_k(["7", None, None], "7", 3) == 1.0
    assert majority_at_k([None, None], "7", 2) == 0.0
    assert majority_at_k(["7", "4"], "7", 1, subsets=400) == pytest.approx(0.5, abs=0.1)


def test_all_of_the_pool_is_one_subset():
    seen = []
    over_subsets(5, 5, lambda indices: seen.append(list(indices)) or 1.0)
    assert seen == [[0, 1, 2, 3, 4]]


@given(st.integers(1, 10_000), st.integers(1, 50))
def test_spaced_rises_from_one_to_n(n, points):
    ks = spaced(n, points)
    assert ks[0] == 1 and ks[-1] == n and ks == sorted(set(ks)) and len(ks) <= points + 1


def test_wrong_counts_are_refused():
    with pytest.raises(InvalidInput, match="c=6"):
        none_of(5, 6, 1)
