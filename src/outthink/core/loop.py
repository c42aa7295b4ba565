"""One turn after the other: resume, dispatch, let the backends work, settle. Time and threads meet here only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heappop, heappush
from queue import Empty, SimpleQueue
from typing import Any

from .backend import Backend, Item, Progress, Settled
from .budget import Card
from .dispatch import Dispatcher
from .endings import Endings
from .errors import OutOfBudget, Stuck
from .machine import Machine
from .queues import Queues
from .run import Run
from .settle import Settler
from .slices import Slices
from .tree import DONE, ZOMBIE, Ticket


class Loop:
    """What a driver turns. `over(run)` is called when everything of a run has settled."""

    def __init__(
        self, backends: Mapping[str, Backend], cards: Mapping[str, Card], *, retries: int, window: int,
        slices: int | None, clock: Callable[[], float], sleep: Callable[[float], None] | None,
        over: Callable[[Run], None],
    ) -> None:  # fmt: skip
        self.clock, self.over, self._sleep = clock, over, sleep
        self.machine = machine = Machine(window=window, ended=self._ended)
        self.queues = queues = Queues()
        sliced = Slices(slices, queues)
        self.settler = Settler(queues, sliced, retries=retries, clock=clock, finish=machine.finish)
        self.dispatcher = Dispatcher(
            queues, sliced, backends, cards, finish=machine.finish, begin=machine.begin, report=self.post
        )
        self.endings = Endings(queues, self.settler, machine.ready)
        machine.queues, machine.settler, machine.endings = queues, self.settler, self.endings
        machine.price = self.dispatcher.price
        self.runs: dict[Run, None] = {}
        self.wake: Callable[[], None] | None = None  # set while an asyncio driver may sleep
        self._stepped = [port for port in self.dispatcher.ports if port.backend.stepped]
        self._inbox: SimpleQueue[Sequence[Item] | Callable[[], None]] = SimpleQueue()
        self._check: dict[Run, None] = {}  # runs to which something happened: over? stuck?
        self._deadlines: list[tuple[float, int, Run]] = []
        self._turning = False
        self._cancelled: list[Run] = []  # by a watcher, in the middle of a turn
        for port in self.dispatcher.ports:
            port.backend.attach(self.post)

    def add(self, run: Run) -> None:
        self.runs[run] = self._check[run] = None
        if run.budget.seconds is not None:
            heappush(self._deadlines, (run.started + run.budget.seconds, run.order, run))
        self.machine.begin(run.root)
        self.nudge()

    def post(self, what: Sequence[Item] | Callable[[], None]) -> None:
        """Take what a backend reports, or something to call, from any thread."""
        self._inbox.put(what)
        self.nudge()

    def nudge(self) -> None:
        wake = self.wake
        if wake is not None:
            wake()

    # -- one turn

    def advance(self) -> None:
        """Do everything that needs no backend: afterwards all wait for replies, for time, or are done."""
        self._turning = True
        try:
            self._advance()
        finally:
            self._turning = False

    def _advance(self) -> None:
        if self.settler.later:
            self.settler.due()
        while self._deadlines and (self._deadlines[0][2].done or self._deadlines[0][0] <= self.clock()):
            self.halt(heappop(self._deadlines)[2], "deadline")
        while True:
            while self._cancelled:
                self.halt(self._cancelled.pop(0), "cancelled")
            self.machine.drain()
            self.dispatcher.serve()
            if self.machine.ready or self._cancelled or (self.queues.suspects and self.dispatcher.judge()):
                continue
            if not self._stuck():
                break
        for run in [run for run in self._check if run.stopped is not None]:
            del self._check[run]
            if not run.zombies and not run.done:
                del self.runs[run]
                self.over(run)

    def _stuck(self) -> bool:
        """Fail the runs in which everybody waits for somebody else; return whether there was one."""
        found = False
        for run in [run for run in self._check if run.stopped is None]:
            del self._check[run]
            if run.pending == 0:
                paths = ", ".join(self.machine.waiting(run)[:10])
                self.endings.stop(run.root)
                self._end(run, "failed", Stuck(f"nothing is in flight or queued, and these wait: {paths}"))
                found = True
        return found

    def work(self) -> list[Item]:
        """Let the stepped backends work for a moment; return what they and the others report. Never sleeps."""
        items: list[Item] = []
        for port in self._stepped:
            if port.flying:
                items += port.backend.step()
        while True:
            try:
                items += self._opened(self._inbox.get_nowait())
            except Empty:
                return items

    def collect(self, items: Iterable[Item]) -> None:
        """Settle what was reported. What comes in one call makes one tick of the runs concerned."""
        ticked: set[Run] = set()
        self._turning = True
        try:
            for item in items:
                self._take(item, ticked)
        finally:
            self._turning = False

    def _take(self, item: Item, ticked: set[Run]) -> None:
        ticket: Ticket = item.ticket  # type: ignore[assignment]
        run: Run = ticket.run
        if ticket.state == ZOMBIE and type(item) is not Settled:
            return
        if type(item) is Progress:
            run.progress(item)
            return
        if ticket.state == DONE:
            raise AssertionError(f"a backend settled {ticket.path} twice")
        if run not in ticked:
            ticked.add(run)
            run.tick += 1
        if type(item) is Settled:
            self.settler.settle(item)
            self._check[run] = None
        else:
            self.settler.pause(ticket)

    def pause(self) -> float | None:
        """Return the seconds until a timer is due; None if only a backend or a person can change anything."""
        due = [entry[0] for entry in (*self.settler.later[:1], *self._deadlines[:1])]
        return max(0.0, min(due) - self.clock()) if due else None

    def rests(self) -> bool:
        """Whether no stepped backend has anything to do."""
        return not any(port.flying for port in self._stepped)

    def block(self) -> list[Item]:
        """Sleep until something is reported or due; at once if neither can be."""
        flying, seconds = any(port.flying for port in self.dispatcher.ports), self.pause()
        if not flying and not self.settler.later:
            return []
        if self._sleep is not None and seconds is not None and not flying:
            self._sleep(seconds)
            return []
        try:
            return self._opened(self._inbox.get(timeout=seconds))
        except Empty:
            return []

    def _opened(self, posted: Sequence[Item] | Callable[[], None]) -> list[Item]:
        if callable(posted):
            posted()
            return []
        return list(posted)

    # -- the end of a run

    def cancel(self, run: Run) -> None:
        """Stop a run as soon as that is possible: now, unless a watcher asks for it in the middle of a turn."""
        if self._turning:
            self._cancelled.append(run)
        else:
            self.halt(run, "cancelled")

    def halt(self, run: Run, why: str) -> None:
        """Stop a run now, as "cancelled" or "deadline"; one that has ended stays as it is."""
        if run.stopped is None:
            run.decide(run.root.path, "deadline" if why == "deadline" else "cancel")
            self.endings.stop(run.root)
            self._end(run, why, None)
            self.nudge()

    def _ended(self, run: Run, value: Any, error: Exception | None) -> None:
        if error is None:
            self._end(run, "finished", None, value)
        elif isinstance(error, OutOfBudget):
            self._end(run, "budget", None)
        else:
            self._end(run, "failed", error)

    def _end(self, run: Run, why: str, error: Exception | None, value: Any = None) -> None:
        run.conclude(why, error, value)
        run.seconds = self.clock() - run.started
        self._check[run] = None
