"""Several engines with the same weights behind one backend, each at work in a thread of its own.

A request goes where most of its prefix is held.  One whose holders are busier than others goes to the least busy
engine, where its prefix is computed again, if that is less work than what the holders are behind by.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..core.backend import Item, Settled, Ticket
from ..core.cost import Cost
from ..core.errors import InvalidInput
from ..core.refs import Prefix, Ref
from ..core.request import Draft, Request, Sample, Score
from .engine import EngineBackend
from .threaded import Threaded

_NEAR = 16  # requests; a step takes hardly longer for so many more, so nobody is sent away for less


@dataclass(slots=True)
class _Flight:
    """Where a ticket is, and the tokens it may still take there."""

    place: int
    work: int


@dataclass(slots=True)
class _Owner:
    """The tickets in flight of a run, and the most bytes that it needed in each engine."""

    live: int = 0
    kv: dict[int, int] = field(default_factory=dict)


class Replicas:
    """A backend over `count` engines: the one given and twins of it, with `threads` torch threads each.

    Weights are held once, for all.  Rows and memory for keys and values are each engine's own, so the whole has `count`
    times as many.  In deterministic mode a text does not depend on the engine; otherwise rounding may tell engines
    apart, as it may tell batches apart.  `Settled.kv` is the sum of the engines' peaks, which may be at other moments.

    Args:
      threads: None: the threads that torch has for the calling thread, shared out; at least one each.
    """

    stepped = False

    def __init__(self, backend: EngineBackend, *, count: int, threads: int | None = None) -> None:
        if count < 1 or (threads is not None and threads < 1):
            raise InvalidInput(f"{count} replicas with {threads} threads; give one or more of both")
        each = threads if threads is not None else max(1, torch.get_num_threads() // count)
        twins = [backend.engine.twin() for _ in range(count - 1)]
        self.backends = [backend, *(EngineBackend(twin, name=f"{backend.name}:{i}") for i, twin in enumerate(twins, 1))]
        self.name, self.card, self.capabilities = backend.name, backend.card, backend.capabilities
        self._threads = [Threaded(one, begin=partial(torch.set_num_threads, each)) for one in self.backends]
        self._lock = threading.Lock()
        self._flights: dict[Ticket, _Flight] = {}
        self._requests, self._work = [0] * count, [0] * count
        self._held: WeakKeyDictionary[Prefix, frozenset[int]] = WeakKeyDictionary()
        self._owners: dict[Hashable, _Owner] = {}

    def bound(self, ticket: Ticket, request: Request[Any]) -> Cost:
        return self.backends[0].bound(ticket, request)

    def room(self) -> int:
        return sum(thread.room() for thread in self._threads)

    def submit(self, ticket: Ticket, request: Request[Any]) -> None:
        assert isinstance(request, Sample | Score)  # `bound` refused all else
        with self._lock:
            place, missing = self._choose(request.prefix)
            self._hold(request.prefix, place)
            flight = self._flights[ticket] = _Flight(place, missing + ticket.bound.total("output"))
            self._requests[place] += 1
            self._work[place] += flight.work
            self._owners.setdefault(ticket.run, _Owner()).live += 1
        self._threads[place].submit(ticket, request)

    def resume(self, ticket: Ticket, request: Request[Any]) -> None:
        self._threads[self._flights[ticket].place].resume(ticket, request)

    def cancel(self, ticket: Ticket) -> None:
        flight = self._flights.get(ticket)
        if flight is not None:  # else it has just settled
            self._threads[flight.place].cancel(ticket)

    def step(self) -> Sequence[Item]:
        return ()

    def attach(self, post: Callable[[Sequence[Item]], None]) -> None:
        for place, thread in enumerate(self._threads):
            thread.attach(partial(self._report, post, place))

    def close(self) -> None:
        """End the threads after their current steps. What is in flight is not reported."""
        for thread in self._threads:
            thread.close()

    def hidden(self, ref: Ref) -> Tensor:
        """Return the hidden states that `ref` names; see `EngineBackend.hidden`."""
        for backend in self.backends:
            if backend.name == ref.backend:
                return backend.hidden(ref)
        raise InvalidInput(f"{ref} is not of {self.name!r}; ask the backend that wrote the draft")

    def _choose(self, prefix: Prefix) -> tuple[int, int]:
        """Return who gets a request, and how many tokens of `prefix` are missing there; ties: the first."""
        length = self.backends[0].engine.links.of
        places, have = frozenset[int](), 0
        for node in prefix.ancestors():
            known = self._held.get(node)
            if known is not None:
                places, have = known, length(node).end
                break
        whole = length(prefix).end
        open_ = [i for i, thread in enumerate(self._threads) if thread.room() > 0] or list(range(len(self._threads)))
        least = min(open_, key=lambda i: (self._work[i], i))
        home = min(places & set(open_), key=lambda i: (self._work[i], i), default=None)
        if home is None:
            return least, whole
        behind = self._work[home] - self._work[least]
        if self._requests[home] - self._requests[least] > _NEAR and behind > have:
            return least, whole
        return home, whole - have

    def _hold(self, prefix: Prefix, place: int) -> None:
        """Note that `place` holds `prefix`, and its ancestors with it."""
        for node in prefix.ancestors():
            places = self._held.get(node, frozenset())
            if place in places:
                return
            self._held[node] = places | {place}

    def _report(self, post: Callable[[Sequence[Item]], None], place: int, items: Sequence[Item]) -> None:
        """Note where what was written is held, then pass on what happened."""
        with self._lock:
            told = [self._settled(item, place) if isinstance(item, Settled) else item for item in items]
        post(told)

    def _settled(self, item: Settled, place: int) -> Settled:
        flight = self._flights.pop(item.ticket)
        self._requests[place] -= 1
        self._work[place] -= flight.work
        if isinstance(item.reply, Draft):
            self._hold(item.reply.prefix, place)
        owner = self._owners[item.ticket.run]
        owner.live -= 1
        owner.kv[place] = max(item.kv, owner.kv.get(place, 0))
        if not owner.live:
            del self._owners[item.ticket.run]
        return replace(item, kv=sum(owner.kv.values()))
