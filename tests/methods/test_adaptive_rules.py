"""When a vote is decided."""

from __future__ import annotations

import pytest

from outthink.core.errors import InvalidInput
from outthink.methods.adaptive import beta, decided, lead_probability


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (0, 0, 0.5),
        (1, 0, 0.75),  # 1 - (1/2)**2
        (4, 0, 1 - 0.5**5),
        (3, 0, 1 - 0.5**4),
        (2, 2, 0.5),
        (2, 1, 11 / 16),
        (0, 1, 0.25),
    ],
)
def test_lead_probability(first, second, expected):
    assert lead_probability(first, second) == pytest.approx(expected)


def test_lead_probability_is_the_beta_tail():
    from scipy.stats import beta as law

    for first in range(8):
        for second in range(8):
            assert lead_probability(first, second) == pytest.approx(law.sf(0.5, first + 1, second + 1))


def test_beta_stops_after_four_that_agree():
    stop = beta(0.95)
    assert [stop([n], 10) for n in range(1, 6)] == [False, False, False, True, True]
    assert not stop([], 10) and not stop([6, 3], 10) and stop([9, 2], 10)


def test_a_vote_is_decided_when_the_second_cannot_reach_the_leader():
    assert decided([5, 2], 2) and not decided([5, 2], 3) and not decided([], 1)
    assert decided([3], 2)


@pytest.mark.parametrize("threshold", [0.4, 1.1])
def test_a_threshold_is_a_probability_of_the_leader(threshold):
    with pytest.raises(InvalidInput, match="threshold"):
        beta(threshold)
