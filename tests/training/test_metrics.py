import math

import pytest

from outthink.training import metrics


@pytest.mark.parametrize(
    ("scores", "labels", "area"),
    [
        ([1, 2, 3], [False, True, True], 1.0),
        ([3, 2, 1], [False, True, True], 0.0),
        ([1, 1], [True, False], 0.5),
        ([1, 2, 2, 3], [False, True, False, True], 0.875),
    ],
)
def test_the_area_counts_pairs_in_order(scores, labels, area):
    assert metrics.area_under_curve(scores, labels) == area


def test_the_area_of_one_class_is_nan():
    assert math.isnan(metrics.area_under_curve([1, 2], [True, True]))
    assert math.isnan(metrics.area_under_curve([], []))


@pytest.mark.parametrize(("right", "n", "k", "chance"), [(0, 4, 4, 0), (1, 4, 1, 0.25), (1, 4, 4, 1), (2, 4, 2, 5 / 6)])
def test_coverage_is_the_chance_of_a_right_one_among_k(right, n, k, chance):
    assert metrics.coverage(right, n, k=k) == pytest.approx(chance)


def test_ties_share_the_vote_and_none_has_none():
    assert metrics.vote_share(["1", "2", None, None, None], "1") == 0.5
    assert metrics.vote_share(["1", "2", "2"], "1", weights=[3, 1, 1]) == 1.0
    assert metrics.vote_share([None], "1") == 0.0
    assert metrics.vote_share([], "1") == 0.0


def test_no_answer_is_never_the_best():
    assert metrics.best_right([None, "1"], "1", scores=[0.9, 0.1]) == 1.0
    assert metrics.best_right(["1", "2"], "1", scores=[0.5, 0.5]) == 0.5
    assert metrics.best_right([None], "1", scores=[0.9]) == 0.0


def test_means_leave_nan_out():
    assert metrics.mean([1.0, math.nan, 3.0]) == 2.0
    assert math.isnan(metrics.mean([]))
