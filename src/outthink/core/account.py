"""Who pays: accounts, the gauges they limit, and sub-budgets that are set aside.

A sub-budget is held in its parent from the moment it opens until it closes, so admission looks at one gauge for each
kind of limit: the nearest account that limits that kind. Nothing here knows about coroutines or queues of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from .budget import Budget, Card, Left, Meter, Terms, weights
from .cost import Cost, Tally
from .errors import InvalidInput


class Shortfall(NamedTuple):
    """Why something was refused; a sentence only when somebody reads it."""

    kind: str
    need: int
    cap: int
    spent: int
    held: int

    def __str__(self) -> str:
        left = self.cap - self.spent - self.held
        return f"it may take {self.need} {self.kind}, and {left} of {self.cap} are left ({self.spent} spent)"


class Gauge:
    """One limit of one account, in whole numbers. `held` is reserved for what is in flight or set aside below."""

    __slots__ = ("cap", "held", "meter", "owner", "slices", "spent", "waiters")

    def __init__(self, meter: Meter, cap: int, owner: Account) -> None:
        self.meter, self.cap, self.owner = meter, cap, owner
        self.spent = self.held = 0
        self.waiters: list[Account] = []  # accounts whose first request waits for this gauge
        self.slices: dict[Any, None] = {}  # what is paid in slices from here, the oldest first

    def short(self, need: int) -> Shortfall:
        return Shortfall(self.meter.kind, need, self.cap, self.spent, self.held)


class Account:
    """What one run, or one branch that was given its own sub-budget, may spend.

    gauges: one for each kind of limit in force here; those this account does not limit itself are its ancestors'.
    queue: what waits to be paid from here, first come first served; only its head is ever looked at.
    busy: requests in flight here, plus accounts right below that are busy.
    blocked: the gauge that the head waits for, if it does.
    """

    __slots__ = (
        "blocked", "busy", "closing", "gauges", "level", "listed", "own", "parent", "queue", "run", "set_aside",
        "sums", "tally",
    )  # fmt: skip

    def __init__(self, run: Any, parent: Account | None, gauges: Mapping[Meter, int]) -> None:
        self.run, self.parent = run, parent
        self.own: tuple[Gauge, ...] = tuple(Gauge(meter, cap, self) for meter, cap in gauges.items())
        kinds = {meter.kind for meter in gauges}
        inherited = tuple(g for g in parent.gauges if g.meter.kind not in kinds) if parent is not None else ()
        self.gauges: tuple[Gauge, ...] = self.own + inherited
        alike = parent is not None and [g.meter.kind for g in parent.gauges] == [g.meter.kind for g in self.gauges]
        self.sums: dict[tuple[str, ...], tuple[Terms, ...]] = parent.sums if alike and parent is not None else {}
        self.level: int = parent.level + 1 if parent is not None else 0
        self.queue: deque[Any] = deque()
        self.busy = 0
        self.blocked: Gauge | None = None
        self.listed = self.closing = False
        self.set_aside: tuple[int, ...] = ()  # what its parent holds for it
        self.tally = Tally()

    def amounts(self, cost: Cost) -> tuple[int, ...]:
        """Return how much of each gauge `cost` uses."""
        if len(cost.counts) != 1:
            return tuple([gauge.meter.amount(cost) for gauge in self.gauges])
        ((model, units),) = cost.counts.items()
        sums = self.sums.get((model, *units))
        if sums is None:
            sums = tuple([gauge.meter.terms(model, units) for gauge in self.gauges])
            if all(units.values()):  # what has no price may stand there with 0
                self.sums[(model, *units)] = sums
        out = []
        for terms in sums:
            amount = 0
            for unit, weight in terms:
                amount += units[unit] * weight
            out.append(amount)
        return tuple(out)

    def full(self, amounts: tuple[int, ...]) -> Gauge | None:
        """Return the first gauge that cannot take its amount now, None if all can."""
        for gauge, amount in zip(self.gauges, amounts, strict=True):
            if gauge.spent + gauge.held + amount > gauge.cap:
                return gauge
        return None

    def hopeless(self, amounts: tuple[int, ...]) -> Gauge | None:
        """Return a gauge that can never take its amount, however much is given back: what is spent stays spent."""
        for gauge, amount in zip(self.gauges, amounts, strict=True):
            if gauge.spent + amount > gauge.cap:
                return gauge
        return None

    def reserve(self, amounts: tuple[int, ...]) -> None:
        for gauge, amount in zip(self.gauges, amounts, strict=True):
            gauge.held += amount

    def release(self, held: tuple[int, ...], spent: tuple[int, ...]) -> list[Account]:
        """Turn what was held into what was spent; return the accounts whose heads may now fit."""
        freed: list[Account] = []
        for gauge, before, after in zip(self.gauges, held, spent, strict=True):
            gauge.held -= before
            gauge.spent += after
            if gauge.waiters and after < before:
                freed += gauge.waiters
                gauge.waiters = []
        return freed

    def granted(self, grant: Cost | Budget, cards: Mapping[str, Card]) -> dict[Meter, int]:
        """Return the limits of a sub-account: a Cost limits every kind in force here, a Budget the kinds it names."""
        if isinstance(grant, Cost):
            return {gauge.meter: gauge.meter.amount(grant) for gauge in self.gauges}
        if grant.depth is not None or grant.seconds is not None:
            raise InvalidInput(f"sub-budget '{grant}': a sub-budget limits amounts; depth and seconds are the run's")
        known = {gauge.meter.kind: gauge.meter for gauge in self.gauges}
        return {
            known.get(limit.kind) or Meter(limit.kind, weights(limit.kind, cards)): limit.cap for limit in grant.limits
        }

    def aside(self, limits: Mapping[Meter, int]) -> tuple[int, ...]:
        """Return what a sub-account with these limits sets aside in each gauge here (0 for kinds it does not limit)."""
        return tuple([limits.get(gauge.meter, 0) for gauge in self.gauges])

    def left(self) -> Left:
        return Left(tuple((g.meter, g.cap - g.spent - g.held) for g in self.gauges))

    def begin(self) -> None:
        """Count one more request in flight."""
        account: Account | None = self
        while account is not None:
            account.busy += 1
            if account.busy > 1:
                break  # its ancestors know already
            account = account.parent

    def end(self) -> list[Account]:
        """Count one less; return the accounts, from here up, that have become idle."""
        idle: list[Account] = []
        account: Account | None = self
        while account is not None:
            account.busy -= 1
            if account.busy:
                break
            idle.append(account)
            account = account.parent
        return idle
