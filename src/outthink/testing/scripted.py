"""A backend that does what each request says: what it may cost, what it does cost, how long it takes, how it fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.backend import CAPABILITIES, Failure, Item, Settled, Ticket
from ..core.cost import Cost
from ..core.errors import Unsupported
from ..core.request import Call, Request

MODEL = "scripted"


def job(
    worst: int | Mapping[str, int] = 1, cost: int | Mapping[str, int] | None = None, *, steps: int = 1,
    reply: Any = None, fail: str | None = None, retry: bool = False, late: int = 0, model: str = MODEL, tag: Any = 0,
) -> Call:  # fmt: skip
    """Return a request with a script.

    worst, cost: output tokens, or {unit: count}; `cost` None: as much as `worst`. One call is added to both.
    steps: backend steps until it is served (0: at the next one). reply: what it answers, JSON.
    fail: the message of a failure instead; retry: whether another attempt may help.
    late: steps that pass between a cancel and its settlement. tag: makes equal jobs differ.
    """
    script = {
        "worst": _units(worst), "cost": _units(worst if cost is None else cost), "steps": steps, "reply": reply,
        "fail": fail, "retry": retry, "late": late, "tag": tag,
    }  # fmt: skip
    return Call("script", json.dumps(script, sort_keys=True), model)


def _units(amount: int | Mapping[str, int]) -> dict[str, int]:
    return {"calls": 1, **({"output": amount} if isinstance(amount, int) else amount)}


@dataclass(slots=True)
class _Job:
    script: Mapping[str, Any]
    request: Call
    age: int = 0
    cancelled: int | None = None


class Scripted:
    """Serves `job` requests and remembers what it served.

    slots: how many it takes at once. limit: steps after which it gives up on its driver (AssertionError: a test hangs
    otherwise). served: the sum of what it settled. log: what happened in order, ("submit" | "cancel" | "settle", path).
    """

    stepped = True

    def __init__(self, *, slots: int = 1024, limit: int = 100_000) -> None:
        self.slots, self.limit = slots, limit
        self.capabilities = CAPABILITIES
        self.live: dict[Ticket, _Job] = {}
        self.log: list[tuple[str, str]] = []
        self.costs: list[Cost] = []
        self.steps = 0

    @property
    def served(self) -> Cost:
        return Cost.sum(self.costs)

    def bound(self, ticket: Ticket, request: Request[Any]) -> Cost:
        if not isinstance(request, Call) or request.tool != "script":
            raise Unsupported(f"the scripted backend serves testing.scripted.job, not {request!r}")
        return Cost.of(request.model, **json.loads(request.arguments)["worst"])

    def room(self) -> int:
        return max(self.slots - len(self.live), 0)

    def submit(self, ticket: Ticket, request: Request[Any]) -> None:
        assert isinstance(request, Call)
        assert ticket not in self.live, f"{ticket.path} was submitted twice"
        assert self.room() > 0, f"{ticket.path} was submitted without room"
        self.live[ticket] = _Job(json.loads(request.arguments), request)
        self.log.append(("submit", ticket.path))

    def cancel(self, ticket: Ticket) -> None:
        if ticket in self.live and self.live[ticket].cancelled is None:
            self.live[ticket].cancelled = self.live[ticket].script["late"]
            self.log.append(("cancel", ticket.path))

    def step(self) -> Sequence[Item]:
        self.steps += 1
        assert self.steps < self.limit, f"{self.limit} steps with {len(self.live)} requests in flight"
        out: list[Item] = []
        for ticket, work in list(self.live.items()):
            script = work.script
            if work.cancelled is not None:
                if work.cancelled > 0:
                    work.cancelled -= 1
                    continue
                done, whole = min(work.age, script["steps"]), max(script["steps"], 1)
                part = {unit: n * done // whole for unit, n in script["cost"].items()} | {"calls": 1}
                item = Settled(ticket, None, Cost.of(work.request.model, **part), Failure("cancelled"))
            elif work.age < script["steps"]:
                work.age += 1
                continue
            else:
                failure = Failure(script["fail"], script["retry"]) if script["fail"] is not None else None
                item = Settled(
                    ticket, None if failure else script["reply"], Cost.of(work.request.model, **script["cost"]), failure
                )
            del self.live[ticket]
            self.costs.append(item.cost)
            self.log.append(("settle", ticket.path))
            out.append(item)
        return out

    def attach(self, post: Callable[[Sequence[Item]], None]) -> None:
        """Nothing to keep: everything is reported by `step`."""

    def close(self) -> None:
        self.live.clear()
