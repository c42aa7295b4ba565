"""Laws for methods (section "Laws" of the documentation): each takes a MethodCase and raises AssertionError."""

from __future__ import annotations

import gc
import io
import os
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import CoroutineType
from typing import Any

from ...core.budget import Budget, Limit
from ...core.cost import Cost
from ...core.jsonl import JsonlSink, parse
from ...core.replay import replay
from ...core.run import Run
from ...core.runtime import Runtime
from ...core.seeds import fold
from ...core.trace import Served
from ..faulty import Faults, Faulty
from ..golden import lines_of
from .play import MethodCase, Played, amount, play

SEEDS = (0, 1, 2)


def budgets(case: MethodCase, law: str) -> Iterator[tuple[int, Budget]]:
    """Yield (seed, budget) pairs: random conjunctions of limits below what the method takes when nothing limits it."""
    kinds = ["tokens", "output", "calls"] + (["dollars", "flops"] if case.cards else [])
    whole = {seed: _whole(case, seed) for seed in SEEDS}
    rng = random.Random(fold(0, law))
    for _ in range(case.examples):
        seed = rng.choice(SEEDS)
        chosen = rng.sample(kinds, rng.choice((1, 1, 2, 3)))
        cost = whole[seed].cost
        limits = tuple(Limit(kind, rng.randint(0, amount(kind, cost, case.cards) + 1)) for kind in chosen)
        depth = rng.randint(0, whole[seed].depth + 1) if rng.random() < 0.2 else None
        yield seed, Budget(limits, depth=depth)


_runs: dict[tuple[int, int], tuple[MethodCase, Run]] = {}


def _whole(case: MethodCase, seed: int) -> Run:
    """Return the run without a budget, played once for each case."""
    if (id(case), seed) not in _runs:
        _runs[id(case), seed] = case, play(case, seed).run  # the case too: its id stays its own
    return _runs[id(case), seed][1]


def assert_clean(played: Played) -> None:
    """Nothing is in flight, reserved or left over."""
    run = played.run
    assert run.done and run.stopped is not None
    assert all(not each.flying for each in played.watched), "a ticket was never settled"
    for gauge in run.account.gauges:
        assert gauge.held == 0, f"{gauge.held} {gauge.meter.kind} are still reserved"


def assert_no_mistake(played: Played) -> None:
    if played.run.error is not None:
        raise AssertionError(f"the method raised under {played.run.budget}") from played.run.error


def never_over_budget(case: MethodCase) -> None:
    """Law 1: not one unit above any limit, whatever the budget; the end of money is an outcome, not an error."""
    for seed, budget in budgets(case, "budget"):
        played = play(case, seed, budget)
        assert_no_mistake(played)
        for limit in budget.limits:
            spent = amount(limit.kind, played.run.cost, case.cards)
            assert spent <= limit.cap, f"{spent} {limit.kind} of {budget} (seed {seed})"
        if budget.depth is not None:
            assert played.run.depth <= budget.depth, f"depth {played.run.depth} of {budget}"


def costs_are_exact(case: MethodCase) -> None:
    """Law 2: events add up to the run, the run to what was served, and nothing stays reserved."""
    for seed, budget in [(0, Budget()), *budgets(case, "exact")]:
        played = play(case, seed, budget)
        assert played.run.trace is not None
        assert played.run.trace.cost == played.run.cost == played.served
        assert_clean(played)


def an_answer_is_found(case: MethodCase) -> None:
    """With no limit the method returns a state, with an answer for at least one of three seeds."""
    runs = [play(case, seed).run for seed in SEEDS]
    assert all(run.stopped in ("finished", "no answer") and run.error is None for run in runs), runs
    assert any(run.answer is not None for run in runs), "no answer from any of three seeds, without a budget"


def produced_answers_are_not_lost(case: MethodCase) -> None:
    """Law 3: if the model wrote a complete answer, a run that its budget ended has an answer."""
    if case.produced is None:
        return
    for seed, budget in budgets(case, "anytime"):
        played = play(case, seed, budget)
        wrote = [
            e.path for e in played.events() if isinstance(e, Served) and e.status == "done" and case.produced(e.reply)
        ]
        if wrote:
            run = played.run
            assert run.answer is not None, (
                f"{wrote[0]} wrote an answer, the run has none; {budget}, stopped: {run.stopped}"
            )


def the_floor_gives_an_answer(case: MethodCase) -> None:
    """Law 3: with the budget of one greedy answer (or any more) there is an answer."""
    if case.floor is None:
        return
    for seed in SEEDS:
        for extra in (0, 1, 7, 50):
            limits = tuple(Limit(limit.kind, limit.cap + extra) for limit in case.floor.limits)
            run = play(case, seed, Budget(limits)).run
            assert run.answer is not None, f"no answer with {Budget(limits)} (seed {seed}, stopped: {run.stopped})"


