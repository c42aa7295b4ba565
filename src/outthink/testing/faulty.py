"""A wrapper that makes any stepped backend misbehave, by a plan and a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..core.backend import Backend, Failure, Item, Settled, Ticket
from ..core.cost import Cost
from ..core.errors import InvalidInput
from ..core.request import Draft, Request, Scored
from ..core.seeds import fold

FATES = ("refuse", "busy", "timeout", "empty", "short", "silent", "over")


@dataclass(frozen=True, slots=True)
class Faults:
    """How often what goes wrong; the rest of the attempts is served as it should be.

    refuse: a failure that no other attempt helps, at no cost.
    busy: a failure that another attempt may help, at no cost. timeout: the same after the work was done, usage unknown.
    empty: a draft without text. short: a draft cut in half, a score without its last step.
    silent: usage is missing (charged at the bound, not exact). over: usage above the bound.
    late: steps by which cancels reach the backend late. shuffle: replies come in random order, some at a time.
    """

    refuse: float = 0.0
    busy: float = 0.0
    timeout: float = 0.0
    empty: float = 0.0
    short: float = 0.0
    silent: float = 0.0
    over: float = 0.0
    late: int = 0
    shuffle: bool = False

    def __post_init__(self) -> None:
        chances = [getattr(self, name) for name in FATES]
        if min(chances) < 0 or sum(chances) > 1 or self.late < 0:
            raise InvalidInput(f"{self}: chances are not negative and sum to at most 1; late is zero or more")

    def fate(self, *place: object) -> str | None:
        """Return what happens to the attempt at `place`, None if nothing does."""
        mark = random.Random(fold(0, "fate", *place)).random()
        for name in FATES:
            mark -= getattr(self, name)
            if mark < 0:
                return name
        return None


class Faulty:
    """`backend` with `faults`. What happens to a request depends on its path, the attempt and `seed`, not on timing.

    fates: what was done to each attempt, in order of submission: (path, attempt, fate).
    """

    stepped = True

    def __init__(self, backend: Backend, faults: Faults = Faults(), *, seed: int = 0) -> None:
        if not backend.stepped:
            raise InvalidInput("Faulty wraps stepped backends; put the faults of others into their server")
        self.backend, self.faults, self.seed = backend, faults, seed
        self.capabilities = backend.capabilities
        self.fates: list[tuple[str, int, str | None]] = []
        self._attempts: dict[str, int] = {}
        self._marked: dict[Ticket, str] = {}
        self._requests: dict[Ticket, Request[Any]] = {}
        self._cancels: list[list[Any]] = []
        self._waiting: list[Item] = []
        self._rng = random.Random(fold(seed, "order"))

    def bound(self, ticket: Ticket, request: Request[Any]) -> Cost:
        return self.backend.bound(ticket, request)

    def room(self) -> int:
        return self.backend.room()

    def submit(self, ticket: Ticket, request: Request[Any]) -> None:
        attempt = self._attempts[ticket.path] = self._attempts.get(ticket.path, -1) + 1
        fate = self.faults.fate(self.seed, ticket.path, attempt)
        self.fates.append((ticket.path, attempt, fate))
        if fate in ("refuse", "busy"):
            self._waiting.append(Settled(ticket, None, Cost(), Failure(f"the server said: {fate}", fate == "busy")))
            return
        if fate is not None:
            self._marked[ticket] = fate
        self._requests[ticket] = request
        self.backend.submit(ticket, request)

    def resume(self, ticket: Ticket, request: Request[Any]) -> None:
        self.backend.resume(ticket, request)  # type: ignore[attr-defined]

    def cancel(self, ticket: Ticket) -> None:
        if ticket in self._requests:
            self._cancels.append([self.faults.late, ticket])

    def step(self) -> Sequence[Item]:
        for entry in self._cancels:
            if entry[0] == 0 and entry[1] in self._requests:
                self.backend.cancel(entry[1])
            entry[0] -= 1
        self._cancels = [entry for entry in self._cancels if entry[0] >= 0]
        fresh = [self._spoil(item) for item in self.backend.step()]
        if not self.faults.shuffle:
            out, self._waiting = self._waiting + fresh, []
            return out
        out = [item for item in fresh if not isinstance(item, Settled)]
        self._waiting += [item for item in fresh if isinstance(item, Settled)]
        if self._waiting:
            self._rng.shuffle(self._waiting)
            n = self._rng.randint(0 if self._requests else 1, len(self._waiting))
            out, self._waiting = out + self._waiting[:n], self._waiting[n:]
        return out

    def _spoil(self, item: Item) -> Item:
        if not isinstance(item, Settled):
            return item
        request = self._requests.pop(item.ticket)
        fate = self._marked.pop(item.ticket, None)
        if fate is None or item.failure is not None:
            return item
        bound = item.ticket.bound
        match fate:
            case "timeout":
                return replace(item, reply=None, cost=bound, exact=False, failure=Failure("timed out", retry=True))
            case "silent":
                return replace(item, cost=bound, exact=False)
            case "over":
                return replace(item, cost=bound + bound)
            case _:
                return replace(item, reply=spoiled(request, item.reply, keep=0.0 if fate == "empty" else 0.5))

    def attach(self, post: Callable[[Sequence[Item]], None]) -> None:
        self.backend.attach(post)

    def close(self) -> None:
        self.backend.close()


def spoiled(request: Any, reply: Any, *, keep: float) -> Any:
    """Return `reply` with only the first part of what it should have; what cannot be cut is returned as it is."""
    if isinstance(reply, Draft):
        text = reply.text[: int(len(reply.text) * keep)]
        return Draft(text, "length", request.prefix.extend(text))
    if isinstance(reply, Scored):
        return Scored(reply.value, reply.steps[: int(len(reply.steps) * keep)])
    return reply
