"""Paying in slices: the oldest request has its whole bound set aside, those after it what such requests have needed.

Whoever needs more pauses, and gets more a few tokens at a time.
Only for requests that may be cut (`clip`) at backends that can pause: of anything else the whole bound is set aside.
The order is that of dispatch, the same in every account, so the oldest of all can always finish. While the oldest does
not have its whole bound, nobody younger gets more: what is left goes to who is nearest to an end.
"""

from __future__ import annotations

from itertools import count

from .account import Account, Gauge
from .clip import clipped
from .cost import Cost
from .queues import Port, Queues
from .tree import PAUSED, Ticket

Price = tuple[Cost, tuple[int, ...]]
"""A bound, and how much of each gauge it takes."""


class Slices:
    """tokens: how much output is paid at a time; None: everything is paid whole."""

    def __init__(self, tokens: int | None, queues: Queues) -> None:
        self.tokens, self.queues = tokens, queues
        self._ages = count(1)
        self.left: dict[Gauge, None] = {}  # their oldest is gone, or does not have its whole bound yet

    def price(self, ticket: Ticket, account: Account, port: Port) -> None:
        """Make slices of a request that has been priced whole, if it may be cut and there is something to save."""
        shorter = clipped(ticket.request) if account.gauges else None
        if shorter is not None:
            assert self.tokens is not None and ticket.amounts is not None
            first = max(self.tokens, getattr(ticket.request, "at_least", None) or 1)
            part = port.backend.bound(ticket, shorter(min(first, ticket.bound.total("output"))))
            if part != ticket.bound:
                ticket.whole, ticket.part = (ticket.bound, ticket.amounts), (part, account.amounts(part))

    def ask(self, ticket: Ticket, account: Account) -> tuple[Price, Gauge | None]:
        """Return what a request should have now, and the gauge whose oldest comes before it (None: nobody does)."""
        whole, part = ticket.whole, ticket.part
        assert whole is not None and part is not None
        if ticket.bound is whole[0] and ticket.state == PAUSED:
            return whole, None  # it has become the oldest, or was cut here
        oldest = True
        for gauge in account.gauges:
            first = next(iter(gauge.slices), ticket)
            if first is not ticket:
                oldest = False
                assert first.whole is not None
                if first.bound is not first.whole[0]:
                    return part, gauge
        if ticket.state != PAUSED:
            return whole if oldest else self.first(ticket, account), None
        assert self.tokens is not None
        return self.grown(ticket, account, ticket.bound.total("output") + self.tokens), None

    def first(self, ticket: Ticket, account: Account) -> Price:
        """Return the price of a first slice: half as much again as what the run's others of its kind have needed.

        All of it while none has been served: whoever is told nothing about lengths must expect the worst.
        """
        assert ticket.whole is not None and ticket.part is not None
        served, written = account.run.written.get(_kind(ticket), (0, 0))
        if not served:
            return ticket.whole
        need = 3 * written // (2 * served)
        return self.grown(ticket, account, need) if need > ticket.part[0].total("output") else ticket.part

    def grown(self, ticket: Ticket, account: Account, tokens: int) -> Price:
        """Return the price of a paused request with `tokens` of output; the prompt in it stays what it was."""
        paid, shorter = ticket.bound.total("output"), clipped(ticket.request)
        assert ticket.whole is not None and shorter is not None
        if tokens >= ticket.whole[0].total("output"):
            return ticket.whole
        old, new = (ticket.port.backend.bound(ticket, shorter(n)) for n in (paid, tokens))
        bound = Cost.sum((ticket.bound, new, old * -1))
        return bound, account.amounts(bound)

    def learn(self, ticket: Ticket, account: Account, output: int) -> None:
        """Remember how much a request that was served has written."""
        served, written = account.run.written.get(_kind(ticket), (0, 0))
        account.run.written[_kind(ticket)] = served + 1, written + output

    def pay(self, ticket: Ticket, account: Account, price: Price) -> Gauge | None:
        """Set aside what `price` takes beyond what is reserved; return the gauge that cannot, None if all could."""
        more = _beyond(ticket, price)
        full = account.full(more)
        if full is None:
            account.reserve(more)
            ticket.bound, ticket.amounts = price
        return full

    def cut(self, ticket: Ticket, account: Account) -> bool:
        """Cut a request to the most tokens that can be paid for; return whether there is such a number.

        For one that is paused there is: it ends with what it has at least.
        """
        shorter, dear, paused = clipped(ticket.request), ticket.bound, ticket.state == PAUSED
        if shorter is None:
            return False
        if paused:
            assert ticket.whole is not None
            dear = ticket.whole[0]

        def price(tokens: int) -> Price:
            if paused:
                return self.grown(ticket, account, tokens)
            bound = ticket.port.backend.bound(ticket, shorter(tokens))
            return bound, account.amounts(bound)

        def fits(tokens: int) -> bool:
            amounts = _beyond(ticket, price(tokens)) if paused else price(tokens)[1]
            return account.full(amounts) is None

        low = ticket.bound.total("output") if paused else getattr(ticket.request, "at_least", None) or 1
        high = dear.total("output")
        if high < low or not fits(low):
            return False
        while low < high:  # costs grow with tokens
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
        most = price(low)
        if paused:
            self.pay(ticket, account, most)
            ticket.whole = most
        else:
            (ticket.bound, ticket.amounts), ticket.whole = most, None
        ticket.request = shorter(low)
        account.run.decide(ticket.path, "clip", max_tokens=low, bound=ticket.bound, whole=dear)
        return True

    def enter(self, ticket: Ticket, account: Account) -> None:
        """A request in slices is in flight: all who come after it are younger."""
        assert ticket.whole is not None and ticket.part is not None
        first, whole = ticket.part[0], ticket.whole[0]
        account.run.decide(ticket.path, "slice", bound=ticket.bound, first=first, whole=whole)
        ticket.age = next(self._ages)
        for gauge in account.gauges:
            gauge.slices[ticket] = None

    def leave(self, ticket: Ticket, account: Account) -> None:
        """It has ended, or was cancelled: somebody else is the oldest."""
        for gauge in account.gauges:
            if gauge.slices:
                if next(iter(gauge.slices)) is ticket:
                    self.left[gauge] = None
                gauge.slices.pop(ticket, None)

    def provide(self) -> None:
        """Set the whole bound of those aside that have become the oldest, before anybody else gets anything."""
        for gauge in list(self.left):
            first: Ticket | None = next(iter(gauge.slices), None)
            self.queues.unblock(gauge.waiters)
            gauge.waiters = []
            if first is not None:
                account = first.account
                assert first.whole is not None
                oldest = all(next(iter(g.slices)) is first for g in account.gauges)
                if first.bound is not first.whole[0] and (not oldest or self.pay(first, account, first.whole)):
                    continue
            del self.left[gauge]


def _kind(ticket: Ticket) -> tuple[str, int | None]:
    """Return what requests of about one length have in common."""
    return ticket.request.model, getattr(ticket.request, "max_tokens", None)


def _beyond(ticket: Ticket, price: Price) -> tuple[int, ...]:
    assert ticket.amounts is not None
    return tuple([new - old for new, old in zip(price[1], ticket.amounts, strict=True)])
