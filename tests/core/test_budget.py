"""Budgets read, print and measure; what is left can be counted and shared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.core.budget import PICO, Budget, Card, Left, Limit, Meter, weights
from outthink.core.cost import Cost
from outthink.core.errors import InvalidInput
from outthink.testing.strategies import budgets

READ = {
    "20k tokens": Budget((Limit("tokens", 20_000),)),
    "20k": Budget((Limit("tokens", 20_000),)),
    "7": Budget((Limit("tokens", 7),)),
    "1_000 tokens": Budget((Limit("tokens", 1000),)),
    "40 output tokens": Budget((Limit("output", 40),)),
    "1.5k Prompt  Tokens": Budget((Limit("prompt", 1500),)),
    "2M cached tokens": Budget((Limit("cached", 2_000_000),)),
    "$0.05, 30 s": Budget((Limit("dollars", 5 * PICO // 100),), seconds=30),
    "0.000000075 dollars": Budget((Limit("dollars", 75_000),)),
    "2 min": Budget(seconds=120),
    "2e12 flops": Budget((Limit("flops", 2 * 10**12),)),
    "100 calls, 12 depth, 1 image": Budget((Limit("calls", 100), Limit("images", 1)), depth=12),
    "0 tokens": Budget((Limit("tokens", 0),)),
}


@pytest.mark.parametrize("text", READ)
def test_budgets_are_read(text: str) -> None:
    assert Budget.parse(text) == READ[text]
    assert Budget.parse(Budget.parse(text)) is not None


def test_a_number_is_tokens() -> None:
    assert Budget.parse(300) == Budget((Limit("tokens", 300),))


@given(
    budget=budgets(kinds=("tokens", "output", "prompt", "cached", "calls", "dollars", "flops", "images"), most=10**7)
)
def test_what_is_printed_is_read_again(budget: Budget) -> None:
    if budget != Budget():
        assert Budget.parse(str(budget)) == budget


@given(seconds=st.integers(1, 100_000), depth=st.integers(0, 99))
def test_gauges_round_trip(seconds: int, depth: int) -> None:
    budget = Budget((Limit("calls", 5),), depth=depth, seconds=seconds)
    assert Budget.parse(str(budget)) == budget


REFUSED = {
    "ten tokens": "cannot read",
    "": "cannot read",
    "5 tokns": "Did you mean 'tokens'",
    "5 parsecs": "unknown unit 'parsecs'",
    "-5 tokens": "negative",
    "$5 tokens": "unknown unit",
    "5 tokens, 6 tokens": "limits tokens twice",
    "5 s, 1 min": "limits seconds twice",
    "1.5 tokens": "whole number",
    "0.0000000000001 dollars": "whole number",
    "1.2.3 tokens": "not a number",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_budget_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(InvalidInput, match=REFUSED[text].replace("$", r"\$")):
        Budget.parse(text)


@pytest.mark.timeout(20)
def test_amounts_beyond_all_reason_are_refused_at_once() -> None:
    with pytest.raises(InvalidInput):
        Budget.parse("1e999999999 tokens")


def test_a_depth_is_a_whole_number() -> None:
    with pytest.raises(InvalidInput):
        Budget.parse("2.5 depth")


def test_no_limit_has_a_name() -> None:
    assert str(Budget()) == "no limit"
    assert Budget((Limit("tokens", 5),)).cap("tokens") == 5
    assert Budget().cap("tokens") is None


CARDS = {"m": Card(prices={"prompt": 100, "output": 400}, params=10, attention=3), "bare": Card()}


@pytest.mark.parametrize(
    ("kind", "amount"),
    [("tokens", 12), ("output", 5), ("calls", 1), ("dollars", 7 * 100 + 5 * 400), ("flops", 2 * 10 * 12 + 3 * 40)],
)
def test_meters_are_linear(kind: str, amount: int) -> None:
    cost = Cost.of("m", calls=1, prompt=7, output=5, attended=40, cached=9)
    meter = Meter(kind, weights(kind, CARDS))
    assert meter.amount(cost) == amount
    assert meter.amount(cost * 5) == 5 * amount
    assert meter.amount(Cost()) == 0


@pytest.mark.parametrize(("kind", "model"), [("dollars", "bare"), ("flops", "bare"), ("dollars", "stranger")])
def test_an_unknown_price_is_not_zero(kind: str, model: str) -> None:
    with pytest.raises(InvalidInput, match=model):
        Meter(kind, weights(kind, CARDS)).amount(Cost.of(model, output=1))


def test_a_unit_without_a_price_is_refused() -> None:
    meter = Meter("dollars", weights("dollars", CARDS))
    with pytest.raises(InvalidInput, match="no price for images"):
        meter.amount(Cost.of("m", images=1))
    assert meter.amount(Cost.of("m", images=0, calls=3)) == 0


def test_left_counts_and_shares() -> None:
    tokens, calls = Meter("tokens", weights("tokens", {})), Meter("calls", weights("calls", {}))
    left = Left(((tokens, 100), (calls, 7)))
    assert left.times(Cost.of("m", calls=1, output=30)) == 3
    assert left.times(Cost.of("m", calls=1)) == 7
    assert left.times(Cost.of("m", images=1)) is None and Left(()).times(Cost.of("m", calls=1)) is None
    assert left.of("calls") == 7 and left.of("dollars") is None
    assert left.share(0.5) == Budget((Limit("tokens", 50), Limit("calls", 3)))
    assert left.budget == Budget((Limit("tokens", 100), Limit("calls", 7)))
    for wrong in (-0.1, 1.5):
        with pytest.raises(InvalidInput, match="between 0 and 1"):
            left.share(wrong)


@given(left=st.integers(0, 10**24), part=st.floats(0, 1))
def test_a_share_is_never_more_than_the_part(left: int, part: float) -> None:
    money = Left(((Meter("dollars", weights("dollars", {})), left),)).share(part).cap("dollars")
    assert money is not None and 0 <= money <= left
    assert Left(((Meter("dollars", weights("dollars", {})), left),)).share(1.0).cap("dollars") == left
