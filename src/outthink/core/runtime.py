"""The runtime: drives methods, one thread, many runs at once, all sharing the batches of the backends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from heapq import heappop, heappush
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

from .account import Account
from .backend import Backend, Item, Progress, Settled
from .bank import Bank
from .budget import Budget, Card, Meter, weights
from .dispatch import Dispatcher
from .errors import InvalidInput, OutOfBudget, Stuck
from .machine import Machine
from .run import Run
from .trace import SCHEMA, Level, Sink, Trace
from .tree import DONE, NO_COST, ZOMBIE, Task, Ticket

Method = Coroutine[Any, Any, Any]


class Runtime:
    """Runs that start, are watched and are cancelled at any time.

    Args:
      backends: who serves which model. One backend may stand under several names.
      cards: prices and sizes, needed where budgets limit dollars or FLOPs.
      bank: where runs with an `account` take their leases.
      retries: how many more attempts a request gets when the backend says that another may help.
      window: how many pieces of one group are alive at once; more are drawn from the iterable as they end.
      clock, sleep: injectable; only the runtime looks at time (deadlines, and the wait before another attempt).

    Drive it by `run` or `drive` (from any thread, also inside a running event loop), or by `arun` or `serve` (asyncio).
    """

    def __init__(
        self, backends: Mapping[str, Backend], *, cards: Mapping[str, Card] | None = None, bank: Bank | None = None,
        retries: int = 3, window: int = 1024, clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
    ) -> None:  # fmt: skip
        if window < 1 or retries < 0:
            raise InvalidInput(f"window={window}, retries={retries}: a window is 1 or more, retries 0 or more")
        self.cards: Mapping[str, Card] = cards or {}
        self.bank, self.retries, self.window = bank, retries, window
        self._clock, self._sleep = clock, sleep
        self._machine = Machine(window=window, ended=self._ended)
        self._dispatcher = Dispatcher(
            backends, self.cards, retries=retries, clock=clock, finish=self._machine.finish, begin=self._machine.begin
        )
        self._machine.dispatcher = self._dispatcher
        self._stepped = [port for port in self._dispatcher.ports if port.backend.stepped]
        self._inbox: SimpleQueue[Sequence[Item] | Callable[[], None]] = SimpleQueue()
        self._wake: Callable[[], None] | None = None  # set while an asyncio driver sleeps
        self._server: asyncio.Task[None] | None = None
        self._runs: dict[Run, None] = {}
        self._check: dict[Run, None] = {}  # runs that might be stuck
        self._deadlines: list[tuple[float, int, Run]] = []
        self._orders = count()
        self._meters: dict[str, Meter] = {}
        for port in self._dispatcher.ports:
            port.backend.attach(self._post)

    # -- runs

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
        try:
            limits = Budget() if budget is None else Budget.parse(budget)
            if not weight > 0:
                raise InvalidInput(f"weight={weight}: a weight is above zero")
            order = next(self._orders)
            name = name or f"run {order}"
            gauges = {self._meter(limit.kind): limit.cap for limit in limits.limits}
            lease = None
            if account is not None:
                if self.bank is None:
                    raise InvalidInput(f"account={account!r} needs a bank; give Runtime(bank=...)")
                lease = self.bank.lease(account, name, limits)
        except Exception:
            coro.close()
            raise
        facts = {
            "schema": SCHEMA, "name": name, "budget": str(limits), "window": self.window, "retries": self.retries,
            "method": getattr(coro, "__name__", ""),
        }  # fmt: skip
        facts.update(header or {})
        record = Trace(facts, level=trace) if trace is not None and keep_events else None
        run = Run(
            name, budget=limits, header=facts, weight=weight, answer=answer, trace=record,
            sink=sink if trace is not None else None, level=trace or "costs",
        )  # fmt: skip
        run.order, run.lease = order, lease
        run.account = Account(run, None, gauges)
        run.root = Task(coro, None, 0, run.account)
        run._cancel = lambda: self.cancel(run)
        run.started = self._clock()
        if limits.seconds is not None:
            heappush(self._deadlines, (run.started + limits.seconds, order, run))
        self._runs[run] = None
        self._check[run] = None
        self._machine.begin(run.root)
        self._nudge()
        return run

    def cancel(self, run: Run) -> None:
        """Stop a run; it is done when everything in flight has settled."""
        self.halt(run, "cancelled")

    def post(self, call: Callable[[], None]) -> None:
        """Have `call` called in the thread that drives the runtime: how other threads start and cancel runs."""
        self._inbox.put(call)
        self._nudge()

    # -- drivers

    def run(self, coro: Method, **options: Any) -> Run:
        """Start a method and drive everything until it is done; raise what it raised. Options as for `start`."""
        run = self.start(coro, **options)
        self.drive(run)
        if run.error is not None:
            raise run.error
        return run

    def drive(self, *runs: Run) -> None:
        """Work until these runs (none given: all) are done. An interrupt cancels them and is raised again."""
        mine = runs or tuple(self._runs)
        try:
            while not all(run.done for run in mine):
                self.step()
        except BaseException:
            for run in mine:
                self.halt(run, "cancelled")
            raise

    def step(self) -> None:
        """One turn of the stepped driver: resume, dispatch, let the backends work, settle. Blocks if only time can help."""
        self._advance()
        if not self._runs:
            return
        items = self._work()
        if not items and not any(port.flying for port in self._stepped) and self._waiting():
            items = self._block(self._pause())
        self._collect(items)

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
        if self._server is None or self._server.done():
            self._server = loop.create_task(self._serve(until_idle=True))
        try:
            while not over.done():
                await asyncio.wait((over, self._server), return_when=asyncio.FIRST_COMPLETED)
                if not over.done():
                    self._server.result()  # the driver failed: say so here
                    self._server = loop.create_task(self._serve(until_idle=True))
        except asyncio.CancelledError:
            self.cancel(run)
            raise

    async def serve(self) -> None:
        """Drive all runs as they come, until this task is cancelled."""
        self._server = asyncio.current_task()
        await self._serve(until_idle=False)

    async def _serve(self, *, until_idle: bool) -> None:
        loop = asyncio.get_running_loop()
        awake = asyncio.Event()
        self._wake = lambda: loop.call_soon_threadsafe(awake.set)
        try:
            while True:
                self._advance()
                if until_idle and not self._runs:
                    return
                items = self._work()
                self._collect(items)
                if items or any(port.flying for port in self._stepped):
                    await asyncio.sleep(0)
                    continue
                pause = self._pause()
                try:
                    await asyncio.wait_for(awake.wait(), pause)
                except TimeoutError:
                    pass
                awake.clear()
        finally:
            self._wake = None

    # -- one turn

    def _advance(self) -> None:
        machine, dispatcher = self._machine, self._dispatcher
        self._timers()
        while True:
            machine.drain()
            dispatcher.serve()
            if machine.ready:
                continue
            if dispatcher.suspects and dispatcher.judge():
                continue
            if not self._stuck():
                break
        for run in [run for run in self._check if run.stopped is not None]:
            self._settle_run(run)

    def _timers(self) -> None:
        if self._dispatcher.later:
            self._dispatcher.due()
        while self._deadlines and (self._deadlines[0][2].done or self._deadlines[0][0] <= self._clock()):
            self.halt(heappop(self._deadlines)[2], "deadline")

    def _stuck(self) -> bool:
        """Fail the runs in which everybody waits for somebody else; return whether there was one."""
        found = False
        for run in list(self._check):
            if run.stopped is None:
                del self._check[run]
                if run.pending == 0:
                    paths = ", ".join(self._machine.waiting(run)[:10])
                    self._machine.stop(run.root)
                    self._end(run, "failed", Stuck(f"nothing is in flight or queued, and these wait: {paths}"))
                    found = True
        return found

    def _work(self) -> list[Item]:
        items: list[Item] = []
        for port in self._stepped:
            if port.flying:
                items += port.backend.step()
        while True:
            try:
                posted = self._inbox.get_nowait()
            except Empty:
                return items
            if callable(posted):
                posted()
            else:
                items += posted

    def _collect(self, items: Iterable[Item]) -> None:
        ticked: set[Run] = set()
        for item in items:
            ticket: Ticket = item.ticket  # type: ignore[assignment]
            run: Run = ticket.run
            if type(item) is Settled:
                if ticket.state == DONE:
                    raise AssertionError(f"a backend settled {ticket.path} twice")
                if run not in ticked:
                    ticked.add(run)
                    run.tick += 1
                self._dispatcher.settle(item)
                self._check[run] = None
            elif type(item) is Progress and ticket.state != ZOMBIE:
                run.progress(item)

    def _waiting(self) -> bool:
        return bool(self._dispatcher.flying or self._dispatcher.later)

    def _pause(self) -> float | None:
        """Seconds until a timer is due; None if only a backend or a person can change anything."""
        due = [entry[0] for entry in (*self._dispatcher.later[:1], *self._deadlines[:1])]
        return max(0.0, min(due) - self._clock()) if due else None

    def _block(self, seconds: float | None) -> list[Item]:
        if self._sleep is not None and seconds is not None and not self._dispatcher.flying:
            self._sleep(seconds)
            return []
        try:
            posted = self._inbox.get(timeout=seconds)
        except Empty:
            return []
        if callable(posted):
            posted()
            return []
        return list(posted)

    def _post(self, items: Sequence[Item]) -> None:
        self._inbox.put(items)
        self._nudge()

    def _nudge(self) -> None:
        wake = self._wake
        if wake is not None:
            wake()

    # -- the end of a run

    def halt(self, run: Run, why: str) -> None:
        """Stop a run now, as "cancelled" or "deadline"; one that has ended stays as it is."""
        if run.stopped is None:
            run.decide(run.root.path, "deadline" if why == "deadline" else "cancel")
            self._machine.stop(run.root)
            self._end(run, why, None)
            self._nudge()

    def _ended(self, run: Run, value: Any, error: Exception | None) -> None:
        if error is None:
            self._end(run, "finished", None, value)
        elif isinstance(error, OutOfBudget):
            self._end(run, "budget", None)
        else:
            self._end(run, "failed", error)

    def _end(self, run: Run, why: str, error: Exception | None, value: Any = None) -> None:
        root = run.root
        run.error = error
        run.state = value if value is not None else root.best
        complete = root.rank is not None and root.rank[0]
        if complete and run.state is not root.best and run.answer is None:
            run.state = root.best  # an answer that was produced is never lost to a state without one
        if root.rank is not None and root.rank[1] and run.state == root.best:
            run.value = root.rank[2]
        run.stopped = "no answer" if why == "finished" and run.answer is None else why
        run.seconds = self._clock() - run.started
        run.decide(root.path, "end", stopped=run.stopped, value=run.value, error=repr(error) if error else None)
        self._check[run] = None

    def _settle_run(self, run: Run) -> None:
        """Close a run once nothing of it is in flight: return the lease, tell whoever waits."""
        del self._check[run]
        if run.zombies or run.done:
            return
        self._runs.pop(run, None)
        if run.lease is not None and self.bank is not None:
            self.bank.settle(run.lease, {g.meter.kind: g.spent for g in run.account.gauges})
        run.seconds = self._clock() - run.started
        run.held.clear()
        run.ended()

    def _meter(self, kind: str) -> Meter:
        meter = self._meters.get(kind)
        if meter is None:
            meter = self._meters[kind] = Meter(kind, weights(kind, self.cards))
        return meter

    def close(self) -> None:
        """Cancel what runs, and close the backends."""
        for run in list(self._runs):
            self.halt(run, "cancelled")
        self.drive()
        for port in self._dispatcher.ports:
            port.backend.close()


__all__ = ["NO_COST", "Runtime"]