def what_is_paid_for_is_finished(case: MethodCase) -> None:
    """Law 3: a budget of k bounds of a complete answer completes at least k of the samples asked for."""
    if case.per_answer is None or case.produced is None or case.slices is not None:
        return
    kinds = [kind for kind in ("tokens", "output") if amount(kind, case.per_answer, case.cards)]
    for k in range(1, case.asks + 1):
        limits = tuple(Limit(kind, k * amount(kind, case.per_answer, case.cards)) for kind in kinds)
        played = play(case, 0, Budget(limits))
        served = [e for e in played.events() if isinstance(e, Served) and e.status == "done"]
        complete = sum(case.produced(event.reply) is not None for event in served)
        assert complete >= k, f"{complete} complete answers with the bounds of {k}"


def same_seed_same_trace(case: MethodCase) -> None:
    """Law 4: two runs with one seed have the same trace, whether the budget binds or not."""
    for seed, budget in [(0, Budget()), *list(budgets(case, "seed"))[: max(case.examples // 3, 1)]]:
        one, two = (lines_of(play(case, seed, budget).run) for _ in range(2))
        assert one == two, f"two runs with seed {seed} and {budget} differ"


def together_as_alone(case: MethodCase) -> None:
    """Law 4: runs with their own budgets have, side by side in one runtime, the answers and costs they have alone."""
    pairs = list(budgets(case, "together"))[:4]
    alone = [play(case, seed, budget).run for seed, budget in pairs]
    runtime = Runtime(case.backends(), cards=case.cards, slices=case.slices)
    runs = [runtime.start(case.make(seed), budget=budget, answer=case.answer) for seed, budget in pairs]
    runtime.drive()
    for one, other in zip(alone, runs, strict=True):
        if case.barriers and case.slices is None:
            assert (one.answer, one.cost) == (other.answer, other.cost), f"alone {one}, together {other}"
        assert all(gauge.held == 0 and gauge.spent <= gauge.cap for gauge in other.account.gauges)


def order_of_completion_does_not_matter(case: MethodCase) -> None:
    """Law 4: for methods of barriers, replies in any order lead to the same answer at the same cost."""
    for seed in SEEDS:
        calm = play(case, seed)
        for order in range(3):
            shuffled = play(case, seed, wrap=lambda b, order=order: Faulty(b, Faults(shuffle=True), seed=order))  # type: ignore[misc]
            assert_clean(shuffled)
            if case.barriers:
                assert shuffled.outcome == calm.outcome, f"seed {seed}: {calm.run} but in another order {shuffled.run}"


def runs_replay_without_a_model(case: MethodCase) -> None:
    """Law 5: written as JSON lines and read again, a trace repeats the run: answer, cost and every event."""
    for seed, budget in [(1, Budget()), *list(budgets(case, "replay"))[: max(case.examples // 2, 1)]]:
        run = play(case, seed, budget).run
        assert run.trace is not None
        file = io.StringIO()
        sink = JsonlSink(file, run.trace.header)
        for event in run.trace.events:
            sink(event)
        again = replay(parse(io.StringIO(file.getvalue())), case.make(seed), answer=case.answer, cards=dict(case.cards))
        assert (again.answer, again.stopped, again.value) == (run.answer, run.stopped, run.value), (
            f"seed {seed}, {budget}"
        )
        assert again.cost == run.cost
        assert [_place(e) for e in again.trace.events] == [_place(e) for e in run.trace.events]  # type: ignore[union-attr]


def _place(event: Any) -> tuple[Any, ...]:
    if isinstance(event, Served):
        return event.tick, event.path, event.attempt, event.status, event.cost
    return event.tick, event.path, event.kind


def cancelled_anywhere_leaves_nothing(case: MethodCase) -> None:
    """Law 6: cancelled at every moment of a run, nothing is in flight, reserved or alive afterwards."""
    steps = play(case, 0).steps
    most = 4 * case.examples
    moments = range(steps) if steps <= most else sorted(random.Random(0).sample(range(steps), most))
    with no_new_coroutines(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for moment in moments:
            played = play(case, 0, cancel_at=moment)
            assert played.run.stopped in ("cancelled", "finished", "no answer")
            assert played.run.trace is not None and played.run.trace.cost == played.run.cost == played.served
            assert_clean(played)
            del played


@contextmanager
def no_new_coroutines() -> Iterator[None]:
    """Assert that as many coroutines are alive after the block as before it, and that none died unawaited."""
    complaints: list[str] = []
    hook = sys.unraisablehook

    def note(unraisable: Any) -> None:
        complaints.append(repr(unraisable.exc_value))

    gc.collect()
    before = sum(type(each) is CoroutineType for each in gc.get_objects())
    sys.unraisablehook = note
    try:
        yield
        gc.collect()
    finally:
        sys.unraisablehook = hook
    after = sum(type(each) is CoroutineType for each in gc.get_objects())
    assert not complaints, complaints
    assert after <= before, f"{after - before} coroutines are still alive"


def a_bad_backend_is_survived(case: MethodCase) -> None:
    """Law 2 with refusals, timeouts, empty and short replies, missing usage, late cancels: exact, and over at last."""
    plans = (
        Faults(busy=0.3), Faults(refuse=0.2, late=2), Faults(timeout=0.2, silent=0.2),
        Faults(empty=0.3, short=0.3, shuffle=True, late=1), Faults(refuse=1.0), Faults(empty=1.0),
    )  # fmt: skip
    for plan in plans:
        for seed, budget in [(0, Budget()), *list(budgets(case, f"faults {plan}"))[:2]]:
            played = play(case, seed, budget, wrap=lambda b, plan=plan, seed=seed: Faulty(b, plan, seed=seed))  # type: ignore[misc]
            run = played.run
            assert run.trace is not None and run.trace.cost == run.cost == played.served
            assert_clean(played)
            assert run.error is None or type(run.error).__module__.startswith("outthink."), repr(run.error)
            for limit in budget.limits:
                assert amount(limit.kind, run.cost, case.cards) <= limit.cap


def needs_are_told(case: MethodCase) -> None:
    """Law 7: what a method asks of its backends is among what it says it needs, so that it can be checked before."""
    if case.needs is None:
        return
    for seed, budget in [(0, Budget()), *list(budgets(case, "needs"))[:2]]:
        asked = set[str]().union(*(each.used for each in play(case, seed, budget).watched))
        assert asked <= case.needs, f"it asked for {sorted(asked - case.needs)} too; it says {sorted(case.needs)}"


def no_money_no_spending(case: MethodCase) -> None:
    """A budget of nothing is an outcome: nothing is served, and the run says why it stopped."""
    for kind in ("tokens", "calls"):
        played = play(case, 0, Budget((Limit(kind, 0),)))
        assert_no_mistake(played)
        assert amount(kind, played.run.cost, case.cards) == 0
        assert played.run.stopped in ("budget", "no answer", "finished")
    assert play(case, 0, Budget((Limit("calls", 0),))).run.cost == Cost()


def no_clock_and_no_global_chance(case: MethodCase) -> None:
    """Law 9: a run with the clock and the global random numbers taken away is the run with them."""
    wanted = play(case, 0).outcome
    with forbidden():
        assert play(case, 0, clock=lambda: 0.0).outcome == wanted


@contextmanager
def forbidden() -> Iterator[None]:
    """Make clocks and the global random generators raise AssertionError when a method calls them."""

    def refuse(name: str) -> Any:
        def call(*_: Any, **__: Any) -> Any:
            raise AssertionError(f"a method called {name}; use the seed, and leave time to the runtime")

        return call

    names = [(random, n) for n in ("random", "randint", "choice", "choices", "sample", "shuffle", "gauss", "uniform")]
    names += [(random, "randrange"), (random, "getrandbits"), (random, "seed"), (os, "urandom")]
    names += [(time, n) for n in ("time", "time_ns", "monotonic", "perf_counter", "sleep")]
    if "numpy.random" in sys.modules:
        names += [(sys.modules["numpy.random"], n) for n in ("rand", "randn", "randint", "random", "choice", "seed")]
    saved = [(module, name, getattr(module, name)) for module, name in names]
    try:
        for module, name, _ in saved:
            setattr(module, name, refuse(f"{module.__name__}.{name}"))
        yield
    finally:
        for module, name, value in saved:
            setattr(module, name, value)


def no_hash_order(case: MethodCase) -> None:
    """Law 9: processes with different hash seeds make the same trace (needs `importable`)."""
    if not case.importable:
        return
    traces = {traced_elsewhere(case.importable, hash_seed) for hash_seed in ("1", "2")}
    assert len(traces) == 1, "the trace depends on PYTHONHASHSEED: something goes through a set, or hashes strings"


def traced_elsewhere(importable: str, hash_seed: str, *, path: Sequence[str] = ()) -> str:
    """Return the traces that another process makes of an importable case (or list of cases), as text.

    path: folders where that process looks for modules before its own.
    """
    folders = os.pathsep.join([*path, *(p for p in sys.path if p)])
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": folders}
    command = [sys.executable, "-m", "outthink.testing.conformance.elsewhere", importable]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


METHOD_LAWS = (
    an_answer_is_found, never_over_budget, costs_are_exact, produced_answers_are_not_lost, the_floor_gives_an_answer,
    what_is_paid_for_is_finished, same_seed_same_trace, together_as_alone, order_of_completion_does_not_matter,
    runs_replay_without_a_model, cancelled_anywhere_leaves_nothing, a_bad_backend_is_survived, needs_are_told,
    no_money_no_spending, no_clock_and_no_global_chance, no_hash_order,
)  # fmt: skip
