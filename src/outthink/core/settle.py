"""The way back: what an attempt cost, another attempt, the end of a sub-budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any

from .account import Account
from .backend import Settled
from .cost import Cost
from .errors import BackendError
from .queues import Port, Queues
from .refs import hold
from .request import Act
from .run import Run
from .slices import Slices
from .trace import Served
from .tree import DONE, FLYING, LATER, PAUSED, QUEUED, ZOMBIE, Task, Ticket

LUCK = frozenset(("cached", "recomputed", "device_ns", "kv_steps"))
"""Units that a bound need not promise."""

Finish = Callable[[Ticket | Task, Any, Exception | None, Cost | None], None]


class Settler:
    """Books what was spent. `finish(node, value, error, cost)` leads back to the coroutines."""

    def __init__(
        self, queues: Queues, slices: Slices, *, retries: int, clock: Callable[[], float], finish: Finish
    ) -> None:  # fmt: skip
        self.queues, self.slices, self.retries, self.clock, self.finish = queues, slices, retries, clock, finish
        self.later: list[tuple[float, int, Ticket]] = []  # heap of retries by the time they are due
        self._count = count()

    def settle(self, item: Settled) -> None:
        """Book the cost of an attempt; then hand its reply over, plan the next attempt, or fail."""
        ticket: Ticket = item.ticket  # type: ignore[assignment]
        account, cost, failure = ticket.account, item.cost, item.failure
        run: Run = account.run
        port: Port = ticket.port
        if ticket.state == PAUSED:  # a backend that breaks down does not ask
            self.unpause(ticket)
        port.flying -= 1
        if ticket.whole is not None:
            self.slices.leave(ticket, account)
        held = ticket.amounts
        if held:
            self.queues.unblock(account.release(held, account.amounts(cost)))
        run.tally.add(cost)
        if account.level:
            account.tally.add(cost)
        run.exact = run.exact and item.exact
        run.kv_peak = max(run.kv_peak, item.kv)
        self._fence(ticket, cost, run)
        zombie = ticket.state == ZOMBIE
        again = failure is not None and failure.retry and not zombie and ticket.attempt < self.retries
        again = again and type(ticket.request) is not Act
        if run.recording:
            self._record(item, ticket, run, "cancelled" if zombie else "done" if failure is None else "failed", again)
        if failure is not None and again:
            ticket.state = LATER
            if ticket.whole is not None:
                ticket.bound, ticket.amounts = ticket.whole
            heappush(self.later, (self.clock() + failure.after, next(self._count), ticket))
            return
        run.pending -= 1
        self.idle(account.end())
        if zombie:
            ticket.state = DONE
            run.zombies -= 1
        elif failure is not None:
            tried = f", after {ticket.attempt + 1} attempts" if ticket.attempt else ""
            self.finish(ticket, None, BackendError(f"{ticket.request.model}{tried}: {failure.message}"), cost)
        else:
            if ticket.whole is not None:
                self.slices.learn(ticket, account, cost.total("output"))
            if port.prefix:
                prefix = getattr(item.reply, "prefix", None)
                if prefix is not None:
                    hold(prefix, ticket.held)  # type: ignore[arg-type]
            self.finish(ticket, item.reply, None, cost)

    def _record(self, item: Settled, ticket: Ticket, run: Run, status: str, again: bool) -> None:
        request = None if run.level == "costs" else ticket.request
        reply = item.reply if run.level == "full" else None
        message = item.failure.message if item.failure is not None else ""
        path, attempt = ticket.path, ticket.attempt
        run.record(
            Served(run.tick, path, attempt, request, reply, item.cost, ticket.bound, status, item.exact, message, again)
        )

    def _fence(self, ticket: Ticket, cost: Cost, run: Run) -> None:
        """Give a backend that went above its bound no more requests: no budget could be kept with it."""
        for model, units in cost.counts.items():
            promised = ticket.bound.counts.get(model, {})
            for unit, n in units.items():
                if n > promised.get(unit, 0) and unit not in LUCK:
                    run.overrun = True
                    ticket.port.fenced = (
                        f"the backend of {model!r} used {n} {unit} where its bound was {promised.get(unit, 0)}; "
                        "it gets no more requests, because no budget could be kept with it"
                    )

    def idle(self, accounts: Iterable[Account]) -> None:
        """Nothing is in flight below these accounts any more."""
        for account in accounts:
            for gauge in account.own:
                for waiting in gauge.waiters:
                    self.queues.suspects[waiting] = None
            if account.closing:
                self._close(account)

    def pause(self, ticket: Ticket) -> None:
        """A request has used up its slice: it is not in flight until it gets another."""
        account, ticket.state = ticket.account, PAUSED
        ticket.port.flying -= 1
        account.run.decide(ticket.path, "pause")
        self.queues.ahead(ticket, account)
        self.idle(account.end())

    def unpause(self, ticket: Ticket) -> None:
        """It is in flight again without another slice: to end."""
        account = ticket.account
        account.begin()
        ticket.state = FLYING
        ticket.port.flying += 1
        account.queue.remove(ticket)
        self.queues.unblock((account,))  # it may have been the head

    def cancel(self, ticket: Ticket) -> None:
        """End a ticket early: what is in flight settles later, what waits for its turn costs nothing."""
        account = ticket.account
        if ticket.state == PAUSED:
            self.unpause(ticket)
        if ticket.state == FLYING:
            ticket.state = ZOMBIE
            account.run.zombies += 1
            if ticket.whole is not None:
                self.slices.leave(ticket, account)
            ticket.port.backend.cancel(ticket)
            return
        late, ticket.state = ticket.state == LATER, DONE
        self.queues.forget(ticket, account)
        if late:
            self.later = [entry for entry in self.later if entry[2] is not ticket]
            heapify(self.later)
            self.idle(account.end())

    def due(self) -> None:
        """Queue the attempts whose time has come, before everything else of their account."""
        now = self.clock()
        while self.later and self.later[0][0] <= now:
            ticket = heappop(self.later)[2]
            account = ticket.account
            ticket.state, ticket.attempt = QUEUED, ticket.attempt + 1
            account.run.decide(ticket.path, "retry", attempt=ticket.attempt)
            self.queues.ahead(ticket, account)
            self.idle(account.end())

    def close(self, account: Account) -> None:
        """Give back what a sub-budget has left, as soon as everything it paid for is settled."""
        account.closing = True
        account.queue.clear()
        if not account.busy:
            self._close(account)

    def _close(self, account: Account) -> None:
        account.closing = False
        parent = account.parent
        assert parent is not None  # the account of a run is not set aside anywhere
        mine = {gauge.meter: gauge.spent for gauge in account.own}
        spent = tuple([mine.get(gauge.meter, 0) for gauge in parent.gauges])
        if parent.level:
            parent.tally.add(account.tally.cost())
        self.queues.unblock(parent.release(account.set_aside, spent))
