"""What happened in a run: one event per attempt of a request, one per decision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from .cost import Cost
from .request import Request

SCHEMA = 1
Level = Literal["costs", "requests", "full"]


class Served(NamedTuple):
    """The end of an attempt. `tick` counts the batches of replies of this run; replies of one tick came together.

    status: "done", "failed" (see `message`; `retry` tells whether another attempt followed) or "cancelled".
    request and reply are None at trace level "costs", the reply is None at "requests".
    """

    tick: int
    path: str
    attempt: int
    request: Request[Any] | None
    reply: Any
    cost: Cost
    bound: Cost
    status: str
    exact: bool = True
    message: str = ""
    retry: bool = False


class Decision(NamedTuple):
    """What the runtime or the method decided, at no cost.

    kind: "refuse", "clip", "slice", "pause", "grant", "retry", "cancel", "deadline", "keep", "left", "bound", "note",
      "end".
    """

    tick: int
    path: str
    kind: str
    facts: Mapping[str, Any]


Event = Served | Decision
Sink = Callable[[Event], None]


@dataclass(slots=True)
class Trace:
    """The header of a run and its events, in order."""

    header: Mapping[str, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    level: Level = "full"

    def served(self) -> Iterator[Served]:
        """Yield the attempts."""
        return (event for event in self.events if isinstance(event, Served))

    def decisions(self, kind: str | None = None) -> Iterator[Decision]:
        """Yield the decisions, or those of one kind."""
        return (e for e in self.events if isinstance(e, Decision) and (kind is None or e.kind == kind))

    @property
    def cost(self) -> Cost:
        """The sum over the events: equal to the cost of the run."""
        return Cost.sum(event.cost for event in self.served())
