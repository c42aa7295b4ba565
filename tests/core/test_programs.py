"""Random nested programs of verbs under random budgets: no deadlock, no overspending, no leak."""

from __future__ import annotations

import asyncio
import gc
import random
from typing import Any

import pytest
from hypothesis import given, settings

from outthink.core.budget import Budget, Meter, weights
from outthink.core.errors import BackendError, Cancelled, OutOfBudget, Stuck
from outthink.core.replay import replay
from outthink.core.request import Sample
from outthink.core.runtime import Runtime
from outthink.core.seeds import fold
from outthink.testing.faulty import Faults, Faulty
from outthink.testing.programs import Broken, Node, Player, program, small_budget
from outthink.testing.scripted import MODEL, Scripted
from outthink.testing.strategies import faults, programs, small_budgets

FAST, ALL = 2_000, 20_000


def amount(kind: str, cost: Any) -> int:
    return Meter(kind, weights(kind, {})).amount(cost)


def play(node: Node, budget: Budget, *, how: random.Random, meets: bool = False) -> str | None:
    """Play `node`, hold it to the laws, and return how it stopped."""
    backend = Scripted(slots=how.choice((1, 2, 5, 1000)), limit=20_000)
    port: Any = backend
    if how.random() < 0.5:
        port = Faulty(backend, Faults(shuffle=True, late=how.choice((0, 0, 2))), seed=how.randint(0, 99))
    slices = how.choice((None, 1, 2, 3, 5, 8))
    runtime = Runtime({MODEL: port}, window=how.choice((1, 2, 1024)), retries=1, slices=slices)
    player = Player()
    run = runtime.start(player.play(node), budget=budget)
    stop_at = how.randint(0, 12) if how.random() < 0.25 else None
    turns = 0
    while not run.done:
        if turns == stop_at:
            run.cancel()
        ended = run.stopped is not None
        before, submitted = player.resumed, sum(what == "submit" for what, _ in backend.log)
        runtime.step()
        turns += 1
        if ended:
            assert player.resumed == before, "a coroutine went on after its run had stopped"
            assert sum(what == "submit" for what, _ in backend.log) == submitted, "submitted after the run had stopped"
        assert turns < 20_000, "the run does not end"
        for gauge in run.account.gauges:
            assert 0 <= gauge.held and gauge.spent + gauge.held <= gauge.cap
            assert len(gauge.slices) < 2 or slices is not None
    assert player.alive == 0, f"{player.alive} coroutines outlive their run"
    loop = runtime.loop
    assert not backend.live and not any(port.flying for port in loop.dispatcher.ports)
    assert run.zombies == 0 and run.pending == 0
    assert not loop.runs and not loop.queues.suspects and not loop.settler.later
    for gauge in run.account.gauges:
        assert gauge.held == 0 and not gauge.slices, f"{gauge} is still held"
        assert gauge.spent == amount(gauge.meter.kind, run.cost) <= gauge.cap
    assert not run.overrun and run.exact
    assert run.trace is not None and run.trace.cost == run.cost == backend.served
    assert run.stopped in ("finished", "budget", "cancelled", "failed", "no answer"), run.stopped
    if run.error is not None:
        assert isinstance(run.error, Broken | BackendError | OutOfBudget | Stuck | Cancelled), repr(run.error)
        assert meets or not isinstance(run.error, Stuck | Cancelled), f"{run.error!r} without a wait across the tree"
    least = {e.path: e.request.at_least for e in run.trace.served() if isinstance(e.request, Sample)}
    for clip in run.trace.decisions("clip"):
        most = clip.facts["max_tokens"]
        assert most >= least.get(clip.path, 0), f"{clip.path} was cut to {most} tokens"
    if stop_at is None and backend.slots == 1000 and how.random() < 0.5:  # what waited for room is not in a trace
        again = replay(run.trace, Player().play(node))
        assert again.trace is not None and again.trace.events == run.trace.events, "a replay went another way"
        assert (again.cost, again.stopped) == (run.cost, run.stopped)
    return run.stopped


