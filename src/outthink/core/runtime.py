"""The runtime: drives methods, one thread, many runs at once, all sharing the batches of the backends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from itertools import count
from typing import Any

from .account import Account
from .backend import Backend
from .bank import Bank
from .budget import Budget, Card, Meter, weights
from .errors import InvalidInput
from .loop import Loop
from .run import Run
from .trace import SCHEMA, Level, Sink, Trace
from .tree import Task

Method = Coroutine[Any, Any, Any]


class Runtime:
    """Runs that start, are watched and are cancelled at any time.

    Args:
      backends: who serves which model. One backend may stand under several names.
      cards: prices and sizes, needed where budgets limit dollars or FLOPs.
      bank: where runs with an `account` take their leases.
      retries: how many more attempts a request gets when the backend says that another may help.
      slices: how many output tokens of a `Sample` that may be cut are paid at a time, by backends that can pause: many
        branches run at once under a budget that could pay for few whole bounds. None: everything is paid whole, and
        then a budget of k bounds gives k answers and replies in another order give the same ones
        (design/0009-slices.md).
      window: how many pieces of one group are alive at once; more are drawn from the iterable as they end.
      clock, sleep: injectable; only the runtime looks at time (deadlines, and the wait before another attempt).

    Drive it by `run` or `drive` (also inside a running event loop), or by `arun` or `serve` (asyncio).
    """

    def __init__(
        self, backends: Mapping[str, Backend], *, cards: Mapping[str, Card] | None = None, bank: Bank | None = None,
        retries: int = 3, window: int = 1024, slices: int | None = None,
        clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] | None = None,
    ) -> None:  # fmt: skip
        if window < 1 or retries < 0 or (slices is not None and slices < 1):
            wrong = f"window={window}, retries={retries}, slices={slices}"
            raise InvalidInput(f"{wrong}: a window and slices are 1 or more, retries 0 or more")
        self.cards: Mapping[str, Card] = cards or {}
        self.bank, self.retries, self.window, self.slices = bank, retries, window, slices
        self.loop = Loop(
            backends,
            self.cards,
            retries=retries,
            window=window,
            slices=slices,
            clock=clock,
            sleep=sleep,
            over=self._over,
        )
        self._backends = backends
        self._server: asyncio.Task[None] | None = None
        self._orders = count()
        self._meters: dict[str, Meter] = {}

    def start(
        self, coro: Method, *, budget: str | int | Budget | None = None, name: str = "", weight: float = 1.0,
        answer: Callable[[Any], str | None] | None = None, account: str | None = None,
        header: Mapping[str, Any] | None = None, trace: Level | None = "full", sink: Sink | None = None,
        keep_events: bool = True,
    ) -> Run:  # fmt: skip
        """Begin a method; return its Run at once. Something must drive the runtime.

        budget: what it may spend. account: whose money it is: the budget is leased there first (OutOfBudget if it
        cannot be). answer: how to read an answer off a state. weight: its share of the room among runs that compete.
        trace: how much is recorded (None: nothing); sink: called with every event; keep_events: also in memory.
        """
        if not isinstance(coro, Coroutine):
            raise InvalidInput(f"start({coro!r}): give a coroutine, that is, call the method: start(method(...))")
        order = next(self._orders)
        name = name or f"run {order}"
        try:
            limits = Budget() if budget is None else Budget.parse(budget)
            if not weight > 0:
                raise InvalidInput(f"weight={weight}: a weight is above zero")
            gauges = {self._meter(limit.kind): limit.cap for limit in limits.limits}
            if account is not None and self.bank is None:
                raise InvalidInput(f"account={account!r} needs a bank; give Runtime(bank=...)")
            lease = self.bank.lease(account, name, limits) if account is not None and self.bank is not None else None
        except Exception:
            coro.close()
            raise
        facts = {
            "schema": SCHEMA, "name": name, "budget": str(limits), "window": self.window, "retries": self.retries,
            "method": getattr(coro, "__name__", ""),
        }  # fmt: skip
        if self.slices is not None:
            facts["slices"] = self.slices
        facts.update(header or {})
        record = Trace(facts, level=trace) if trace is not None and keep_events else None
        run = Run(
            name, order=order, budget=limits, header=facts, weight=weight, answer=answer, trace=record,
            sink=sink if trace is not None else None, level=trace or "costs",
        )  # fmt: skip
        run.lease, run.started = lease, self.loop.clock()
        run.account = Account(run, None, gauges)
        run.root = Task(coro, None, 0, run.account)
        run.halt = lambda: self.cancel(run)
        self.loop.add(run)
        return run

    def cancel(self, run: Run) -> None:
        """Stop a run; it is done when everything in flight has settled."""
        self.loop.cancel(run)

    def post(self, call: Callable[[], None]) -> None:
        """Have `call` called in the thread that drives the runtime: how other threads start and cancel runs."""
        self.loop.post(call)

    # -- the stepped driver

    def run(self, coro: Method, **options: Any) -> Run:
        """Start a method and drive everything until it is done; raise what it raised. Options as for `start`."""
        run = self.start(coro, **options)
        self.drive(run)
        if run.error is not None:
            raise run.error
        return run

    def drive(self, *runs: Run) -> None:
        """Work until these runs (none given: all) are done. An interrupt cancels them and is raised again."""
        mine = runs or tuple(self.loop.runs)
        try:
            while not all(run.done for run in mine):
                self.step()
        except BaseException:
            for run in mine:
                self.loop.halt(run, "cancelled")
            raise

    def step(self) -> None:
        """Take one turn. Sleeps only if nothing but time or another thread can help."""
        loop = self.loop
        loop.advance()
        if loop.runs:
            items = loop.work()
            if not items and loop.rests():
                items = loop.block()
            loop.collect(items)

    # -- the asyncio driver

    async def arun(self, coro: Method, **options: Any) -> Run:
        """As `run`, under asyncio; other tasks of the loop go on. Cancelling the awaiting task cancels the run."""
        run = self.start(coro, **options)
        await self.settled(run)
        if run.error is not None:
            raise run.error
        return run

    async def settled(self, run: Run) -> None:
        """Wait until a run is done; drives the runtime unless a `serve` does."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        run.when_done(lambda: None if over.done() else over.set_result(None))
        try:
            while not over.done():
                if self._server is None or self._server.done():
                    self._server = loop.create_task(self._serve(until_idle=True))
                await asyncio.wait((over, self._server), return_when=asyncio.FIRST_COMPLETED)
                if not over.done() and not self._server.cancelled():
                    self._server.result()  # if the driver failed, say so here
        except asyncio.CancelledError:
            self.cancel(run)
            raise

    async def serve(self) -> None:
        """Drive all runs as they come, until this task is cancelled."""
        self._server = asyncio.current_task()
        await self._serve(until_idle=False)

    async def _serve(self, *, until_idle: bool) -> None:
        turns, here, awake = self.loop, asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            here.call_soon_threadsafe(awake.set)

        turns.wake = wake
        try:
            while True:
                turns.advance()
                if until_idle and not turns.runs:
                    return
                items = turns.work()
                turns.collect(items)
                if items or not turns.rests():
                    await asyncio.sleep(0)  # let the other tasks of the loop go on
                    continue
                try:
                    await asyncio.wait_for(awake.wait(), turns.pause())
                except TimeoutError:
                    pass
                awake.clear()
        finally:
            turns.wake = None

    # -- ends

    def _over(self, run: Run) -> None:
        """Return the lease and tell whoever waits: nothing of the run is in flight any more."""
        if run.lease is not None and self.bank is not None:
            self.bank.settle(run.lease, {g.meter.kind: g.spent for g in run.account.gauges})
        run.seconds = self.loop.clock() - run.started
        run.over()

    def close(self) -> None:
        """Cancel what runs, wait until it has settled, and close the backends."""
        for run in list(self.loop.runs):
            self.loop.halt(run, "cancelled")
        self.drive()
        for port in self.loop.dispatcher.ports:
            port.backend.close()

    def _meter(self, kind: str) -> Meter:
        meter = self._meters.get(kind)
        if meter is None:
            meter = self._meters[kind] = Meter(kind, weights(kind, self.cards))
        return meter
