"""A Python function as a reward model: `judge(prompt, text) -> number between 0 and 1`, free of charge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core.backend import Failure, Item, Settled, Ticket
from ..core.cost import Cost
from ..core.errors import InvalidInput, Unsupported
from ..core.request import Request, Score, Scored

Judge = Callable[[str, str], float]


class Function:
    """Serves `Score` by calling `judge` with the prompt and what was written below it.

    With a step delimiter every step is judged, each with all before it. It costs one call and one score, no tokens.
    A judge that raises, or returns something else than a number in [0, 1], fails the request for good.
    """

    stepped = True
    capabilities = frozenset({"score"})

    def __init__(self, judge: Judge, *, name: str = "function") -> None:
        self.judge, self.name = judge, name
        self.waiting: dict[Ticket, Score] = {}
        self.ended: list[Item] = []

    def bound(self, ticket: Ticket, request: Request[Any]) -> Cost:
        if not isinstance(request, Score) or request.of != "reward":
            raise Unsupported(f"model {self.name!r} is a Python function: it gives rewards (Score), nothing else")
        return Cost.of(self.name, calls=1, scores=1)

    def room(self) -> int:
        return 1 << 20

    def submit(self, ticket: Ticket, request: Request[Any]) -> None:
        if not isinstance(request, Score):
            raise TypeError(f"a function scores; it was asked for {type(request).__name__}")
        self.waiting[ticket] = request

    def cancel(self, ticket: Ticket) -> None:
        if self.waiting.pop(ticket, None) is not None:
            self.ended.append(Settled(ticket, None, Cost(), Failure("cancelled")))

    def step(self) -> Sequence[Item]:
        out, self.ended = self.ended, []
        waiting, self.waiting = self.waiting, {}
        for ticket, request in waiting.items():
            try:
                reply = self._score(request)
            except Exception as error:
                failure = Failure(f"the verifier {self.name!r} raised {type(error).__name__}: {error}")
                out.append(Settled(ticket, None, Cost.of(self.name, calls=1), failure))
            else:
                out.append(Settled(ticket, reply, Cost.of(self.name, calls=1, scores=1)))
        return out

    def attach(self, post: Callable[[Sequence[Item]], None]) -> None:
        """Nothing to keep: everything is reported by `step`."""

    def close(self) -> None:
        self.waiting.clear()
        self.ended.clear()

    def _score(self, request: Score) -> Scored:
        prompt, text = request.prefix.chain()[0].piece, request.prefix.written
        if not request.step:
            return Scored(self._value(prompt, text))
        pieces = text.split(request.step)
        ends = [request.step.join(pieces[: i + 1]) + request.step for i in range(len(pieces) - 1)]
        ends += [text] if pieces[-1] else []
        steps = tuple(self._value(prompt, end) for end in ends)
        return Scored(steps[-1] if steps else self._value(prompt, text), steps)

    def _value(self, prompt: str, text: str) -> float:
        value = float(self.judge(prompt, text))
        if not 0 <= value <= 1:
            raise InvalidInput(f"{value} is no probability; return a number between 0 and 1")
        return value
