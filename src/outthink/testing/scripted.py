"""A backend that does what each request says: what it may cost, what it does cost, how long it takes, how it fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.backend import CAPABILITIES, Failure, Item, Paused, Progress, Settled, Ticket
from ..core.cost import Cost
from ..core.errors import Unsupported
from ..core.refs import Prefix
from ..core.request import Call, Draft, Request, Sample

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


def writing(
    worst: int, length: int, *, at_least: int | None = 1, prompt: int = 0, pace: int = 1, fail: str | None = None,
    retry: bool = False, late: int = 0, model: str = MODEL, tag: Any = 0,
) -> Sample:  # fmt: skip
    """Return a sample with a script: it may be cut, down to `at_least`, and paused.

    It writes `length` tokens of output, of at most `worst`, `pace` a step, after a prompt of `prompt` tokens that its
    run pays for once. The rest is as for `job`.
    """
    script = {"length": length, "prompt": prompt, "pace": pace, "fail": fail, "retry": retry, "late": late, "tag": tag}
    return Sample(Prefix(json.dumps(script, sort_keys=True)), model, 0, max_tokens=worst, at_least=at_least)


def _units(amount: int | Mapping[str, int]) -> dict[str, int]:
    return {"calls": 1, **({"output": amount} if isinstance(amount, int) else amount)}


@dataclass(slots=True)
class _Job:
    script: Mapping[str, Any]
    request: Call | Sample
    ticket: Ticket
    age: int = 0
    cancelled: int | None = None
    paused: bool = False

    def most(self) -> int:
        """Return how much of its text a sample may write."""
        assert isinstance(self.request, Sample) and self.request.max_tokens is not None
        return min(self.script["length"], self.request.max_tokens)

    def works(self) -> bool:
        """Take a step; return whether there are more to come. The age of a sample is what it has written."""
        if isinstance(self.request, Sample):
            self.age += min(self.script["pace"], self.most() - self.age, self.ticket.bound.total("output") - self.age)
            return self.age < self.most()
        self.age += 1
        return self.age <= self.script["steps"]

    def end(self) -> Settled:
        script, request, failure = self.script, self.request, None
        if self.cancelled is not None:
            failure = Failure("cancelled")
        elif script["fail"] is not None:
            failure = Failure(script["fail"], script["retry"])
        if isinstance(request, Sample):
            prompt, text = self.ticket.bound.total("prompt"), "x" * self.age
            cost = Cost.of(request.model, calls=1, prompt=prompt, output=self.age)
            finish: Any = "end" if self.age == script["length"] else "length"
            return Settled(
                self.ticket, None if failure else Draft(text, finish, request.prefix.extend(text)), cost, failure
            )
        units = script["cost"]
        if self.cancelled is not None:
            done, whole = min(self.age, script["steps"]), max(script["steps"], 1)
            units = {unit: n * done // whole for unit, n in units.items()} | {"calls": 1}
        return Settled(self.ticket, None if failure else script["reply"], Cost.of(request.model, **units), failure)


class Scripted:
    """Serves `job` and `writing` requests and remembers what it served.

    slots: how many it takes at once. limit: steps after which it gives up on its driver (AssertionError: a test hangs
    otherwise). served: the sum of what it settled. log: what happened in order, (what, path); `what` is "submit",
    "pause", "resume", "cancel" or "settle".
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
        if isinstance(request, Sample):
            prompt = 0 if request.prefix.digest in ticket.held else json.loads(request.prefix.piece)["prompt"]
            return Cost.of(request.model, calls=1, prompt=prompt, output=request.max_tokens or 0)
        if not isinstance(request, Call) or request.tool != "script":
            raise Unsupported(f"the scripted backend serves testing.scripted.job, not {request!r}")
        return Cost.of(request.model, **json.loads(request.arguments)["worst"])

    def room(self) -> int:
        return max(self.slots - sum(not work.paused for work in self.live.values()), 0)

    def submit(self, ticket: Ticket, request: Request[Any]) -> None:
        assert isinstance(request, Call | Sample)
        assert ticket not in self.live, f"{ticket.path} was submitted twice"
        assert self.room() > 0, f"{ticket.path} was submitted without room"
        script = request.prefix.piece if isinstance(request, Sample) else request.arguments
        self.live[ticket] = _Job(json.loads(script), request, ticket)
        self.log.append(("submit", ticket.path))

    def resume(self, ticket: Ticket, request: Request[Any]) -> None:
        work = self.live[ticket]
        assert work.paused and work.cancelled is None, f"{ticket.path} was resumed and is not paused"
        assert self.room() > 0, f"{ticket.path} was resumed without room"
        assert isinstance(request, Sample)
        work.paused, work.request = False, request
        self.log.append(("resume", ticket.path))

    def cancel(self, ticket: Ticket) -> None:
        if ticket in self.live and self.live[ticket].cancelled is None:
            self.live[ticket].cancelled = self.live[ticket].script["late"]
            self.log.append(("cancel", ticket.path))

    def step(self) -> Sequence[Item]:
        self.steps += 1
        assert self.steps < self.limit, f"{self.limit} steps with {len(self.live)} requests in flight"
        out: list[Item] = []
        for ticket, work in list(self.live.items()):
            before = work.age
            if work.cancelled is not None:
                if work.cancelled > 0:
                    work.cancelled -= 1
                    continue
            elif work.paused:
                continue
            elif work.works():
                if isinstance(work.request, Sample):
                    if ticket.watched and work.age > before:
                        out.append(Progress(ticket, "x" * (work.age - before)))
                    if work.age == ticket.bound.total("output"):
                        work.paused = True
                        self.log.append(("pause", ticket.path))
                        out.append(Paused(ticket))
                continue
            item = work.end()
            del self.live[ticket]
            self.costs.append(item.cost)
            self.log.append(("settle", ticket.path))
            if work.cancelled is None and ticket.watched and isinstance(work.request, Sample):
                out.append(Progress(ticket, "x" * (work.age - before)))
            out.append(item)
        return out

    def attach(self, post: Callable[[Sequence[Item]], None]) -> None:
        """Nothing to keep: everything is reported by `step`."""

    def close(self) -> None:
        self.live.clear()
