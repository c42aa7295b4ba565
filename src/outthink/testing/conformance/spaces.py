"""Laws for spaces."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...core.backend import Backend
from ...core.budget import Budget, Card, Limit
from ...core.run import Run
from ...core.runtime import Runtime
from ...core.verdict import Space


@dataclass(frozen=True)
class SpaceCase:
    """A space under test.

    make: builds one. backends: builds fresh backends by model name. steps: after so many expansions every path from
    the root must be done. deterministic: whether the same seed gives the same children (backends with `seed`).
    """

    make: Callable[[], Space[Any]]
    backends: Callable[[], Mapping[str, Backend]]
    steps: int = 64
    cards: Mapping[str, Card] = field(default_factory=dict)
    deterministic: bool = True

    def run(self, coro: Coroutine[Any, Any, Any], budget: Budget | None = None) -> Run:
        return Runtime(self.backends(), cards=self.cards).run(coro, budget=budget, answer=lambda state: None)

    def ask(self, coro: Coroutine[Any, Any, Any]) -> Any:
        run = self.run(coro)
        assert run.stopped != "budget"
        return run.state


def roots_are_values(case: SpaceCase) -> None:
    """A root is hashable and equal for equal seeds; it is not done, or it has an answer."""
    space = case.make()
    one, two = case.ask(space.root(1)), case.ask(space.root(1))
    assert one == two and hash(one) == hash(two)
    assert not space.is_done(one) or space.answer(one) is not None


def expand_gives_at_most_n(case: SpaceCase) -> None:
    """At most `n` children (forking spaces: exactly that many when nothing limits them); of n=0 none, unpaid."""
    space = case.make()
    root = case.ask(space.root(0))
    run = case.run(space.expand(root, 0, 7))
    assert list(run.state or []) == [] and not run.cost
    for n in (1, 2, 5) if space.forks else (1,):
        children = case.ask(space.expand(root, n, 7))
        assert len(children) <= n
        assert len(children) == n, f"{len(children)} of {n} children with no budget"


def children_are_new_values(case: SpaceCase) -> None:
    """Children are hashable, differ from their parent, and leave it as it was."""
    space = case.make()
    root = case.ask(space.root(0))
    before, text = hash(root), repr(root)
    for child in case.ask(space.expand(root, 3 if space.forks else 1, 3)):
        hash(child)
        assert child != root
    assert hash(root) == before and repr(root) == text


def seeds_decide(case: SpaceCase) -> None:
    """The same seed gives the same children; the first of four are those of a smaller n."""
    space = case.make()
    root = case.ask(space.root(0))
    if not case.deterministic:
        return
    n = 4 if space.forks else 1
    one, two = case.ask(space.expand(root, n, 11)), case.ask(space.expand(root, n, 11))
    assert list(one) == list(two)
    assert list(case.ask(space.expand(root, max(n // 2, 1), 11))) == list(one)[: max(n // 2, 1)]


def answers_are_canonical(case: SpaceCase) -> None:
    """`answer` is pure and a text or None; paths end, and are then done."""
    space = case.make()
    for seed in range(3):
        state = case.ask(space.root(seed))
        for step in range(case.steps + 1):
            answer = space.answer(state)
            assert answer is None or (isinstance(answer, str) and answer == answer.strip() and answer)
            assert space.answer(state) == answer and space.is_done(state) == space.is_done(state)
            if space.is_done(state):
                break
            assert step < case.steps, f"not done after {case.steps} steps: {state!r}"
            children = case.ask(space.expand(state, 1, seed + step))
            assert children, f"no child of {state!r}, which is not done"
            state = children[0]


def a_short_budget_gives_what_fits(case: SpaceCase) -> None:
    """Where the budget pays for some children, they come; the rest is refused, not raised."""
    space = case.make()
    root = case.ask(space.root(0))
    if not space.forks:
        return
    one = case.run(space.expand(root, 1, 5)).cost.total("calls")
    run = case.run(space.expand(root, 4, 5), Budget((Limit("calls", 2 * one),)))
    assert run.cost.total("calls") <= 2 * one
    assert run.stopped != "budget" and 1 <= len(run.state) <= 2


SPACE_LAWS = (
    roots_are_values, expand_gives_at_most_n, children_are_new_values, seeds_decide, answers_are_canonical,
    a_short_budget_gives_what_fits,
)  # fmt: skip
