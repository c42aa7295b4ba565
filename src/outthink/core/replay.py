"""A run repeated from its trace, with no model: replies, refusals, clips, deadlines and order are those recorded."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from .backend import CAPABILITIES, Failure, Item, Paused, Settled
from .budget import Budget, Card
from .cost import Cost
from .errors import InvalidInput, ReplayMismatch
from .jsonl import digest
from .request import Request
from .run import Run
from .runtime import Runtime
from .trace import Decision, Served, Trace


class Replay:
    """A backend that answers from a trace. Identity is the path; the digest of the request is checked.

    Time is the tick of the recorded run, so another attempt comes at the tick at which it came then.
    """

    stepped = True

    def __init__(self, trace: Trace) -> None:
        if trace.level != "full":
            raise InvalidInput(f"a trace of level {trace.level!r} has no replies; replay needs one of level 'full'")
        self.capabilities = CAPABILITIES - {"prefix"}  # bounds are those recorded, whatever was held
        self.now = 0.0
        self._events = [e for e in trace.events if isinstance(e, Served) or e.kind in ("cancel", "deadline", "pause")]
        self._root = next((e.path for e in trace.decisions("end")), "")
        self._bounds: dict[str, Cost] = {}
        self._clips: dict[str, dict[int, Cost]] = {}
        self._again: dict[tuple[str, int], int] = {}
        self._asked: dict[str, set[str]] = {}
        self._slices: dict[tuple[str, int], Cost] = {}
        for event in trace.events:
            if isinstance(event, Served):
                self._bounds.setdefault(event.path, event.bound)
                self._asked.setdefault(event.path, set()).add(digest(event.request))
            elif event.kind == "slice":
                if "whole" in event.facts:
                    self._bounds.setdefault(event.path, event.facts["whole"])
                for bound in (event.facts["bound"], event.facts.get("first", event.facts["bound"])):
                    self._slices[event.path, bound.total("output")] = bound
            elif isinstance(event.facts.get("bound"), Cost) and event.kind != "clip":
                self._bounds.setdefault(event.path, event.facts["bound"])
            elif event.kind == "clip":
                self._clips.setdefault(event.path, {})[event.facts["max_tokens"]] = event.facts["bound"]
                self._bounds.setdefault(event.path, event.facts["whole"])
            elif event.kind == "retry":
                self._again[event.path, event.facts["attempt"]] = event.tick
        self._live: dict[str, Any] = {}
        self._at, self._put_off = 0, -1

    def bound(self, ticket: Any, request: Request[Any]) -> Cost:
        path = ticket.path
        tokens = getattr(request, "max_tokens", None) or 0
        clips = self._clips.get(path, {})
        known = self._slices.get((path, tokens)) or clips.get(tokens)
        if known is not None:
            return known
        if clips and ticket.bound:  # it is being cut: what it was cut to then is the most that fits
            now: int | None = ticket.request.max_tokens
            cut = max((c for c in clips if now is None or c < now), default=0)
            return clips[cut] if 0 < tokens <= cut else self._bounds[path]
        if path not in self._bounds:
            raise ReplayMismatch(f"{path} asks for {request!r}; the recorded run never got to that")
        return self._bounds[path]

    def room(self) -> int:
        return 1 << 30

    def submit(self, ticket: Any, request: Request[Any]) -> None:
        asked, clips = self._asked.get(ticket.path, ()), self._clips.get(ticket.path, ())
        cuts = (digest(replace(request, max_tokens=c)) for c in clips)  # type: ignore[type-var]
        if digest(request) not in asked and not any(cut in asked for cut in cuts):  # it was cut while it was paused
            raise ReplayMismatch(f"{ticket.path} asks for {request!r}, which is not what the recorded run asked there")
        self._live[ticket.path] = ticket

    def resume(self, ticket: Any, request: Request[Any]) -> None:
        pass

    def cancel(self, ticket: Any) -> None:
        pass

    def halt(self) -> str | None:
        """Return why the recorded run was stopped from outside at this point, None if it was not."""
        event = self._next()
        if isinstance(event, Decision) and event.kind != "pause":
            later = (e for e in self._events[self._at :] if isinstance(e, Served))
            if self._put_off != self._at and any(e.path not in self._live for e in later):
                self._put_off = self._at  # what was in flight then has not been asked for yet: one more turn
                return None
            self._at += 1
            return "deadline" if event.kind == "deadline" else "cancelled"
        return None

    def _next(self) -> Served | Decision | None:
        while self._at < len(self._events):
            event = self._events[self._at]
            if isinstance(event, Served) or event.kind == "pause" or event.path == self._root:
                return event
            self._at += 1  # a request that was cancelled in a queue: the program does that itself
        return None

    def step(self) -> Sequence[Item]:
        items: list[Item] = []
        event = self._next()
        if event is not None and not _halts(event):
            self.now = float(event.tick)
        while event is not None and not _halts(event) and event.tick == self.now:
            ticket = self._live.get(event.path)
            if ticket is None:
                raise ReplayMismatch(f"the recorded run had {event.path} in flight at tick {event.tick}, this one not")
            self._at += 1
            if isinstance(event, Decision):
                items.append(Paused(ticket))
                event = self._next()
                continue
            del self._live[event.path]
            failure = None
            if event.message:
                due = self._again.get((event.path, event.attempt + 1), event.tick)
                failure = Failure(event.message, retry=event.retry, after=due - event.tick)
            items.append(Settled(ticket, event.reply, event.cost, failure, event.exact))
            event = self._next()
        return items

    def attach(self, post: Callable[[Sequence[Item]], None]) -> None:
        pass

    def close(self) -> None:
        pass


def _halts(event: Served | Decision) -> bool:
    return isinstance(event, Decision) and event.kind != "pause"


def replay(
    trace: Trace, coro: Coroutine[Any, Any, Any], *, answer: Callable[[Any], str | None] | None = None,
    cards: dict[str, Card] | None = None,
) -> Run:  # fmt: skip
    """Run `coro`, the same program with the same knobs and seed, against a recorded trace; return the Run.

    Same answer, cost, refusals and trace as the recorded run. `cards`: as then, if the budget limits dollars or FLOPs.
    Raises ReplayMismatch at the first request that differs, naming its place.
    """
    backend = Replay(trace)
    models = {m for e in trace.served() for m in e.bound.counts} | {
        getattr(e.request, "model", "") for e in trace.served()
    }
    models |= {m for e in trace.decisions() if isinstance(e.facts.get("bound"), Cost) for m in e.facts["bound"].counts}
    models |= {e.facts["model"] for e in trace.decisions("refuse") if e.facts["model"] is not None}
    header = trace.header
    runtime = Runtime(
        {model: backend for model in models} or {"replay": backend}, cards=cards, window=header["window"],
        retries=header["retries"], slices=header.get("slices"), clock=lambda: backend.now, sleep=lambda _: None,
    )  # fmt: skip
    budget = replace(Budget.parse(header["budget"]) if header["budget"] != str(Budget()) else Budget(), seconds=None)
    run = runtime.start(coro, budget=budget, name=header["name"], answer=answer, header=header)
    while not run.done:
        why = backend.halt()
        if why is not None:
            runtime.loop.halt(run, why)
        runtime.step()
    if isinstance(run.error, ReplayMismatch):
        raise run.error
    return run
