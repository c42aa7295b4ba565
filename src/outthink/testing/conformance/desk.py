"""A counter in front of one backend: hands requests over as the runtime would, and keeps what comes back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from queue import Empty, Queue
from time import monotonic
from typing import Any

from ...core.backend import Backend, Item, Paused, Progress, Settled
from ...core.cost import Cost
from ...core.request import Request


def _of(request: Any, tokens: int) -> Any:
    return replace(request, max_tokens=tokens)


class Slip:
    """A ticket without a runtime; all of a desk are of one run, which is watched."""

    __slots__ = ("bound", "held", "path", "request", "run", "watched")

    def __init__(self, request: Request[Any], path: str, held: set[bytes]) -> None:
        self.request, self.path = request, path
        self.held: Collection[bytes] = held  # the desk's own set: what comes to be held is seen here
        self.bound, self.run, self.watched = Cost(), None, True


class Desk:
    """Drives `backend` by its port alone.

    patience: seconds without a report after which a backend that works elsewhere is given up.
    settled: the ends by ticket; a second end of the same ticket is an AssertionError at once. paused: those that have
    written what they were paid for; whoever makes slices resumes them.
    """

    def __init__(self, backend: Backend, *, patience: float = 30.0, steps: int = 100_000) -> None:
        self.backend, self.patience, self.steps = backend, patience, steps
        self.held: set[bytes] = set()
        self.settled: dict[Slip, Settled] = {}
        self.streamed: dict[Slip, str] = {}
        self.paused: dict[Slip, None] = {}
        self.flying: dict[Slip, None] = {}
        self.inbox: Queue[Sequence[Item]] = Queue()
        backend.attach(self.inbox.put)

    def offer(self, request: Request[Any], *, paid: int | None = None) -> Slip:
        """Price and submit one request, waiting for room. paid: pay for that many tokens of output only."""
        slip = Slip(request, f"desk/{len(self.settled) + len(self.flying)}", self.held)
        slip.bound = self.backend.bound(slip, request if paid is None else _of(request, paid))
        while self.backend.room() <= 0:
            assert self.flying, "no room although nothing is in flight"
            self.turn()
        self.flying[slip] = None
        prefix = getattr(request, "prefix", None)
        if prefix is not None and "prefix" in self.backend.capabilities:
            self.held.add(prefix.digest)
        self.backend.submit(slip, request)
        return slip

    def turn(self) -> None:
        """Let the backend work for a moment and book what it reports."""
        if self.backend.stepped:
            self._book(self.backend.step())
            return
        try:
            self._book(self.inbox.get(timeout=self.patience))
        except Empty:
            raise AssertionError(f"no report for {self.patience} s with {len(self.flying)} tickets in flight") from None

    def _book(self, items: Iterable[Item]) -> None:
        for item in items:
            slip = item.ticket
            assert isinstance(slip, Slip) and (slip in self.flying or slip in self.settled), "an unknown ticket"
            assert slip not in self.settled, f"{slip.path} was reported again after its end"
            if isinstance(item, Progress):
                self.streamed[slip] = self.streamed.get(slip, "") + item.text
                continue
            assert slip not in self.paused, f"{slip.path} was at work while it was paused"
            if isinstance(item, Paused):
                self.paused[slip] = None
                continue
            del self.flying[slip]
            self.settled[slip] = item
            prefix = getattr(item.reply, "prefix", None)
            if prefix is not None and "prefix" in self.backend.capabilities:
                self.held.add(prefix.digest)

    def resume(self, slip: Slip, *, more: int, request: Request[Any] | None = None) -> None:
        """Pay for `more` tokens of a paused request and let it go on, as `request` if that is given."""
        paid = slip.bound.total("output")
        old, new = (self.backend.bound(slip, _of(slip.request, n)) for n in (paid, paid + more))
        slip.bound = Cost.sum((slip.bound, new, old * -1))
        del self.paused[slip]
        self.backend.resume(slip, request or slip.request)  # type: ignore[attr-defined]

    def finish(self) -> None:
        """Wait until every ticket has settled."""
        turns, begun = 0, monotonic()
        while self.flying:
            self.turn()
            turns += 1
            assert turns < self.steps, f"{turns} steps and still {len(self.flying)} tickets in flight"
            assert self.backend.stepped or monotonic() - begun < 10 * self.patience, "it never ends"

    def serve(self, requests: Iterable[Request[Any]]) -> list[Settled]:
        """Serve all; return their ends in the order given."""
        slips = [self.offer(request) for request in requests]
        self.finish()
        return [self.settled[slip] for slip in slips]
