"""Random programs of verbs: what a method may do, as data that can be printed, shrunk and played."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..core.budget import Budget, Limit
from ..core.errors import BackendError, OutOfBudget
from ..core.verbs import bound, cancel, first, fitting, gather, keep, left, note, resume, start, wait, within
from .scripted import job, writing

KINDS = ("all", "fit", "first", "within", "race", "orphan", "share", "park")


class Broken(Exception):
    """What a program raises by mistake, on purpose."""


@dataclass(frozen=True)
class Node:
    """One coroutine: its `steps` in order. A step is (kind, children, option); see `Player.step`.

    patient: it goes on with its next step after one that a budget or a backend refused.
    """

    steps: tuple[tuple[str, tuple[Any, ...], Any], ...]
    patient: bool = False


@dataclass
class Player:
    """Plays programs and watches that no coroutine outlives its run.

    alive: coroutines that have begun and not ended. resumed: how often one of them went on. groups: those published
    by "share" steps, for "meet" steps that wait across the tree.
    """

    alive: int = 0
    resumed: int = 0
    groups: list[Any] = field(default_factory=list)

    async def play(self, node: Node) -> int:
        """Play `node`; return how many of its steps gave something."""
        self.alive += 1
        got = 0
        try:
            for kind, children, option in node.steps:
                try:
                    got += bool(await self.step(kind, children, option))
                except (OutOfBudget, BackendError):
                    if not node.patient:
                        raise
                finally:
                    self.resumed += 1
            return got
        finally:
            self.alive -= 1

    def works(self, children: tuple[Any, ...], *, lazy: bool = False) -> Any:
        def each() -> Iterator[Any]:
            for child in children:
                yield self.play(child) if isinstance(child, Node) else child

        return each() if lazy else list(each())

    async def step(self, kind: str, children: tuple[Any, ...], option: Any) -> Any:
        match kind:
            case "ask":
                return await children[0] is None
            case "all":
                return await gather(self.works(children, lazy=option))
            case "fit":
                return await fitting(self.works(children, lazy=True), each=option)
            case "first":
                return await first(self.works(children), count=option)
            case "within":
                return await within(option, self.works(children))
            case "race":
                group = await start(self.works(children))
                done = list(await wait(group, option))
                await cancel(group)
                return done
            case "orphan":
                return await start(self.works(children))
            case "park":
                each, resumed = option
                group = await start(self.works(children), each=each, parked=True)
                await wait(group, 0)
                if not resumed:
                    return None
                await resume(group)
                return await wait(group)
            case "share":
                group = await start(self.works(children))
                self.groups.append(group)
                return await wait(group)
            case "meet":
                return await wait(self.groups[option % len(self.groups)]) if self.groups else None
            case "keep":
                return await keep(option, option / 10 if option % 2 else None, complete=option % 3 > 0)
            case "look":
                await bound(children[0])
                return (await left()).amounts
            case "note":
                return await note(what=option)
            case "raise":
                raise Broken(option)
        raise AssertionError(kind)


def program(rng: random.Random, *, depth: int = 3, meets: bool = False, faults: bool = True) -> Node:
    """Return a random program at most `depth` coroutines deep; `meets`: with waits across the tree, some circular."""
    steps: list[tuple[str, tuple[Any, ...], Any]] = []
    for _ in range(rng.randint(1, 4)):
        roll = rng.random()
        if roll < 0.3 or depth <= 0:
            steps.append(("ask", (_job(rng, faults),), None))
        elif roll < 0.42:
            steps.append(
                (*rng.choice([("keep", ()), ("note", ()), ("look", (job(rng.randint(0, 9)),))]), rng.randint(0, 9))
            )
        elif roll < 0.43 and faults:
            steps.append(("raise", (), rng.randint(0, 9)))
        elif roll < 0.52 and meets:
            steps.append(("meet", (), rng.randint(0, 3)))
        else:
            kind = rng.choice(KINDS)
            children = tuple(
                program(rng, depth=depth - 1, meets=meets, faults=faults) if rng.random() < 0.5 else _job(rng, faults)
                for _ in range(rng.randint(0 if rng.random() < 0.1 else 1, 6))
            )
            steps.append((kind, children, _option(rng, kind, len(children))))
    return Node(tuple(steps), patient=rng.random() < 0.6)


def _job(rng: random.Random, faults: bool) -> Any:
    worst = rng.choice((0, 1, 1, 2, 3, 5, 8, 12))
    fail = "broken" if faults and rng.random() < 0.05 else None
    late = rng.choice((0, 0, 0, 1, 3))
    steps = rng.randint(0, 4)
    retry = fail is not None and rng.random() < 0.3
    if rng.random() < 0.4:
        worst = rng.choice((0, 1, 8, 12, 12))  # few kinds: slices are as long as what the others of a kind have needed
        least = rng.choice((None, 1, 1, max(worst // 2, 1)))
        prompt, pace = rng.choice((0, 0, 1, 3)), rng.randint(1, 4)
        return writing(
            worst, rng.randint(0, 14), at_least=least, prompt=prompt, pace=pace, late=late, fail=fail, retry=retry,
            tag=rng.randint(0, 9),
        )  # fmt: skip
    return job(worst, rng.randint(0, worst), steps=steps, late=late, fail=fail, retry=retry, tag=rng.randint(0, 9))


def _option(rng: random.Random, kind: str, n: int) -> Any:
    match kind:
        case "all":
            return rng.random() < 0.5
        case "fit":
            return small_budget(rng) if rng.random() < 0.6 else None
        case "first" | "race":
            return rng.randint(1, max(n, 1))
        case "park":
            return small_budget(rng), rng.random() < 0.7
        case "within":
            return small_budget(rng) if rng.random() < 0.5 else [small_budget(rng) for _ in range(n)]
    return None


def small_budget(rng: random.Random) -> Budget:
    """Return a budget that such programs can exhaust: of output, calls, both, or nothing."""
    size = rng.choice((1, 1, 4, 16))
    limits = [
        Limit("output", size * rng.choice((0, 5, 10, 15, 20, 30))),
        Limit("calls", size * rng.choice((0, 3, 5, 8, 12))),
    ]
    return Budget(tuple(limit for limit in limits if rng.random() < 0.7))
