"""Who waits for what: per account first come first served (money), between runs weighted fair (room)."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush, heapreplace

from .account import Account
from .backend import Backend
from .run import Run
from .tree import PAUSED, Task, Ticket


class Port:
    """A backend, what is in flight there, and how much room it had when this pass began.

    fenced: why it gets no more requests, "" while it does. pauses: whether it is paid in slices.
    """

    __slots__ = ("backend", "fenced", "flying", "pauses", "prefix", "room")

    def __init__(self, backend: Backend, *, slices: bool) -> None:
        self.backend, self.flying, self.room = backend, 0, 0
        self.prefix, self.pauses = "prefix" in backend.capabilities, slices and "pause" in backend.capabilities
        self.fenced = ""


class Queues:
    """The accounts whose heads may be looked at, by run; and those whose heads may be hopeless."""

    def __init__(self) -> None:
        self.suspects: dict[Account, None] = {}  # blocked on an account below which nothing is in flight
        self._runs: list[tuple[float, int, Run]] = []  # heap by virtual time
        self._floor = 0.0  # a run that was idle starts at the virtual time of those that were not

    def enqueue(self, item: Ticket | Task, account: Account) -> None:
        """Put a request, or a task whose sub-budget is to be set aside, at the end of the account's queue."""
        account.run.pending += 1
        account.queue.append(item)
        if account.blocked is None and not account.listed:
            self.list(account)

    def ahead(self, ticket: Ticket, account: Account) -> None:
        """Put back what has had its turn before: in front of the younger, and of everything that is new."""
        queue, at = account.queue, 0
        while (
            at < len(queue) and type(queue[at]) is Ticket and queue[at].state == PAUSED and queue[at].age < ticket.age
        ):
            at += 1
        queue.insert(at, ticket)
        account.blocked = None
        if not account.listed:
            self.list(account)

    def list(self, account: Account, *, idle: bool = True) -> None:
        """Have the head of the account's queue looked at. `idle`: its run had nothing to do (it did not lack room)."""
        run: Run = account.run
        account.listed = True
        run.listed.append(account)
        if not run.enlisted:
            run.enlisted = True
            if idle:
                run.turn = max(run.turn, self._floor)
            heappush(self._runs, (run.turn, run.order, run))

    def unblock(self, accounts: Iterable[Account]) -> None:
        """Have the heads of accounts that were blocked looked at again."""
        for account in accounts:
            if account.blocked is not None:
                account.blocked = None  # and it is not listed: the head of a blocked account is not looked at
                self.list(account)

    def forget(self, item: Ticket | Task, account: Account) -> None:
        """A queued item has been cancelled: those behind it may go on in this same step."""
        account.run.pending -= 1
        if account.queue and account.queue[0] is item:
            self.unblock((account,))

    def next_run(self) -> tuple[Run, int] | None:
        """Return the run whose turn it is, and how many runs take turns; None if no run has a listed account."""
        return (self._runs[0][2], len(self._runs)) if self._runs else None

    def served(self, run: Run) -> None:
        """Count one request of the run: heavier runs count less."""
        self._floor = run.turn
        run.turn += 1.0 / run.weight

    def had_turn(self, run: Run, *, more: bool) -> None:
        """Put the run that `next_run` returned back in its place, or take it off if it has nothing more."""
        if more:
            heapreplace(self._runs, (run.turn, run.order, run))
        else:
            heappop(self._runs)
            run.enlisted = False
