"""The way down: admission by accounts (money) and dispatch into room.

In order within an account; accounts never block each other. A head that does not fit waits for what is in flight below
the account that limits it; it is refused only when nothing below that account is in flight or able to run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .account import Account, Gauge, Shortfall
from .backend import Backend, Failure, Item, Settled
from .budget import Card
from .clip import clipped
from .cost import Cost
from .errors import BackendError, OutOfBudget, OutthinkError, unknown
from .queues import Port, Queues
from .refs import hold
from .run import Run
from .settle import Finish
from .slices import Slices
from .tree import DONE, FLYING, LIVE, NEW, NO_COST, PAUSED, Task, Ticket

SERVED, POPPED, BLOCKED, STARVED = range(4)


class Dispatcher:
    """Looks at the heads of the queues. `finish` and `begin` lead back to the coroutines."""

    def __init__(
        self, queues: Queues, slices: Slices, backends: Mapping[str, Backend], cards: Mapping[str, Card], *,
        finish: Finish, begin: Callable[[Task], None], report: Callable[[Sequence[Item]], None],
    ) -> None:  # fmt: skip
        ports: dict[int, Port] = {}
        for backend in backends.values():
            ports.setdefault(id(backend), Port(backend, slices=slices.tokens is not None))
        self.ports = list(ports.values())
        self.models = {model: ports[id(backend)] for model, backend in backends.items()}
        self.queues, self.slices, self.cards = queues, slices, cards
        self.finish, self.begin, self.report = finish, begin, report

    def serve(self) -> None:
        """Dispatch what can be paid for and has room: runs in turn by weight, their accounts in order of arrival."""
        if self.slices.left:
            self.slices.provide()
        starved: list[Account] = []
        room = 1 << 30
        for port in self.ports:
            port.room = port.backend.room()
            room = min(room, port.room)
        while (turn := self.queues.next_run()) is not None:
            run, runs = turn
            most = room if runs == 1 else room // (8 * runs)  # many at once while there is room for everybody
            self.queues.had_turn(run, more=self._turn(run, starved, most=max(1, most)))
        for account in starved:
            self.queues.list(account, idle=False)

    def _turn(self, run: Run, starved: list[Account], *, most: int) -> bool:
        """Serve at most `most` requests of the run; return whether it may have more."""
        while run.listed:
            account = run.listed[0]
            queue = account.queue
            while queue:
                item = queue[0]
                if item.state == DONE:
                    queue.popleft()
                    continue
                what = self._dispatch(item, account) if type(item) is Ticket else self._grant(item, account)
                if what == SERVED:
                    most -= 1
                    if not most:
                        run.listed.rotate(-1)  # its accounts take turns as well
                        return True
                if what == STARVED:
                    starved.append(account)
                if what == STARVED or what == BLOCKED:
                    break
            run.listed.popleft()
            account.listed = False
        return False

    def _dispatch(self, ticket: Ticket, account: Account) -> int:
        run: Run = account.run
        request = ticket.request
        if ticket.state == PAUSED:
            return self._resume(ticket, account)
        port = self.models.get(request.model)
        if port is None:
            return self._fail(ticket, account, unknown("model", request.model, self.models))
        if port.fenced:
            return self._fail(ticket, account, BackendError(port.fenced))
        if port.room <= 0:
            return STARVED
        if run.budget.depth is not None and ticket.depth > run.budget.depth:
            short = Shortfall("depth", ticket.depth, run.budget.depth, ticket.depth - 1, 0)
            return self._refuse(ticket, account, short)
        if ticket.amounts is None:
            try:
                ticket.bound = self._bound(ticket, port)
                ticket.amounts, ticket.port = account.amounts(ticket.bound), port
                if port.pauses:
                    self.slices.price(ticket, account, port)
            except Exception as error:
                return self._fail(ticket, account, error)
        amounts = ticket.amounts
        if ticket.whole is None:
            full = account.full(amounts)
        else:
            price, full = self.slices.ask(ticket, account)
            amounts = price[1]
            full = full or account.full(amounts)
        if full is not None:
            return self._wait(ticket, account, full, amounts)
        account.reserve(amounts)
        if ticket.whole is not None:
            ticket.bound, ticket.amounts = price
            self.slices.enter(ticket, account)
        account.queue.popleft()
        account.begin()
        ticket.state = FLYING
        if port.prefix:
            prefix = getattr(request, "prefix", None)
            if prefix is not None:
                hold(prefix, ticket.held)  # type: ignore[arg-type]
        if ticket.depth > run.depth:
            run.depth = ticket.depth
        return self._send(ticket, port, port.backend.submit)

    def _send(self, ticket: Ticket, port: Port, give: Callable[[Ticket, Any], None]) -> int:
        port.flying += 1
        port.room -= 1
        self.queues.served(ticket.run)
        try:
            give(ticket, ticket.request)
        except OutthinkError:
            raise
        except Exception as error:  # a bug there must not leave the ticket in flight for ever
            self.report([Settled(ticket, None, NO_COST, Failure(f"{give.__name__} raised {error!r}"))])
        return SERVED

    # -- slices

    def _resume(self, ticket: Ticket, account: Account) -> int:
        """Pay for the next slice of the first that is paused, and let it go on."""
        port: Port = ticket.port
        if port.room <= 0:
            return STARVED
        price, full = self.slices.ask(ticket, account)
        full = full or self.slices.pay(ticket, account, price)
        if full is not None:
            return self._wait(ticket, account, full, price[1])
        account.queue.popleft()
        account.begin()
        ticket.state = FLYING
        ticket.run.decide(ticket.path, "slice", bound=ticket.bound)
        return self._send(ticket, port, port.backend.resume)  # type: ignore[attr-defined]

    def price(self, ticket: Ticket) -> Cost:
        """Return what a request would cost at most, without queueing it."""
        port = self.models.get(ticket.request.model)
        if port is None:
            raise unknown("model", ticket.request.model, self.models)
        return self._bound(ticket, port)

    def _bound(self, ticket: Ticket, port: Port) -> Cost:
        if port.prefix:
            held = ticket.run.held
            mine = held.get(ticket.request.model)
            if mine is None:
                mine = held[ticket.request.model] = set()
            ticket.held = mine
        return port.backend.bound(ticket, ticket.request)

    def _grant(self, task: Task, account: Account) -> int:
        try:
            limits = account.granted(task.grant, self.cards)
        except Exception as error:
            return self._fail(task, account, error)
        aside = account.aside(limits)
        full = account.full(aside)
        if full is not None:
            return self._wait(task, account, full, aside)
        account.reserve(aside)
        account.queue.popleft()
        run: Run = account.run
        own = Account(run, account, limits)
        own.set_aside = aside
        task.account, task.state = own, LIVE
        run.pending -= 1
        if run.recording:
            run.decide(task.path, "grant", limits={gauge.meter.kind: gauge.cap for gauge in own.own})
        self.begin(task)
        return POPPED

    # -- what does not fit

    def _wait(self, item: Ticket | Task, account: Account, gauge: Gauge, amounts: tuple[int, ...]) -> int:
        never = account.hopeless(amounts)
        if never is not None and not (type(item) is Ticket and clipped(item.request) is not None):
            return self._refuse(item, account, never.short(amounts[account.gauges.index(never)]))
        account.blocked = gauge
        gauge.waiters.append(account)
        if not gauge.owner.busy:
            self.queues.suspects[account] = None
        return BLOCKED

    def judge(self) -> bool:
        """Refuse (or clip) heads that nothing can help any more, deepest accounts first; return whether any was."""
        suspects = self.queues.suspects
        doomed: list[Account] = []
        for account in list(suspects):
            if account.blocked is None or account.blocked.owner.busy or not account.queue:
                del suspects[account]
            elif not account.run.listed:  # else something of this run waits for room only: it is able to run
                doomed.append(account)
        deepest = max((account.level for account in doomed), default=0)
        if self.slices.tokens is not None:
            doomed.sort(key=lambda account: getattr(account.queue[0], "age", NEW))
        for account in doomed:
            if account.level == deepest:
                del suspects[account]
                self._give_up(account)
        return bool(doomed)

    def _give_up(self, account: Account) -> None:
        item, gauge = account.queue[0], account.blocked
        assert gauge is not None
        if type(item) is Ticket:
            assert item.amounts is not None
            amounts = item.amounts
            if self.slices.cut(item, account):
                self.queues.unblock((account,))
                return
        else:
            amounts = account.aside(account.granted(item.grant, self.cards))
        self.queues.unblock((account,))
        self._refuse(item, account, gauge.short(amounts[account.gauges.index(gauge)]))

    def _refuse(self, item: Ticket | Task, account: Account, short: Shortfall) -> int:
        run: Run = account.run
        asked = item.request if isinstance(item, Ticket) else None
        if run.recording:
            bound = item.bound if isinstance(item, Ticket) else NO_COST
            model, left = asked.model if asked is not None else None, short.cap - short.spent
            run.decide(item.path, "refuse", limit=short.kind, need=short.need, left=left, bound=bound, model=model)
        what: Any = asked if isinstance(item, Ticket) else item.grant
        return self._fail(item, account, OutOfBudget(what, short))

    def _fail(self, item: Ticket | Task, account: Account, error: Exception) -> int:
        account.queue.popleft()
        account.run.pending -= 1
        self.finish(item, None, error, NO_COST)
        return POPPED
