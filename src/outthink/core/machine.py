"""Coroutines: resuming them, what they can do (the traps), and how they and everything they started end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from .cost import Cost
from .endings import Endings
from .errors import InvalidInput, OutOfBudget
from .queues import Queues
from .request import Request
from .run import Run
from .settle import Settler
from .trace import Decision
from .tree import DONE, QUEUED, Group, Outcome, Task, Ticket
from .verbs import Trap


class Machine:
    """The live trees of all runs. `ended(run, value, error)` is called when a top coroutine is over."""

    def __init__(self, *, window: int, ended: Callable[[Run, Any, Exception | None], None]) -> None:
        self.window, self.ended = window, ended
        self.ready: deque[tuple[Task, Any, Exception | None]] = deque()
        self.queues: Queues
        self.settler: Settler
        self.endings: Endings
        self.price: Callable[[Ticket], Cost]
        self._traps: dict[str, Callable[..., None]] = {
            "start": self._start, "wait": self._wait, "cancel": self._cancel, "keep": self._keep, "left": self._left,
            "bound": self._bound, "note": self._note, "resume": self._resume, "kept": self._kept,
        }  # fmt: skip

    def begin(self, task: Task) -> None:
        """Let a task take its first step; if it was waiting for its sub-budget, its group may draw the next piece."""
        group = task.group
        if group is None or not group.parked:
            self.ready.append((task, None, None))
        if group is not None and group.ungranted:
            group.ungranted = False
            self._draw(group)
            self._settled(group)

    # -- resuming

    def drain(self) -> None:
        """Resume everybody who can go on, until nobody can."""
        ready = self.ready
        while ready:
            task, value, error = ready.popleft()
            if task.state == DONE:
                continue
            try:
                trap = task.coro.send(value) if error is None else task.coro.throw(error)
            except StopIteration as stop:
                self.finish(task, stop.value, None)
            except Exception as raised:
                assert raised.__traceback__ is not None
                raised.__traceback__ = raised.__traceback__.tb_next  # the reader wants the method, not this loop
                if not isinstance(raised, OutOfBudget) and not hasattr(raised, "outthink_place"):
                    raised.outthink_place = task.path  # type: ignore[attr-defined]
                    raised.add_note(f"in {task.path}")
                self.finish(task, None, raised)
                del raised
            else:
                if isinstance(trap, Request):
                    task.waiting = self._ask(trap, task, None, 0)
                elif type(trap) is Trap:
                    self._traps[trap.verb](task, *trap.args)
                else:
                    what = f"a method can only await requests and verbs, not {trap!r}; I/O belongs in a backend"
                    ready.append((task, None, TypeError(what)))
            del value, error

    def _ask(self, request: Request[Any], task: Task, group: Group[Any] | None, place: int) -> Ticket:
        ticket = Ticket(request, task, task.spawned, group)
        ticket.place = place
        task.spawned += 1
        self.queues.enqueue(ticket, task.account)
        return ticket

    # -- traps

    def _start(self, task: Task, work: Any, each: Any, mode: str, parked: bool = False) -> None:
        try:
            group: Group[Any] = Group(task, work, each, mode)
        except TypeError as error:
            self.ready.append((task, None, error))
            return
        if parked and each is None:
            self.endings.drop(group)
            wrong = InvalidInput("start(parked=True) keeps sub-budgets in reserve: say with each=... how much")
            self.ready.append((task, None, wrong))
            return
        group.parked = parked
        if task.groups is None:
            task.groups = {}
        task.groups[group] = None
        if parked:  # the caller goes on when every sub-budget is set aside or refused, so that `left` is right
            group.caller = task
            self._draw(group)
            self._settled(group)
        else:
            self._draw(group)
            self.ready.append((task, group, None))

    def _settled(self, group: Group[Any]) -> None:
        caller = group.caller
        if caller is not None and not group.ungranted and (group.source is None or len(group.live) >= self.window):
            group.caller = None
            self.ready.append((caller, group, None))

    def _draw(self, group: Group[Any]) -> None:
        """Begin more pieces, as many as the window allows; one at a time while they wait for their sub-budgets."""
        task, ended = group.task, len(group.outcomes)
        while group.source is not None and len(group.live) < self.window and not group.ungranted:
            try:
                piece = next(group.source)
                grant = group.each if group.grants is None else next(group.grants, group)
            except StopIteration:
                group.source = None
                break
            except Exception as error:  # a bug in the iterable: it is the outcome of that place
                self.endings.drop(group)
                group.outcomes.append(Outcome(group.drawn, error=error))
                break
            place, group.drawn = group.drawn, group.drawn + 1
            if grant is group:
                wrong: Exception = InvalidInput(f"only {place} sub-budgets for more pieces of work; give one for each")
                if hasattr(piece, "close"):
                    piece.close()
                group.outcomes.append(Outcome(place, error=wrong))
                self.endings.drop(group)
            elif isinstance(piece, Request):
                if grant is None:
                    group.live[self._ask(piece, task, group, place)] = None
                else:
                    self._spawn(_answered(piece), task, group, place, grant)
            elif isinstance(piece, Coroutine):
                self._spawn(piece, task, group, place, grant)
            else:
                wrong = TypeError(f"work is requests and coroutines, not {piece!r} (place {place})")
                group.outcomes.append(Outcome(place, error=wrong))
        if len(group.outcomes) > ended:
            self._wake(group)

    def _spawn(self, coro: Coroutine[Any, Any, Any], parent: Task, group: Group[Any], place: int, grant: Any) -> None:
        task = Task(coro, parent, parent.spawned, parent.account)
        parent.spawned += 1
        task.group, task.place, task.grant = group, place, grant
        group.live[task] = None
        if grant is None:
            self.ready.append((task, None, None))
        else:
            task.state = QUEUED
            group.ungranted = True
            self.queues.enqueue(task, parent.account)

    def _wait(self, task: Task, group: Group[Any], count: int | None) -> None:
        if group.satisfied(count):
            task.depth = max(task.depth, group.depth)
            self.ready.append((task, group.outcomes, None))
        else:
            group.waiters.append((task, count))

    def _resume(self, task: Task, group: Group[Any]) -> None:
        if group.parked:
            group.parked = False
            self.ready.extend((node, None, None) for node in group.live)  # type: ignore[misc]
        self.ready.append((task, None, None))

    def _kept(self, task: Task) -> None:
        self.ready.append((task, task.rank is not None and task.rank[0], None))

    def _cancel(self, task: Task, group: Group[Any]) -> None:
        self.endings.drop(group)
        for node in list(group.live):
            self.endings.stop(node)
        group.live.clear()
        self.endings.abandon(group)
        if group.task.groups is not None:
            group.task.groups.pop(group, None)
        self.ready.append((task, None, None))

    def _keep(self, task: Task, state: Any, value: float | None, complete: bool) -> None:
        if value is not None and value != value:
            wrong = InvalidInput(f"keep(value={value}): a value is a number; what has no score is kept without one")
            self.ready.append((task, None, wrong))
            return
        run: Run = task.run
        if task.keep(state, value, complete) and task.parent is None:
            run.history.append((run.tally.cost(), value))
            run.decide(task.path, "keep", value=value, complete=complete)
        self.ready.append((task, None, None))

    def _left(self, task: Task) -> None:
        left = task.account.left()
        task.run.decide(task.path, "left", left={meter.kind: amount for meter, amount in left.amounts})
        self.ready.append((task, left, None))

    def _bound(self, task: Task, request: Request[Any]) -> None:
        ticket = Ticket(request, task, task.spawned, None)
        task.spawned += 1
        try:
            cost = self.price(ticket)
        except Exception as error:
            self.ready.append((task, None, error))
            return
        task.run.decide(ticket.path, "bound", bound=cost)
        self.ready.append((task, cost, None))

    def _note(self, task: Task, facts: dict[str, Any]) -> None:
        run: Run = task.run
        if run.recording:
            run.record(Decision(run.tick, task.path, "note", facts))
        self.ready.append((task, None, None))

    # -- endings

    def finish(self, node: Ticket | Task, value: Any, error: Exception | None, cost: Cost | None = None) -> None:
        """A request was answered or refused, or a coroutine is over: tell whoever waits."""
        ungranted = node.state == QUEUED and type(node) is Task
        node.state = DONE
        if type(node) is Task:
            if ungranted:
                node.coro.close()
                cost = Cost()
            else:
                self.endings.orphans(node)
                if node.grant is not None:
                    cost = node.account.tally.cost()
                    self.settler.close(node.account)
        group = node.group
        if group is None:
            if type(node) is Ticket:
                parent = node.parent
                parent.waiting = None
                parent.depth = max(parent.depth, node.depth)
                self.ready.append((parent, value, error))
            else:
                self.ended(node.run, value, error)
            return
        node.group = None
        kept = node.best if type(node) is Task else None
        group.live.pop(node, None)
        group.depth = max(group.depth, node.depth)
        group.outcomes.append(Outcome(node.place, value, kept, error, cost))
        if ungranted:
            group.ungranted = False
        if isinstance(error, OutOfBudget) and group.grants is None and (group.each is None or not cost):
            self.endings.drop(group)  # what asks for the same would be refused as well, perhaps without end
        elif error is not None and group.mode == "together":
            self.endings.drop(group)
        if group.source is not None:
            self._draw(group)
        if group.waiters or not group.live:
            self._wake(group)
        if group.caller is not None:
            self._settled(group)

    def _wake(self, group: Group[Any]) -> None:
        if not group.live and group.source is None and group.task.groups is not None:
            group.task.groups.pop(group, None)
        if group.waiters:
            asleep = []
            for task, count in group.waiters:
                if group.satisfied(count):
                    task.depth = max(task.depth, group.depth)
                    self.ready.append((task, group.outcomes, None))
                else:
                    asleep.append((task, count))
            group.waiters = asleep

    def waiting(self, run: Run) -> list[str]:
        """Return the paths of the coroutines of a run that wait for others: what `Stuck` reports."""
        out, stack = [], [run.root]
        while stack:
            task = stack.pop()
            below = [node for group in task.groups or () for node in group.live if type(node) is Task]
            if not below:
                out.append(task.path)
            stack.extend(below)
        return sorted(out)


async def _answered(request: Request[Any]) -> Any:
    """A request that has a sub-budget of its own."""
    return await request
