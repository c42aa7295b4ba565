"""Leases: whole or not at all, settled once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from outthink.core.bank import MemoryBank
from outthink.core.budget import Budget
from outthink.core.errors import InvalidInput, OutOfBudget

TEAM = Budget.parse("100 tokens, 10 calls")


def test_a_lease_is_taken_whole_or_not_at_all() -> None:
    bank = MemoryBank({"team": TEAM})
    lease = bank.lease("team", "one", Budget.parse("60 tokens, 2 calls, 5 images"))
    assert lease.amounts == {"tokens": 60, "calls": 2} and bank.left("team") == {"tokens": 40, "calls": 8}
    with pytest.raises(OutOfBudget, match=r"a lease of 60 tokens.*40 left in 'team'"):
        bank.lease("team", "two", Budget.parse("60 tokens, 2 calls"))
    assert bank.left("team") == {"tokens": 40, "calls": 8}


def test_settling_returns_the_rest_once() -> None:
    bank = MemoryBank({"team": TEAM})
    lease = bank.lease("team", "one", TEAM)
    bank.settle(lease, {"tokens": 30, "calls": 1})
    bank.settle(lease, {"tokens": 0})
    assert bank.left("team") == {"tokens": 70, "calls": 9}


def test_what_was_not_said_to_be_spent_was_not() -> None:
    bank = MemoryBank({"team": TEAM})
    bank.settle(bank.lease("team", "one", TEAM), {})
    assert bank.left("team") == {"tokens": 100, "calls": 10}


def test_mistakes_are_named() -> None:
    bank = MemoryBank({"team": TEAM})
    with pytest.raises(InvalidInput, match="Did you mean 'team'"):
        bank.lease("teem", "one", TEAM)
    with pytest.raises(InvalidInput, match="unknown account"):
        bank.left("nobody")
    with pytest.raises(InvalidInput, match="limits calls"):
        bank.lease("team", "one", Budget.parse("5 tokens"))
    bank.lease("team", "one", Budget.parse("5 tokens, 1 call"))
    with pytest.raises(InvalidInput, match="has a lease on account 'team' already"):
        bank.lease("team", "one", Budget.parse("5 tokens, 1 call"))


def test_threads_never_lease_more_than_there_is() -> None:
    bank = MemoryBank({"team": Budget.parse("1000 tokens")})

    def work(i: int) -> int:
        try:
            lease = bank.lease("team", str(i), Budget.parse("30 tokens"))
        except OutOfBudget:
            return 0
        bank.settle(lease, {"tokens": 20})
        return 20

    with ThreadPoolExecutor(8) as pool:
        spent = sum(pool.map(work, range(300)))
    assert spent <= 1000 and bank.left("team") == {"tokens": 1000 - spent}
