"""A run: one method at work on one thing, under one budget. It can be watched and cancelled."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from .account import Account
from .backend import Progress
from .bank import Lease
from .budget import Budget
from .cost import Cost, Tally
from .trace import Decision, Event, Level, Served, Sink, Trace
from .tree import Task

Watcher = Callable[[Event | Progress], None]


class Run:
    """What came of a method, while it runs and after.

    state: what the method returned, or the best it had kept. answer: the canonical answer of that state.
    value: the value with which it was kept, None if it was never scored.
    stopped: None while it runs; then "finished", "budget", "deadline", "cancelled", or "no answer" (it returned, but
      nothing that has an answer). error: what a failing method raised; `Runtime.run` raises it again.
    history: the anytime curve, (cost, value) whenever the top coroutine kept something better.
    overrun: a backend went above its bound (booked in full). exact: every cost is what a server stated or a count.
    """

    def __init__(
        self, name: str, *, budget: Budget, header: Mapping[str, Any], weight: float,
        answer: Callable[[Any], str | None] | None, trace: Trace | None, sink: Sink | None,
        level: Level = "full",
    ) -> None:  # fmt: skip
        self.name, self.budget, self.weight, self.trace = name, budget, weight, trace
        self.header, self.level = header, level
        self.state: Any = None
        self.value: float | None = None
        self.stopped: str | None = None
        self.error: Exception | None = None
        self.history: list[tuple[Cost, float | None]] = []
        self.overrun = False
        self.exact = True
        self.depth = 0
        self.seconds = 0.0
        self.tick = 0
        # what the runtime keeps about it
        self.account: Account
        self.root: Task
        self.tally = Tally()
        self.held: dict[str, set[bytes]] = {}
        self.pending = 0  # requests and grants that are queued, in flight, or waiting for their next attempt
        self.zombies = 0
        self.listed: deque[Account] = deque()  # accounts whose heads may be served
        self.turn = 0.0  # virtual time of weighted fairness
        self.order = 0
        self.started = 0.0
        self.lease: Lease | None = None
        self.done = False
        self.enlisted = False
        self._answer, self._sink = answer, sink
        self._cancel: Callable[[], None] = lambda: None
        self._watchers: list[Watcher] = []
        self._ended: list[Callable[[], None]] = []

    @property
    def cost(self) -> Cost:
        """Everything spent so far, cancelled and failed work included."""
        return self.tally.cost()

    @property
    def answer(self) -> str | None:
        """The canonical answer of the state, None if there is no state or it has none."""
        if self.state is None:
            return None
        return str(self.state) if self._answer is None else self._answer(self.state)

    def cancel(self) -> None:
        """Stop at the next moment; what had been kept is the result. Cancelling a run that has ended does nothing."""
        self._cancel()

    def subscribe(self, watcher: Watcher) -> Callable[[], None]:
        """Call `watcher` with every event and every piece of streamed text; return how to stop that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None

    async def watch(self) -> AsyncIterator[Event | Progress]:
        """Yield events as they happen, until the run is done. Under an asyncio driver only."""
        queue: asyncio.Queue[Event | Progress | None] = asyncio.Queue()
        self.when_done(lambda: queue.put_nowait(None))
        stop = self.subscribe(queue.put_nowait)
        try:
            while (item := await queue.get()) is not None:
                yield item
        finally:
            stop()

    def when_done(self, call: Callable[[], None]) -> None:
        """Call `call` once the run is done and everything is settled (now, if it is)."""
        if self.done:
            call()
        else:
            self._ended.append(call)

    # -- for the runtime

    def record(self, event: Event) -> None:
        """Write to the trace and tell whoever watches."""
        if self.trace is not None:
            self.trace.events.append(event)
        if self._sink is not None:
            self._sink(event)
        for watcher in tuple(self._watchers):
            watcher(event)

    @property
    def recording(self) -> bool:
        return self.trace is not None or self._sink is not None or bool(self._watchers)

    def decide(self, path: str, kind: str, /, **facts: Any) -> None:
        if self.recording:
            self.record(Decision(self.tick, path, kind, facts))

    def progress(self, item: Progress) -> None:
        for watcher in tuple(self._watchers):
            watcher(item)

    def ended(self) -> None:
        self.done = True
        calls, self._ended = self._ended, []
        for call in calls:
            call()

    def __repr__(self) -> str:
        return f"Run({self.name!r}, {self.stopped or 'running'}, {self.cost.tokens} tokens of {self.budget})"


__all__ = ["Decision", "Run", "Served", "Watcher"]