def many(first: int, last: int, *, meets: bool) -> dict[str, int]:
    ends: dict[str, int] = {}
    for seed in range(first, last):
        rng = random.Random(fold(seed, "programs", meets))
        node, budget = program(rng, meets=meets), small_budget(rng)
        try:
            end = play(node, budget, how=rng, meets=meets) or "none"
        except BaseException as error:
            error.add_note(f"seed {seed}, meets={meets}: {node} under {budget}")
            raise
        ends[end] = ends.get(end, 0) + 1
    gc.collect()
    return ends


@pytest.mark.parametrize("meets", [False, True])
def test_random_programs_keep_the_laws(meets: bool) -> None:
    ends = many(0, FAST // 2, meets=meets)
    assert min(ends.get(how, 0) for how in ("finished", "budget", "cancelled", "failed")) >= 20, ends


@pytest.mark.slow
@pytest.mark.parametrize("meets", [False, True])
def test_twenty_thousand_random_programs_keep_the_laws(meets: bool) -> None:
    many(FAST // 2, ALL // 2, meets=meets)


@given(node=programs(), budget=small_budgets())
@settings(max_examples=60)
def test_programs_that_hypothesis_can_shrink_keep_the_laws(node: Node, budget: Budget) -> None:
    play(node, budget, how=random.Random(0))


@given(node=programs(depth=2), budget=small_budgets(), plan=faults())
@settings(max_examples=60)
def test_a_backend_that_misbehaves_leaves_nothing_behind(node: Node, budget: Budget, plan: Faults) -> None:
    backend = Scripted(limit=20_000)
    runtime = Runtime({MODEL: Faulty(backend, plan)}, retries=2)
    player = Player()
    run = runtime.start(player.play(node), budget=budget)
    runtime.drive()
    assert player.alive == 0 and not backend.live
    assert all(gauge.held == 0 for gauge in run.account.gauges)
    assert run.trace is not None and run.trace.cost == run.cost
    if not run.overrun:
        assert all(gauge.spent <= gauge.cap for gauge in run.account.gauges)


def test_runs_that_come_and_go_together_keep_their_budgets() -> None:
    """Many runs in one runtime, started and cancelled at random, replies in random order."""
    for seed in range(60):
        rng = random.Random(fold(seed, "together"))
        backend = Scripted(slots=rng.choice((1, 3, 1000)))
        runtime = Runtime({MODEL: Faulty(backend, Faults(shuffle=True), seed=seed)}, retries=1)
        player, runs = Player(), []
        for _ in range(40):
            if rng.random() < 0.5 and len(runs) < 8:
                node, budget = program(rng), small_budget(rng)
                runs.append(runtime.start(player.play(node), budget=budget, weight=rng.choice((0.5, 1, 3))))
            if runs and rng.random() < 0.1:
                rng.choice(runs).cancel()
            runtime.step()
        runtime.drive()
        assert player.alive == 0 and all(run.done for run in runs)
        for run in runs:
            assert all(g.held == 0 and g.spent <= g.cap for g in run.account.gauges)
            assert run.trace is not None and run.trace.cost == run.cost


def test_the_asyncio_driver_keeps_the_laws_too() -> None:
    async def main() -> None:
        runtime = Runtime({MODEL: Faulty(Scripted(), Faults(shuffle=True))}, retries=1, window=3)
        player, runs = Player(), []

        async def one(seed: int) -> None:
            rng = random.Random(fold(seed, "asyncio"))
            for _ in range(rng.randint(0, 40)):
                await asyncio.sleep(0)
            run = runtime.start(player.play(program(rng, meets=seed % 2 == 0)), budget=small_budget(rng))
            runs.append(run)
            for _ in range(rng.randint(0, 20)):
                await asyncio.sleep(0)
            if rng.random() < 0.3:
                run.cancel()
            await runtime.settled(run)

        await asyncio.gather(*(one(seed) for seed in range(120)))
        assert player.alive == 0 and not runtime.loop.runs
        for run in runs:
            assert run.done and all(g.held == 0 and g.spent <= g.cap for g in run.account.gauges)
            assert run.trace is not None and run.trace.cost == run.cost

    asyncio.run(main())
