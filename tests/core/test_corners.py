"""Corners: what happens rarely, and once happened wrongly."""

from __future__ import annotations

from typing import Any

import pytest

from outthink.core.budget import Budget
from outthink.core.errors import InvalidInput, OutOfBudget, ReplayMismatch
from outthink.core.replay import Replay, replay
from outthink.core.runtime import Runtime
from outthink.core.trace import Trace
from outthink.core.verbs import cancel, first, gather, note, resume, start, wait, within
from outthink.core.verdict import Verdict
from outthink.testing.scripted import MODEL, Scripted, job


def run(method: Any, backend: Any = None, **options: Any) -> Any:
    runtime = Runtime({MODEL: backend if backend is not None else Scripted()})
    ended = runtime.start(method, **options)
    runtime.drive()
    assert all(gauge.held == 0 for gauge in ended.account.gauges)
    return ended


def test_no_limit_is_read_again() -> None:
    assert Budget.parse("no limit") == Budget()
    with pytest.raises(InvalidInput, match="more than anybody has"):
        Budget.parse("1e31 tokens")


def test_a_verdict_is_a_number() -> None:
    assert float(Verdict(0.25)) == 0.25


def test_without_a_trace_all_is_the_same() -> None:
    async def search() -> Any:
        await note(why="nobody listens")
        return [o.value for o in await within(Budget.parse("3 calls"), [gather([job(1)] * 2), gather([job(1)] * 4)])]

    ended = run(search(), trace=None, budget="20 calls")
    assert ended.trace is None and ended.state == [[None, None], None]


def test_a_coroutine_that_will_not_be_cancelled_is_reported() -> None:
    async def stubborn() -> None:
        try:
            await job(1, steps=50)
        finally:
            await job(1)

    async def fragile() -> None:
        try:
            await job(1, steps=50)
        finally:
            raise ValueError("while closing")

    async def search() -> Any:
        return await first([job(1, reply="won"), stubborn(), fragile()])

    ended = run(search())
    reasons = [event.facts["reason"] for event in ended.trace.decisions("note")]
    assert ended.state == ["won"] and len(reasons) == 2
    assert "ignored GeneratorExit" in reasons[0] and "while closing" in reasons[1]


def test_cancelling_again_while_it_settles_changes_nothing() -> None:
    async def branch() -> Any:
        group = await start([job(1, steps=50, late=4)])
        await wait(await start([job(0)]))
        await cancel(group)
        await job(1, steps=50)

    async def search() -> Any:
        return await first([branch(), job(1, steps=4, reply="won")])

    ended = run(search(), budget="20 output tokens")
    assert ended.state == ["won"]
    statuses = [event.status for event in ended.trace.served()]
    assert statuses.count("cancelled") == 2 and len(statuses) == 4


def test_room_that_comes_back_by_itself_is_waited_for() -> None:
    class Shy(Scripted):
        looked = 0

        def room(self) -> int:
            self.looked += 1
            return 0 if self.looked < 5 else super().room()

    backend = Shy()
    assert run(gather([job(1, reply="in")]), backend).state == ["in"] and backend.looked >= 5


def test_a_request_beyond_the_grants_is_a_mistake_too() -> None:
    async def search() -> Any:
        return await within([Budget()], [job(1), job(2)])

    assert isinstance(run(search()).error, InvalidInput)


def test_whoever_started_it_may_be_gone_when_it_is_cancelled() -> None:
    box: list[Any] = []

    async def owner() -> Any:
        box.append(await start([job(1, steps=9)]))
        await job(1)

    async def search() -> Any:
        await gather([owner()])
        await cancel(box[0])
        return "fine"

    assert run(search()).state == "fine"


def test_resuming_while_a_grant_is_still_waited_for() -> None:
    """Another coroutine resumes a reserve whose second sub-budget is not there yet."""
    box: list[Any] = []

    async def spends(n: int) -> int:
        await job(n, n)
        return n

    async def owner() -> Any:
        group = await start([spends(5), spends(5)], each=Budget.parse("5 output tokens"), parked=True)
        box.append(group)
        await resume(group)
        return [outcome.value for outcome in await wait(group)]

    async def search() -> Any:
        return await gather([owner(), job(5, 0, steps=4)])

    ended = run(search(), budget="12 output tokens")
    assert ended.error is None or isinstance(ended.error, OutOfBudget)


def test_a_cancelled_head_whose_account_is_listed_already() -> None:
    async def search() -> Any:
        long = await start([job(5, 5, steps=3)])
        heads = await start([job(8, 8, tag=i) for i in range(3)])
        await wait(await start([job(0, steps=0)]), 0)
        await cancel(heads)
        more = await start([job(1, 1)])
        await wait(long)
        return len(await wait(more))

    assert run(search(), budget="10 output tokens").state == 1


def test_a_replay_of_another_program_is_refused() -> None:
    async def recorded() -> Any:
        return await job(1)

    async def longer() -> Any:
        await job(1)
        return await job(2)

    longer.__name__ = longer.__qualname__ = "recorded"
    trace = run(recorded()).trace
    coro = longer()
    coro.__name__ = "recorded"
    with pytest.raises(ReplayMismatch, match="recorded/1 asks"):
        replay(trace, coro)
    backend = Replay(Trace({}, []))
    backend.close()
    assert backend.room() > 10**6
