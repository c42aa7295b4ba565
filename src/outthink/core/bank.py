"""Money that outlives a run: the account of a team, a key or an experiment, from which runs take leases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

from .budget import Budget
from .errors import InvalidInput, OutOfBudget, unknown


@dataclass(frozen=True, slots=True)
class Lease:
    """What was taken from an account for one run."""

    account: str
    run: str
    amounts: Mapping[str, int]


class Bank(Protocol):
    """One atomic update before a run, one after it, so that admission inside the run never waits for the bank."""

    def lease(self, account: str, run: str, budget: Budget) -> Lease:
        """Set `budget` aside, whole or not at all. Raises OutOfBudget if the account cannot pay for it."""
        ...

    def settle(self, lease: Lease, spent: Mapping[str, int]) -> None:
        """Give back what was not spent. Settling a lease twice changes nothing."""
        ...


class MemoryBank:
    """A bank in this process; safe to share between threads."""

    def __init__(self, accounts: Mapping[str, Budget]) -> None:
        self._caps = {name: {limit.kind: limit.cap for limit in b.limits} for name, b in accounts.items()}
        self._used = {name: dict.fromkeys(caps, 0) for name, caps in self._caps.items()}
        self._open: dict[tuple[str, str], Lease] = {}
        self._lock = Lock()

    def lease(self, account: str, run: str, budget: Budget) -> Lease:
        if account not in self._caps:
            raise unknown("account", account, self._caps)
        caps, wanted = self._caps[account], {limit.kind: limit.cap for limit in budget.limits}
        unlimited = sorted(caps.keys() - wanted.keys())
        if unlimited:
            what = ", ".join(unlimited)
            raise InvalidInput(f"account {account!r} limits {what}: the run's budget must name them too")
        with self._lock:
            if (account, run) in self._open:
                raise InvalidInput(f"run {run!r} has a lease on account {account!r} already; give it another name")
            used = self._used[account]
            for kind, cap in caps.items():
                if used[kind] + wanted[kind] > cap:
                    raise OutOfBudget(f"a lease of {wanted[kind]} {kind}", f"{cap - used[kind]} left in {account!r}")
            for kind in caps:
                used[kind] += wanted[kind]
            lease = Lease(account, run, {kind: wanted[kind] for kind in caps})
            self._open[account, run] = lease
            return lease

    def settle(self, lease: Lease, spent: Mapping[str, int]) -> None:
        with self._lock:
            if self._open.pop((lease.account, lease.run), None) is None:
                return
            for kind, amount in lease.amounts.items():
                self._used[lease.account][kind] += spent.get(kind, 0) - amount

    def left(self, account: str) -> Mapping[str, int]:
        """Return what may still be leased of each kind."""
        if account not in self._caps:
            raise unknown("account", account, self._caps)
        with self._lock:
            return {kind: cap - self._used[account][kind] for kind, cap in self._caps[account].items()}
