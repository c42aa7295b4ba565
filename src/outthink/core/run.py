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
from .cost import Cost, Gauges, Tally
from .trace import Decision, Event, Level, Sink, Trace
from .tree import Task

Watcher = Callable[[Event | Progress], None]


class Run:
    """What came of a method, while it runs and after.

    state: what the method returned, or the best it had kept. value: the value with which that was kept, None if it
      was never scored. budget, trace: as given to `Runtime.start`.
    stopped: None while it runs; then "finished", "budget", "deadline", "cancelled", "failed" (see `error`), or
      "no answer" (it returned, but nothing that has an answer).
    history: the anytime curve, (cost, value) whenever the top coroutine kept something better.
    overrun: a backend went above its bound (booked in full). exact: every cost is a count, none an upper end.
    """

    def __init__(
        self, name: str, *, order: int, budget: Budget, header: Mapping[str, Any], weight: float, level: Level,
        answer: Callable[[Any], str | None] | None, trace: Trace | None, sink: Sink | None,
    ) -> None:  # fmt: skip
        self.name, self.budget, self.header, self.trace = name, budget, header, trace
        self.state: Any = None
        self.value: float | None = None
        self.stopped: str | None = None
        self.error: Exception | None = None
        self.done = self.overrun = False
        self.exact = True
        self.history: list[tuple[Cost, float | None]] = []
        # the runtime's own
        self.account: Account
        self.root: Task
        self.halt: Callable[[], None]
        self.lease: Lease | None = None
        self.order, self.weight, self.level = order, weight, level
        self.tally = Tally()
        self.held: dict[str, set[bytes]] = {}  # digests of the prefixes that each model's backend holds
        self.written: dict[tuple[str, int | None], tuple[int, int]] = {}  # served in slices, by kind: count and output
        self.pending = 0  # requests and grants that are queued, in flight, or wait for another attempt
        self.zombies = 0  # cancelled, cost not known yet
        self.listed: deque[Account] = deque()  # accounts whose heads may be looked at
        self.enlisted = False
        self.turn = 0.0  # virtual time of weighted fairness
        self.tick = self.depth = self.kv_peak = 0
        self.started = self.seconds = 0.0
        self._answer, self._sink = answer, sink
        self._watchers: list[Watcher] = []
        self._when_done: list[Callable[[], None]] = []

    @property
    def cost(self) -> Cost:
        """Everything spent so far, cancelled and failed work included."""
        return self.tally.cost()

    @property
    def gauges(self) -> Gauges:
        """What does not add: the longest chain of awaited requests, the most KV bytes held, and the seconds it took."""
        return Gauges(depth=self.depth, kv_peak=self.kv_peak, seconds=self.seconds)

    @property
    def answer(self) -> str | None:
        """The canonical answer of the state, None if there is no state or it has none."""
        if self.state is None:
            return None
        if self._answer is None:
            return self.state if isinstance(self.state, str) else repr(self.state)
        return self._answer(self.state)

    def cancel(self) -> None:
        """Stop at once; what had been kept is the result. It is done when all in flight has settled."""
        self.halt()

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
            self._when_done.append(call)

    # -- for the runtime

    @property
    def watched(self) -> bool:
        return bool(self._watchers)

    @property
    def recording(self) -> bool:
        return self.trace is not None or self._sink is not None or bool(self._watchers)

    def record(self, event: Event) -> None:
        """Write to the trace and tell whoever watches."""
        if self.trace is not None:
            self.trace.events.append(event)
        if self._sink is not None:
            self._sink(event)
        for watcher in tuple(self._watchers):
            watcher(event)

    def decide(self, path: str, kind: str, /, **facts: Any) -> None:
        if self.recording:
            self.record(Decision(self.tick, path, kind, facts))

    def progress(self, item: Progress) -> None:
        for watcher in tuple(self._watchers):
            watcher(item)

    def conclude(self, why: str, error: Exception | None, value: Any) -> None:
        """Settle on a state: what was returned, unless only something kept has an answer."""
        root = self.root
        self.state = value if value is not None else root.best
        try:
            answered = self._answered()
            if not answered and root.rank is not None and root.rank[0]:
                self.state = root.best
                answered = self._answered()
            self.stopped = why if answered or why != "finished" else "no answer"
        except Exception as wrong:  # the caller's way to read answers failed
            self.stopped, error = "failed", error or wrong
        self.error = error
        if root.rank is not None and root.rank[1] and self.state == root.best:
            self.value = root.rank[2]
        failed = repr(error) if error is not None else None
        self.decide(root.path, "end", stopped=self.stopped, value=self.value, error=failed)

    def _answered(self) -> bool:
        return self.state is not None and (self._answer is None or self._answer(self.state) is not None)

    def over(self) -> None:
        """Nothing is in flight any more."""
        self.done = True
        self.held.clear()
        calls, self._when_done = self._when_done, []
        for call in calls:
            call()

    def __repr__(self) -> str:
        return f"Run({self.name!r}, {self.stopped or 'running'}, {self.cost.tokens} tokens of {self.budget})"
