"""Costs add, compare and print; fold is stable; gauges are plain."""

from __future__ import annotations

from hypothesis import given

from outthink.core.cost import Cost, Gauges, Tally
from outthink.core.seeds import fold
from outthink.testing.strategies import costs


@given(a=costs(), b=costs(), c=costs())
def test_costs_are_a_commutative_monoid(a: Cost, b: Cost, c: Cost) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Cost() == a == Cost.sum([a])
    assert Cost.sum([a, b, c]) == a + b + c


@given(a=costs(), b=costs())
def test_equal_costs_hash_alike_and_zeros_do_not_count(a: Cost, b: Cost) -> None:
    padded = Cost({**{m: {**u, "tools": u.get("tools", 0)} for m, u in a.counts.items()}, "other": {"calls": 0}})
    assert padded == a and hash(padded) == hash(a) and repr(padded) == repr(a)
    assert (a == b) == (a.nonzero() == b.nonzero())


@given(a=costs())
def test_times_is_repeated_addition(a: Cost) -> None:
    assert a * 3 == a + a + a
    assert a * 0 == Cost() and not a * 0


def test_totals_are_over_models() -> None:
    cost = Cost.of("m", calls=1, prompt=3, output=4) + Cost.of("n", prompt=1, images=2)
    assert (cost.total("prompt"), cost.total("images"), cost.total("trained")) == (4, 2, 0)
    assert cost.tokens == 8
    assert cost.nonzero() == {"m": {"calls": 1, "output": 4, "prompt": 3}, "n": {"images": 2, "prompt": 1}}
    assert repr(cost) == "Cost(m: 1 calls 4 output 3 prompt; n: 2 images 1 prompt)"
    assert cost != 8 and bool(cost) and not Cost.of("m", calls=0)


def test_a_tally_does_not_share_its_counts() -> None:
    tally = Tally()
    first = Cost.of("m", calls=1)
    tally.add(first)
    before = tally.cost()
    tally.add(Cost.of("m", calls=2, output=1))
    assert first == Cost.of("m", calls=1) == before
    assert tally.cost() == Cost.of("m", calls=3, output=1)


def test_gauges_start_at_nothing() -> None:
    assert Gauges() == Gauges(depth=0, kv_peak=0, seconds=0.0)


def test_seeds_depend_on_every_part_of_the_place_and_never_change() -> None:
    assert fold(1, "a", 2) == fold(1, "a", 2)
    places = [(), (0,), (1,), ("0",), (0, 0), ((0, 0),), ("a", "b"), ("ab",)]
    assert len({fold(seed, *place) for seed in (0, 1) for place in places}) == 2 * len(places)
    assert all(0 <= fold(0, i) < 2**63 for i in range(100))
    assert fold(0, "problem", 3) == 2066748534041771998
