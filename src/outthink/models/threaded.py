"""Any stepped backend, at work in a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..core.backend import Backend, Failure, Item, Paused, Settled, Ticket
from ..core.cost import Cost
from ..core.errors import InvalidInput
from ..core.request import Request


class Threaded:
    """Steps `backend` in a thread while anything is in flight, and posts what happened.

    `bound` and `room` are asked from the caller's thread, so they must only read; everything else of `backend` is
    called from the thread.  If a step raises, everything in flight fails at its bound, and so does what comes later.

    begin: called in the thread, before anything else.
    """

    stepped = False

    def __init__(self, backend: Backend, *, begin: Callable[[], None] | None = None) -> None:
        if not backend.stepped:
            raise InvalidInput(f"{type(backend).__name__} works on its own already; it needs no thread")
        self.inner, self.capabilities = backend, backend.capabilities
        self._most, self._begin = backend.room(), begin
        self._orders: deque[tuple[str, Ticket, Request[Any] | None]] = deque()
        self._flying: set[Ticket] = set()
        self._paused: set[Ticket] = set()
        self._wake = threading.Condition()
        self._post: Callable[[Sequence[Item]], None] | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._broken: str | None = None

    def bound(self, ticket: Ticket, request: Request[Any]) -> Cost:
        return self.inner.bound(ticket, request)

    def room(self) -> int:
        return max(0, min(self.inner.room(), self._most - len(self._flying) + len(self._paused)))

    def submit(self, ticket: Ticket, request: Request[Any]) -> None:
        if self._post is None:
            raise InvalidInput("attach the backend before the first request: a thread has to report somewhere")
        with self._wake:
            if self._closed:
                raise InvalidInput("the backend is closed; open the model again")
            self._flying.add(ticket)
            self._orders.append(("submit", ticket, request))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="outthink-backend", daemon=True)
                self._thread.start()
            self._wake.notify()

    def resume(self, ticket: Ticket, request: Request[Any]) -> None:
        self._order("resume", ticket, request)

    def cancel(self, ticket: Ticket) -> None:
        self._order("cancel", ticket, None)

    def _order(self, what: str, ticket: Ticket, request: Request[Any] | None) -> None:
        with self._wake:
            self._paused.discard(ticket)
            self._orders.append((what, ticket, request))
            self._wake.notify()

    def step(self) -> Sequence[Item]:
        return ()

    def attach(self, post: Callable[[Sequence[Item]], None]) -> None:
        self._post = post

    def close(self) -> None:
        """End the thread after its current step, then close the backend. What is in flight is not reported."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self.inner.close()

    def _work(self) -> None:
        if self._begin is not None:
            self._begin()
        while True:
            with self._wake:
                while not (self._orders or len(self._flying) > len(self._paused) or self._closed):
                    self._wake.wait()
                if self._closed:
                    return
                orders = list(self._orders)
                self._orders.clear()
            items = self._turn(orders)
            assert self._post is not None
            with self._wake:
                self._flying.difference_update([item.ticket for item in items if isinstance(item, Settled)])
                self._paused.update([item.ticket for item in items if isinstance(item, Paused)])
                self._paused &= self._flying
                if self._closed:
                    return
            if items:
                self._post(items)

    def _turn(self, orders: Sequence[tuple[str, Ticket, Request[Any] | None]]) -> list[Item]:
        failed: list[Item] = []
        for what, ticket, request in orders:
            if self._broken is not None:
                continue
            if what == "cancel":
                self.inner.cancel(ticket)
                continue
            try:
                assert request is not None
                if what == "submit":
                    self.inner.submit(ticket, request)
                else:
                    self.inner.resume(ticket, request)  # type: ignore[attr-defined]
            except Exception as error:
                failed.append(Settled(ticket, None, Cost(), Failure(f"submit raised {error!r}")))
        try:
            if self._broken is None:
                return [*failed, *self.inner.step()]
        except Exception as error:
            self._broken = f"{type(self.inner).__name__}.step raised {error!r}; open the model again"
        with self._wake:
            lost = self._flying - {item.ticket for item in failed}
        return [*failed, *(Settled(t, None, t.bound, Failure(self._broken or ""), exact=False) for t in lost)]
