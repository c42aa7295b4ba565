"""Playing a method once, with everything in sight that a law may want to look at."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...core.backend import CAPABILITIES, Backend, Item, Settled, Ticket
from ...core.budget import Budget, Card, Meter, weights
from ...core.cost import Cost
from ...core.request import Request
from ...core.run import Run
from ...core.runtime import Runtime


@dataclass(frozen=True)
class MethodCase:
    """A method (with all its parts filled in) under test.

    make: seed -> a fresh coroutine. backends: builds fresh ones by model name; stepped, so that moments can be counted.
    answer: state -> its canonical answer or None, as for `Runtime.start`. cards: for budgets in dollars and FLOPs.
    produced: reply -> the complete answer in it, or None: with it, "an answer once produced is never lost" is tested.
    floor: a budget with which there must be an answer whatever the seed (that of `finishing`: one greedy answer).
    per_answer, asks: the bound of one complete answer and how many independent ones the method asks for, if it does.
    barriers: whether the order of completion may not matter; False for races and shared memories (the card says so).
    needs: the capabilities that it says it needs of its backends.
    importable: "package.module:name" of this case, so that another process can play it (hash order).
    examples: random budgets per law. slices: as for `Runtime`; the laws that whole bounds alone can keep are not asked
      then (k bounds of an answer give k answers; under a budget that binds, together as alone).
    """

    make: Callable[[int], Coroutine[Any, Any, Any]]
    backends: Callable[[], Mapping[str, Backend]]
    answer: Callable[[Any], str | None] | None = None
    cards: Mapping[str, Card] = field(default_factory=dict)
    produced: Callable[[Any], str | None] | None = None
    floor: Budget | None = None
    per_answer: Cost | None = None
    asks: int = 0
    barriers: bool = True
    needs: frozenset[str] | None = None
    importable: str = ""
    examples: int = 12
    slices: int | None = None


class Watched:
    """A backend with a notebook: what was served, and a call at a chosen moment."""

    def __init__(self, backend: Backend, *, at: int | None = None, call: Callable[[], None] | None = None) -> None:
        self.backend, self.at, self.call = backend, at, call
        self.stepped, self.capabilities = backend.stepped, backend.capabilities
        self.steps = self.submitted = 0
        self.flying: set[Ticket] = set()
        self.ends: list[Settled] = []
        self.used: set[str] = set()

    @property
    def served(self) -> Cost:
        return Cost.sum(end.cost for end in self.ends)

    def bound(self, ticket: Ticket, request: Request[Any]) -> Cost:
        return self.backend.bound(ticket, request)

    def room(self) -> int:
        return self.backend.room()

    def submit(self, ticket: Ticket, request: Request[Any]) -> None:
        self.submitted += 1
        self.used |= used(request)
        self.flying.add(ticket)
        self.backend.submit(ticket, request)

    def resume(self, ticket: Ticket, request: Request[Any]) -> None:
        self.backend.resume(ticket, request)  # type: ignore[attr-defined]

    def cancel(self, ticket: Ticket) -> None:
        self.backend.cancel(ticket)

    def step(self) -> Sequence[Item]:
        if self.call is not None and self.steps == self.at:
            self.call()
        self.steps += 1
        items = self.backend.step()
        for item in items:
            if isinstance(item, Settled):
                self.flying.remove(item.ticket)
                self.ends.append(item)
        return items

    def attach(self, post: Callable[[Sequence[Item]], None]) -> None:
        self.backend.attach(post)

    def close(self) -> None:
        self.backend.close()


def used(request: Request[Any]) -> set[str]:
    """Return the capabilities that a request asks for."""
    asked = {name for name in ("stop", "logprobs", "hidden", "monitor") if getattr(request, name, None)}
    return asked | {type(request).__name__.lower()} & CAPABILITIES


@dataclass
class Played:
    """A run that is over, and the backends that served it."""

    run: Run
    watched: Sequence[Watched]

    @property
    def served(self) -> Cost:
        return Cost.sum(each.served for each in self.watched)

    @property
    def steps(self) -> int:
        return sum(each.steps for each in self.watched)

    @property
    def outcome(self) -> tuple[str | None, str | None, Cost]:
        return self.run.answer, self.run.stopped, self.run.cost

    def events(self) -> list[Any]:
        assert self.run.trace is not None
        return self.run.trace.events


def play(
    case: MethodCase, seed: int, budget: Budget | None = None, *, wrap: Callable[[Backend], Backend] | None = None,
    cancel_at: int | None = None, clock: Callable[[], float] | None = None,
) -> Played:  # fmt: skip
    """Run the method once and return the run with its backends.

    wrap: put around every backend. cancel_at: the step of its backend at which the run is cancelled.
    """
    runs: list[Run] = []
    watched: dict[int, Watched] = {}
    models = {}
    for model, backend in case.backends().items():
        if id(backend) not in watched:
            inner = wrap(backend) if wrap is not None else backend
            watched[id(backend)] = Watched(inner, at=cancel_at, call=lambda: runs[0].cancel())
        models[model] = watched[id(backend)]
    timed: dict[str, Any] = {} if clock is None else {"clock": clock}
    runtime = Runtime(models, cards=case.cards, slices=case.slices, **timed)
    runs.append(runtime.start(case.make(seed), budget=budget, answer=case.answer, name=f"seed {seed}"))
    runtime.drive()
    played = Played(runs[0], list(watched.values()))
    runtime.close()
    return played


def amount(kind: str, cost: Cost, cards: Mapping[str, Card]) -> int:
    """Return how much of a limit of `kind` a cost uses."""
    return Meter(kind, weights(kind, cards)).amount(cost)
