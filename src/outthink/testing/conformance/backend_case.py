"""A backend under test, and what its laws look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ...core.backend import Backend, Settled
from ...core.cost import Cost
from ...core.errors import InvalidInput, Unsupported
from ...core.refs import Prefix
from ...core.request import Draft, Sample
from .desk import Desk, Slip

LUCK = frozenset({"cached", "recomputed", "device_ns", "kv_steps"})
"""Units that a bound need not promise."""


@dataclass(frozen=True)
class BackendCase:
    """A backend under test.

    make: builds a fresh one; it is closed after every law. model: the name that requests use.
    prompts: a few different ones. max_tokens, temperature, stop: settings with which it can write something.
    reward: the model name for `Score`, where it has one. patience: seconds to wait for one that works elsewhere.
    """

    make: Callable[[], Backend]
    model: str
    prompts: Sequence[str] = ("one\n", "two\n", "three\n")
    max_tokens: int = 12
    temperature: float = 1.0
    stop: str = "\n"
    reward: str | None = None
    patience: float = 30.0

    @contextmanager
    def desk(self) -> Iterator[Desk]:
        backend = self.make()
        try:
            yield Desk(backend, patience=self.patience)
        finally:
            backend.close()

    def sample(self, i: int = 0, **changes: Any) -> Sample:
        """Return request number `i`: prompts in turn, every one its own seed."""
        prompt = Prefix(self.prompts[i % len(self.prompts)])
        whole = Sample(prompt, self.model, i, max_tokens=self.max_tokens, temperature=self.temperature)
        return replace(whole, **changes)


def assert_bounded(desk: Desk) -> None:
    for slip, end in desk.settled.items():
        for model, units in end.cost.counts.items():
            promised = slip.bound.counts.get(model, {})
            for unit, n in units.items():
                assert n >= 0, f"{slip.path}: {n} {unit}"
                assert unit in LUCK or n <= promised.get(unit, 0), f"{slip.path}: {n} {unit}, bound {promised}"


def only(ends: Sequence[Settled]) -> Draft:
    (end,) = ends
    assert end.failure is None, end.failure
    assert isinstance(end.reply, Draft)
    assert end.cost != Cost()
    return end.reply


def assert_refused(desk: Desk, request: Any) -> None:
    try:
        desk.backend.bound(Slip(request, "desk/refused", desk.held), request)
    except (Unsupported, InvalidInput):
        return
    raise AssertionError(f"{request!r} was priced; capabilities: {sorted(desk.backend.capabilities)}")
