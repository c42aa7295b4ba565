"""When requests run: admission by accounts (money), dispatch into room (fairness), settlement, retries.

In order within an account; accounts never block each other. A head that does not fit waits for what is in flight below
the account that limits it; it is refused only when nothing below that account is in flight or able to run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from typing import Any

from .account import Account, Gauge, Shortfall
from .backend import Backend, Settled
from .budget import Card
from .clip import clipped
from .cost import Cost
from .errors import BackendError, OutOfBudget, unknown
from .request import Act
from .run import Run
from .trace import Served
from .tree import DONE, FLYING, LATER, LIVE, NO_COST, QUEUED, ZOMBIE, Task, Ticket

LUCK = frozenset(("cached", "recomputed", "device_ns", "kv_steps"))
"""Units that a bound need not promise: they limit nothing but what names them."""

SERVED, POPPED, BLOCKED, STARVED = range(4)


class Port:
    """A backend, what is in flight there, and how much room it had when this pass began."""

    __slots__ = ("backend", "fenced", "flying", "prefix", "room")

    def __init__(self, backend: Backend) -> None:
        self.backend, self.flying, self.room = backend, 0, 0
        self.prefix = "prefix" in backend.capabilities
        self.fenced = ""


class Dispatcher:
    """Queues, gauges and ports. `finish(node, value, error, cost)` and `begin(task)` lead back to the coroutines."""

    def __init__(
        self, backends: Mapping[str, Backend], cards: Mapping[str, Card], *, retries: int, clock: Callable[[], float],
        finish: Callable[[Ticket | Task, Any, Exception | None, Cost | None], None], begin: Callable[[Task], None],
    ) -> None:  # fmt: skip
        ports: dict[int, Port] = {}
        for backend in backends.values():
            ports.setdefault(id(backend), Port(backend))
        self.ports = list(ports.values())
        self.models = {model: ports[id(backend)] for model, backend in backends.items()}
        self.cards, self.retries, self.clock, self.finish, self.begin = cards, retries, clock, finish, begin
        self.runs: list[tuple[float, int, Run]] = []  # heap by virtual time: weighted fairness
        self.floor = 0.0  # a run that was idle starts at the virtual time of those that were not
        self.suspects: dict[Account, None] = {}  # blocked on an account below which nothing is in flight
        self.later: list[tuple[float, int, Ticket]] = []  # heap of retries by the time they are due
        self.flying = 0
        self._count = count()

    # -- queues

    def enqueue(self, item: Ticket | Task, account: Account) -> None:
        """Put a request, or a task whose sub-budget is to be set aside, at the end of the account's queue."""
        account.run.pending += 1
        account.queue.append(item)
        if account.blocked is None and not account.listed:
            self._list(account)

    def _list(self, account: Account) -> None:
        run = account.run
        account.listed = True
        run.listed.append(account)
        if not run.enlisted:
            run.enlisted = True
            run.turn = max(run.turn, self.floor)
            heappush(self.runs, (run.turn, run.order, run))

    def _unblock(self, accounts: Iterable[Account]) -> None:
        for account in accounts:
            if account.blocked is not None:
                account.blocked = None
                if not account.listed:
                    self._list(account)

    def forget(self, item: Ticket | Task, account: Account) -> None:
        """A queued item has been cancelled: those behind it may go on in this same step."""
        account.run.pending -= 1
        if account.queue and account.queue[0] is item:
            self._unblock((account,))

    # -- one pass over what is queued

    def serve(self) -> None:
        """Dispatch what can be paid for and has room, runs in turn by weight, accounts in order of arrival."""
        for port in self.ports:
            port.room = port.backend.room()
        if self.flying and not any(port.room > 0 for port in self.ports):
            return
        starved: list[Account] = []
        while self.runs:
            run = self.runs[0][2]
            self.floor = run.turn
            alone = len(self.runs) == 1
            if self._serve(run, starved, alone=alone):
                heapreplace(self.runs, (run.turn, run.order, run))
            else:
                heappop(self.runs)
                run.enlisted = False
        for account in starved:
            self._list(account)

    def _serve(self, run: Run, starved: list[Account], *, alone: bool) -> bool:
        """Serve one request of the run (all, if it is alone); return whether it may have more."""
        while run.listed:
            account = run.listed[0]
            queue = account.queue
            while queue:
                item = queue[0]
                if item.state == DONE:
                    queue.popleft()
                    continue
                what = self._dispatch(item, account) if type(item) is Ticket else self._grant(item, account)
                if what == SERVED and not alone:
                    run.listed.rotate(-1)  # its accounts take turns as well
                    return True
                if what == BLOCKED or what == STARVED:
                    if what == STARVED:
                        starved.append(account)
                    break
            run.listed.popleft()
            account.listed = False
        return False

    def _dispatch(self, ticket: Ticket, account: Account) -> int:
        run: Run = account.run
        request = ticket.request
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
        amounts = ticket.amounts
        if amounts is None:
            try:
                bound = self.bound(ticket, port)
                amounts = account.amounts(bound)
            except Exception as error:
                return self._fail(ticket, account, error)
            ticket.bound, ticket.amounts, ticket.port = bound, amounts, port
        for gauge, amount in zip(account.gauges, amounts):  # noqa: B905  (the hot loop; both have one per gauge)
            if gauge.spent + gauge.held + amount > gauge.cap:
                return self._wait(ticket, account, gauge, amounts)
        for gauge, amount in zip(account.gauges, amounts):  # noqa: B905
            gauge.held += amount
        account.queue.popleft()
        account.begin()
        ticket.state = FLYING
        if port.prefix:
            prefix = getattr(request, "prefix", None)
            if prefix is not None:
                ticket.held.add(prefix.digest)  # type: ignore[attr-defined]
        port.flying += 1
        port.room -= 1
        self.flying += 1
        run.turn += 1.0 / run.weight
        port.backend.submit(ticket, request)
        return SERVED

    def price(self, ticket: Ticket) -> Cost:
        """Return what a request would cost at most, without queueing it."""
        port = self.models.get(ticket.request.model)
        if port is None:
            raise unknown("model", ticket.request.model, self.models)
        return self.bound(ticket, port)

    def bound(self, ticket: Ticket, port: Port) -> Cost:
        """Return what the backend says the request can cost, given what it holds for this run."""
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
        gauge = account.full(aside)
        if gauge is not None:
            return self._wait(task, account, gauge, aside)
        account.reserve(aside)
        account.queue.popleft()
        own = Account(account.run, account, limits)
        own.set_aside = aside
        task.account, task.state = own, LIVE
        run = account.run
        run.pending -= 1
        if run.recording:
            run.decide(task.path, "grant", limits={g.meter.kind: g.cap for g in own.own})
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
            self.suspects[account] = None
        return BLOCKED

    def judge(self) -> bool:
        """Refuse (or clip) heads that nothing can help any more, deepest accounts first; return whether any was."""
        doomed: list[Account] = []
        for account in list(self.suspects):
            if account.blocked is None or account.blocked.owner.busy or not account.queue:
                del self.suspects[account]
            elif not account.run.listed:  # something of this run waits for room only: it is able to run
                doomed.append(account)
        deepest = max((account.level for account in doomed), default=0)
        for account in doomed:
            if account.level == deepest:
                del self.suspects[account]
                self._give_up(account)
        return bool(doomed)

    def _give_up(self, account: Account) -> None:
        item, gauge = account.queue[0], account.blocked
        assert gauge is not None
        if type(item) is Ticket:
            shorter = clipped(item.request)
            if shorter is not None and self._clip(item, account, shorter):
                self._unblock((account,))
                return
            need = item.amounts[account.gauges.index(gauge)]  # type: ignore[index]
        else:
            need = account.aside(account.granted(item.grant, self.cards))[account.gauges.index(gauge)]
        self._unblock((account,))
        self._refuse(item, account, gauge.short(need))

    def _clip(self, ticket: Ticket, account: Account, shorter: Callable[[int], Any]) -> bool:
        """Cut the request to the most tokens that can be paid for; return whether there is such a number."""
        bound, whole = ticket.port.backend.bound, ticket.request
        low = whole.at_least if whole.at_least is not None else 1  # type: ignore[attr-defined]
        high = ticket.bound.total("output")

        def fits(tokens: int) -> bool:
            return account.full(account.amounts(bound(ticket, shorter(tokens)))) is None

        if high < low or not fits(low):
            return False
        while low < high:  # the largest number that fits: costs grow with tokens
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
        dear = ticket.bound
        ticket.request = shorter(low)
        ticket.bound = bound(ticket, ticket.request)
        ticket.amounts = account.amounts(ticket.bound)
        account.run.decide(ticket.path, "clip", max_tokens=low, bound=ticket.bound, whole=dear)
        return True

    def _refuse(self, item: Ticket | Task, account: Account, short: Shortfall) -> int:
        run = account.run
        if run.recording:
            bound = item.bound if type(item) is Ticket else NO_COST
            run.decide(item.path, "refuse", kind=short.kind, need=short.need, left=short.cap - short.spent, bound=bound)
        what = item.request if type(item) is Ticket else item.grant
        return self._fail(item, account, OutOfBudget(what, short))

    def _fail(self, item: Ticket | Task, account: Account, error: Exception) -> int:
        account.queue.popleft()
        account.run.pending -= 1
        self.finish(item, None, error, NO_COST)
        return POPPED

    # -- the way back

    def settle(self, item: Settled) -> None:
        """Book what an attempt cost, and hand its reply over, queue the next attempt, or fail."""
        ticket: Ticket = item.ticket  # type: ignore[assignment]
        account, cost, failure = ticket.account, item.cost, item.failure
        run: Run = account.run
        port: Port = ticket.port
        self.flying -= 1
        port.flying -= 1
        held: tuple[int, ...] = ticket.amounts  # type: ignore[assignment]
        if account.gauges:
            self._unblock(account.release(held, account.amounts(cost)))
        run.tally.add(cost)
        if account.level:
            account.tally.add(cost)
        run.exact = run.exact and item.exact
        self._fence(ticket, cost, run)
        zombie = ticket.state == ZOMBIE
        again = failure is not None and failure.retry and not zombie and ticket.attempt < self.retries
        again = again and type(ticket.request) is not Act
        if run.recording:
            status = "cancelled" if zombie else "done" if failure is None else "failed"
            message = failure.message if failure is not None else ""
            level = run.level
            run.record(
                Served(
                    run.tick, ticket.path, ticket.attempt, None if level == "costs" else ticket.request,
                    item.reply if level == "full" else None, cost, ticket.bound, status, item.exact, message, again,
                )
            )  # fmt: skip
        if again:
            ticket.state = LATER
            assert failure is not None
            heappush(self.later, (self.clock() + failure.after, next(self._count), ticket))
            return
        run.pending -= 1
        self._idle(account.end())
        if zombie:
            ticket.state = DONE
            run.zombies -= 1
        elif failure is not None:
            tried = f" after {ticket.attempt + 1} attempts" if ticket.attempt else ""
            self.finish(ticket, None, BackendError(f"{ticket.request.model}: {failure.message}{tried}"), cost)
        else:
            if port.prefix:
                prefix = getattr(item.reply, "prefix", None)
                if prefix is not None:
                    ticket.held.add(prefix.digest)  # type: ignore[attr-defined]
            self.finish(ticket, item.reply, None, cost)

    def _fence(self, ticket: Ticket, cost: Cost, run: Run) -> None:
        for model, units in cost.counts.items():
            promised = ticket.bound.counts.get(model, {})
            for unit, n in units.items():
                if n > promised.get(unit, 0) and unit not in LUCK:
                    run.overrun = True
                    ticket.port.fenced = (
                        f"the backend of {model!r} used {n} {unit} where its bound was {promised.get(unit, 0)}; "
                        "it gets no more requests, because no budget could be kept with it"
                    )

    def _idle(self, accounts: Iterable[Account]) -> None:
        for account in accounts:
            for gauge in account.own:
                for waiting in gauge.waiters:
                    self.suspects[waiting] = None
            if account.closing:
                self._close(account)

    def cancel(self, ticket: Ticket) -> None:
        """End a ticket early. What is in flight settles later; what waits for another attempt or in a queue costs nothing."""
        account = ticket.account
        if ticket.state == FLYING:
            ticket.state = ZOMBIE
            account.run.zombies += 1
            ticket.port.backend.cancel(ticket)
            return
        late, ticket.state = ticket.state == LATER, DONE
        self.forget(ticket, account)
        if late:
            self.later = [entry for entry in self.later if entry[2] is not ticket]
            heapify(self.later)
            self._idle(account.end())

    def due(self) -> None:
        """Queue the attempts whose time has come, before everything else of their account."""
        now = self.clock()
        while self.later and self.later[0][0] <= now:
            ticket = heappop(self.later)[2]
            account = ticket.account
            ticket.state, ticket.attempt = QUEUED, ticket.attempt + 1
            account.run.decide(ticket.path, "retry", attempt=ticket.attempt)
            account.queue.appendleft(ticket)
            self._unblock((account,))
            if not account.listed:
                self._list(account)
            self._idle(account.end())

    # -- sub-budgets end

    def close(self, account: Account) -> None:
        """Give back what the sub-budget has left, as soon as everything it paid for is settled."""
        account.closing = True
        account.queue.clear()
        if not account.busy:
            self._close(account)

    def _close(self, account: Account) -> None:
        parent = account.parent
        if parent is None:
            return
        mine = {gauge.meter: gauge.spent for gauge in account.own}
        spent = tuple([mine.get(gauge.meter, 0) for gauge in parent.gauges])
        account.closing = False
        if parent.level:
            parent.tally.add(account.tally.cost())
        self._unblock(parent.release(account.set_aside, spent))
