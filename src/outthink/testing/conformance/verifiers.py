"""Laws for verifiers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, isnan
from typing import Any, get_args, get_type_hints

from ...core.backend import Backend
from ...core.budget import Budget, Card, Limit
from ...core.errors import OutOfBudget
from ...core.run import Run
from ...core.runtime import Runtime
from ...core.verdict import Verdict, Verifier
from ..faulty import Faults, Faulty

STATUSES = frozenset(get_args(get_type_hints(Verdict)["status"]))


@dataclass(frozen=True)
class VerifierCase:
    """A verifier under test.

    make: builds one. states: at least three different ones, an unfinished or empty one among them.
    backends: builds fresh backends by model name. pointwise: whether a verdict depends on its own state only (a vote's
    does not)."""

    make: Callable[[], Verifier[Any]]
    states: Sequence[Any]
    backends: Callable[[], Mapping[str, Backend]] = dict
    cards: Mapping[str, Card] = field(default_factory=dict)
    pointwise: bool = True

    def judge(self, states: Sequence[Any], *, seed: int = 0, budget: Budget | None = None) -> Run:
        return self._run(self.backends(), states, seed, budget)

    def verdicts(self, states: Sequence[Any], *, seed: int = 0) -> list[Verdict]:
        run = self.judge(states, seed=seed)
        assert run.error is None and run.stopped != "budget"
        return list(run.state)

    def _run(self, backends: Mapping[str, Backend], states: Sequence[Any], seed: int, budget: Budget | None) -> Run:
        verifier = self.make()

        async def method() -> Any:
            return tuple(await verifier(states, seed=seed))

        runtime = Runtime(backends, cards=self.cards)
        run = runtime.start(method(), budget=budget, answer=lambda state: "judged")
        runtime.drive()
        return run


def one_verdict_per_state(case: VerifierCase) -> None:
    """As many verdicts as states, duplicates included, each a Verdict with a known status."""
    states = [*case.states, case.states[0]]
    verdicts = case.verdicts(states)
    assert len(verdicts) == len(states)
    assert all(isinstance(v, Verdict) and v.status in STATUSES for v in verdicts), verdicts


def of_nothing_nothing(case: VerifierCase) -> None:
    """No states: no verdicts, and nothing is spent."""
    run = case.judge([])
    assert list(run.state) == [] and not run.cost


def values_are_in_range(case: VerifierCase) -> None:
    """What is "ok" has a finite value, in [0, 1] for probabilities; NaN is never a score."""
    scale = case.make().scale
    assert scale in ("probability", "real")
    for state, verdict in zip(case.states, case.verdicts(case.states), strict=True):
        if verdict.status == "ok":
            assert isfinite(float(verdict)), f"{verdict} for {state!r}"
            assert scale == "real" or 0 <= float(verdict) <= 1, f"{verdict} for {state!r} is no probability"
        else:
            assert isnan(float(verdict)) or isfinite(float(verdict))


def the_order_of_states_is_kept(case: VerifierCase) -> None:
    """A pointwise verifier says of each state what it says of it alone, in whatever order they come."""
    if not case.pointwise:
        return
    forward, backward = case.verdicts(case.states), case.verdicts(list(reversed(case.states)))
    assert [_key(v) for v in forward] == [_key(v) for v in reversed(backward)]
    assert [_key(case.verdicts([state])[0]) for state in case.states] == [_key(v) for v in forward]


def same_seed_same_verdicts(case: VerifierCase) -> None:
    """Two calls with one seed agree."""
    one, two = case.verdicts(case.states, seed=5), case.verdicts(case.states, seed=5)
    assert [_key(v) for v in one] == [_key(v) for v in two]


def _key(verdict: Verdict) -> tuple[str, str]:
    return f"{verdict.value:.9g}", verdict.status


def states_are_left_alone(case: VerifierCase) -> None:
    """Judging changes neither the list nor the states."""
    states = list(case.states)
    before = [repr(state) for state in states]
    case.verdicts(states)
    assert [repr(state) for state in states] == before


def a_short_budget_is_an_outcome(case: VerifierCase) -> None:
    """With less than the full price it keeps to the budget: it raises OutOfBudget or says which it did not judge."""
    whole = case.judge(case.states).cost.total("calls")
    for cap in range(whole):
        run = case.judge(case.states, budget=Budget((Limit("calls", cap),)))
        assert run.cost.total("calls") <= cap
        assert run.error is None or isinstance(run.error, OutOfBudget), repr(run.error)
        if run.stopped == "finished":
            assert len(run.state) == len(case.states)
            assert any(v.status == "error" for v in run.state), "it judged all for less than the price of all"


def judging_keeps_nothing(case: VerifierCase) -> None:
    """A verifier that is itself a search starts it as work: what it keeps must not pass for the answer of a method."""
    run = case.judge(case.states)
    assert not run.history, "the verifier called `keep` in the coroutine of the method; start its search by `gather`"


def failures_are_no_scores(case: VerifierCase) -> None:
    """A backend that fails or answers nothing leads to an error or to statuses, never to a score out of nothing."""
    if not case.judge(case.states).cost:
        return
    broken = {model: Faulty(backend, Faults(refuse=1.0)) for model, backend in case.backends().items()}
    run = case._run(broken, case.states, 0, None)
    if run.error is None:
        assert all(v.status != "ok" for v in run.state), run.state


VERIFIER_LAWS = (
    one_verdict_per_state, of_nothing_nothing, values_are_in_range, the_order_of_states_is_kept,
    same_seed_same_verdicts, states_are_left_alone, a_short_budget_is_an_outcome, judging_keeps_nothing,
    failures_are_no_scores,
)  # fmt: skip
