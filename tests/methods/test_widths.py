"""The arithmetic of level-synchronous searches."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.core.errors import InvalidInput
from outthink.methods.widths import (
    balanced,
    even,
    islands,
    multinomial,
    potentials,
    softmax,
    systematic,
    top,
)

scores = st.lists(st.floats(0, 1), min_size=1, max_size=30)
widths = st.integers(0, 100)


@pytest.mark.parametrize(
    ("width", "nodes", "expected"), [(7, 3, [3, 2, 2]), (0, 2, [0, 0]), (2, 4, [1, 1, 0, 0]), (5, 0, [])]
)
def test_even_gives_the_first_nodes_the_rest(width, nodes, expected):
    assert even(width, nodes) == expected


@pytest.mark.parametrize(
    ("values", "width", "fan", "expected"),
    [
        ([0.1, 0.9, 0.5, 0.7], 4, 2, [0, 2, 0, 2]),
        ([0.5, 0.5, 0.5], 4, 4, [4, 0, 0]),  # ties go to the earlier node
        ([0.1, 0.9], 3, 4, [0, 3]),  # too narrow for one family: the best gets it all
        ([0.1, 0.9], 9, 4, [4, 4]),  # one is left over
        ([0.2, 0.9], 0, 4, [0, 0]),
        ([0.2, 0.9], 6, 2, [2, 4]),  # more families than nodes: the best begins again
        ([], 4, 2, []),
    ],
)
def test_beam_widths(values, width, fan, expected):
    assert top(values, width, fan=fan) == expected


@pytest.mark.parametrize(
    ("values", "island", "width", "expected"),
    [
        ([0.1, 0.9, 0.8, 0.7], [0, 0, 1, 1], 4, [0, 2, 2, 0]),
        ([0.1, 0.2, 0.9, 0.8], [0, 0, 1, 1], 4, [0, 2, 2, 0]),  # the worse island lives on: it is isolated
        ([0.1, 0.2, 0.9, 0.8], [0, 0, 1, 1], 2, [0, 0, 2, 0]),  # until there is room for one only
        ([0.4, 0.2, 0.9], [3, 3, 3], 8, [0, 0, 2]),
    ],
)
def test_dvts_widths(values, island, width, expected):
    assert islands(values, island, width, fan=2) == expected


def test_rebase_widths_of_a_worked_example():
    # softmax([1, 0] / 1) = .731, .269: ceil(10 * .731) = 8, then ceil(2 * 1) = 2; printed: round(7.31), round(2.69)
    assert balanced([1.0, 0.0], 10, temperature=1.0) == [8, 2]
    assert balanced([1.0, 0.0], 10, temperature=1.0, exact=False) == [7, 3]
    # 3 * 1/2 = 1.5 rounds to 2 each: four children of a width of three
    assert balanced([0.5, 0.5], 3, temperature=1.0, exact=False) == [2, 2]
    assert balanced([0.5, 0.5], 3, temperature=1.0) == [2, 1]


@given(scores, widths, st.floats(0, 10))
def test_rebase_widths_sum_to_the_width_and_rise_with_the_score(values, width, temperature):
    out = balanced(values, width, temperature=temperature)
    assert sum(out) == width and min(out) >= 0
    for a, x in zip(values, out, strict=True):
        for b, y in zip(values, out, strict=True):
            assert not (a > b and y > x + 1), "a better node may fall short of a worse one by a rounding at most"


@given(scores, widths)
def test_rebase_at_zero_gives_the_best_everything_and_at_infinity_an_even_split(values, width):
    cold = balanced(values, width, temperature=0)
    assert sum(n for value, n in zip(values, cold, strict=True) if value == max(values)) == width
    hot = balanced(values, width, temperature=1e9)
    assert sum(hot) == width and max(hot) - width / len(values) <= 1


@given(scores, widths)
def test_rounded_rebase_widths_are_within_a_half_of_their_share(values, width):
    out = balanced(values, width, temperature=0.1, exact=False)
    for n, share in zip(out, softmax(values, temperature=0.1), strict=True):
        assert abs(n - width * share) <= 0.5 + 1e-9


@given(scores, widths, st.integers(0, 2**32))
def test_systematic_counts_are_floor_or_ceiling_and_sum(values, width, seed):
    shares = softmax(values)
    out = systematic(shares, width, seed=seed)
    assert sum(out) == width
    for n, share in zip(out, shares, strict=True):
        assert math.floor(width * share - 1e-6) <= n <= math.ceil(width * share + 1e-6)


@given(scores, st.integers(0, 40), st.integers(0, 2**32))
def test_systematic_on_odds_is_rebase_on_logits_within_one(values, width, seed):
    logits = [math.log(min(1 - 1e-7, max(1e-7, v)) / (1 - min(1 - 1e-7, max(1e-7, v)))) for v in values]
    particles = systematic(potentials(values, potential="odds"), width, seed=seed)
    rebase = balanced(logits, width, temperature=1.0)
    shares = softmax(logits)
    # both are roundings of the same shares; the sequential ceilings take from the tail what the head rounds up
    assert all(abs(p - width * s) <= 1 + 1e-6 for p, s in zip(particles, shares, strict=True))
    assert sum(abs(p - r) for p, r in zip(particles, rebase, strict=True)) <= 2 * len(values)


def test_multinomial_counts_are_as_expected_over_many_seeds():
    shares = [0.6, 0.3, 0.1]
    total = Counter[int]()
    for seed in range(400):
        out = multinomial(shares, 10, seed=seed)
        assert sum(out) == 10
        total.update(dict(enumerate(out)))
    for i, share in enumerate(shares):
        assert abs(total[i] / 4000 - share) < 0.03  # five standard errors are .039 at most


def test_systematic_resampling_varies_less_than_multinomial():
    shares = [0.5, 0.25, 0.25]

    def spread(draw):
        counts = [draw(shares, 10, seed=seed)[0] for seed in range(300)]
        return sum((n - 5) ** 2 for n in counts) / len(counts)

    assert spread(systematic) < 0.5 < spread(multinomial)


@pytest.mark.parametrize(("potential", "expected"), [("odds", [3 / 4, 1 / 4]), ("prob", [3 / 5, 2 / 5]), ("exp", None)])
def test_potentials(potential, expected):
    if expected is None:  # exp(.6), exp(.4)
        a, b = math.exp(0.6), math.exp(0.4)
        expected = [a / (a + b), b / (a + b)]
        assert potentials([0.6, 0.4], potential=potential) == pytest.approx(expected)
    elif potential == "odds":  # odds 3 and 1
        assert potentials([0.75, 0.5], potential=potential) == pytest.approx(expected)
    else:
        assert potentials([0.6, 0.4], potential=potential) == pytest.approx(expected)


def test_rewards_of_zero_and_one_are_clipped_and_equal_weights_are_uniform():
    assert potentials([0.0, 1.0], potential="odds") == pytest.approx([0, 1], abs=1e-6)
    assert potentials([0.0, 0.0], potential="prob") == [0.5, 0.5]
    assert softmax([]) == []


@pytest.mark.parametrize(
    "call",
    [
        lambda: balanced([0.5], -1, temperature=1),
        lambda: top([0.5], 3, fan=0),
        lambda: softmax([0.5], temperature=-1),
        lambda: potentials([0.5], potential="odd"),
    ],
)
def test_what_makes_no_sense_is_refused(call):
    with pytest.raises(InvalidInput):
        call()
