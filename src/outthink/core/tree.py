"""The tree of a run while it lives: tasks (coroutines), tickets (requests) and the groups they were started in."""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .account import Account
from .budget import Budget
from .cost import Cost
from .request import Request

R = TypeVar("R")

QUEUED, FLYING, LATER, LIVE, ZOMBIE, DONE, PAUSED = range(7)
"""Of a ticket: QUEUED, FLYING, LATER (a retry that waits for its time), ZOMBIE (cancelled, cost not known yet), DONE,
PAUSED (in flight, and waits for the money for its next slice).
Of a task: QUEUED (its sub-budget is not set aside yet), LIVE, DONE."""

NOTHING: frozenset[bytes] = frozenset()
NO_COST = Cost()
NEW = 1 << 62


@dataclass(slots=True)
class Outcome(Generic[R]):
    """How a piece of work ended: `value` if it returned, `kept` the best it had kept, `error` why it did not return.

    index: its position in the work. cost: what it took, known for requests and for pieces with their own sub-budget
    (of those that were cancelled in part: what had settled when the piece ended).
    """

    index: int
    value: R | None = None
    kept: Any = None
    error: Exception | None = None
    cost: Cost | None = None

    @property
    def best(self) -> Any:
        """The value, or what was kept, or None."""
        return self.value if self.value is not None else self.kept


class Group(Generic[R]):
    """Pieces of work started together. `outcomes` holds those that ended, in order of completion."""

    __slots__ = (
        "caller", "depth", "drawn", "each", "grants", "live", "mode", "outcomes", "parked", "source", "task",
        "ungranted", "waiters", "work",
    )  # fmt: skip

    def __init__(self, task: Task, work: Iterable[Any], each: Any, mode: str) -> None:
        self.task, self.work, self.each, self.mode = task, work, each, mode
        self.grants: Iterator[Any] | None = None if each is None or isinstance(each, Cost | Budget) else iter(each)
        self.depth = 0
        self.source: Iterator[Any] | None = iter(work)
        self.outcomes: list[Outcome[R]] = []
        self.live: dict[Ticket | Task, None] = {}  # a dict, because it keeps the order in which they were started
        self.drawn = 0
        self.caller: Task | None = None  # who waits for the sub-budgets of a parked group
        self.parked = False  # its pieces have their sub-budgets, and wait for `resume`
        self.ungranted = False
        self.waiters: list[tuple[Task, int | None]] = []

    def satisfied(self, count: int | None) -> bool:
        """Whether somebody who waits for `count` pieces may go on."""
        if count is not None and len(self.outcomes) >= count:
            return True
        if self.live or self.source is not None:
            return self.mode == "together" and bool(self.outcomes) and self.outcomes[-1].error is not None
        return True


class Ticket:
    """A request on its way. `held` and `bound` are what a backend may look at."""

    __slots__ = (
        "account", "age", "amounts", "attempt", "bound", "depth", "group", "held", "index", "parent", "part", "place",
        "port", "request", "state", "whole",
    )  # fmt: skip

    def __init__(self, request: Request[Any], parent: Task, index: int, group: Group[Any] | None) -> None:
        self.request, self.parent, self.index, self.group = request, parent, index, group
        self.place = 0  # its position in the work of its group; `index` counts what its parent asked for
        self.account: Account = parent.account
        self.depth = parent.depth + 1
        self.state, self.attempt = QUEUED, 0
        self.age = NEW  # of those paid in slices: their order of dispatch
        self.whole: tuple[Cost, tuple[int, ...]] | None = None  # bound and amounts of all it may have
        self.part: tuple[Cost, tuple[int, ...]] | None = None  # and of its first slice
        self.amounts: tuple[int, ...] | None = None
        self.bound: Cost = NO_COST
        self.held: Collection[bytes] = NOTHING
        self.port: Any = None

    @property
    def path(self) -> str:
        return f"{self.parent.path}/{self.index}"

    @property
    def run(self) -> Any:
        return self.account.run

    @property
    def watched(self) -> bool:
        return self.account.run.watched  # type: ignore[no-any-return]


class Task:
    """A coroutine on its way. `account` pays for it; with a sub-budget of its own, `grant` says what it asks for."""

    __slots__ = (
        "_path", "account", "best", "coro", "depth", "grant", "group", "groups", "index", "parent", "place", "rank",
        "spawned", "state", "waiting",
    )  # fmt: skip

    def __init__(self, coro: Coroutine[Any, Any, Any], parent: Task | None, index: int, account: Account) -> None:
        self.coro, self.parent, self.index, self.account = coro, parent, index, account
        self.depth: int = parent.depth if parent is not None else 0
        self.state, self.place = LIVE, 0
        self.group: Group[Any] | None = None
        self.grant: Any = None
        self.groups: dict[Group[Any], None] | None = None
        self.waiting: Ticket | None = None
        self.spawned = 0
        self.best: Any = None
        self.rank: tuple[bool, bool, float] | None = None
        self._path: str | None = None

    @property
    def run(self) -> Any:
        return self.account.run

    @property
    def path(self) -> str:
        """Names of coroutines and positions from the root: "beam/2/judge"; requests add their position."""
        unnamed: list[Task] = []
        node: Task | None = self
        while node is not None and node._path is None:
            unnamed.append(node)
            node = node.parent
        path = node._path if node is not None else None
        for task in reversed(unnamed):  # a loop: recursion would end at depth 1,000
            name = getattr(task.coro, "__name__", "task")
            path = name if path is None else f"{path}/{task.index}/{name}"
            task._path = path
        return path or ""

    def keep(self, state: Any, value: float | None, complete: bool) -> bool:
        """Remember `state` if it is the best so far; return whether it is."""
        rank = (complete, value is not None, value if value is not None else 0.0)
        if self.rank is not None and not rank > self.rank:
            return False
        self.best, self.rank = state, rank
        return True
