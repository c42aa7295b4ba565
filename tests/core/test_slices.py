"""Paying in slices: many at once, the oldest always to its end, nothing over, the same texts."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest

from outthink.core.backend import CAPABILITIES, Failure, Item, Paused, Settled
from outthink.core.budget import Budget
from outthink.core.cost import Cost
from outthink.core.errors import BackendError, InvalidInput
from outthink.core.jsonl import JsonlSink, parse
from outthink.core.refs import Prefix
from outthink.core.replay import replay
from outthink.core.request import Sample
from outthink.core.run import Run
from outthink.core.runtime import Runtime
from outthink.core.verbs import cancel, first, fitting, gather, start, wait, within
from outthink.models.threaded import Threaded
from outthink.models.toy import toy_backend
from outthink.testing.scripted import MODEL, Scripted, job, writing


async def all_of(*work: Any) -> Any:
    return await gather(work)


async def short(*kinds: int) -> None:
    """Let the run learn that samples of these `max_tokens` may be very short: from then on, slices are."""
    for worst in kinds:
        await writing(worst, 0, tag="short")


async def what_fits(*work: Any) -> Any:
    """What fits of some samples, the first of which becomes `what_fits/1`."""
    await short(work[0].max_tokens)
    return await fitting(work)


def lengths(run: Run) -> list[int]:
    return [len(draft.text) for draft in run.state]


def play(coro: Any, budget: str, *, slices: int | None = 4, backend: Any = None) -> tuple[Run, Any]:
    """Run `coro`, holding the account to its caps at every turn; return the run and its backend."""
    port = backend or Scripted()
    runtime = Runtime({MODEL: port}, slices=slices)
    run = runtime.start(coro, budget=budget)
    while not run.done:
        runtime.step()
        assert all(0 <= g.held and g.spent + g.held <= g.cap for g in run.account.gauges)
    assert all(g.held == 0 and not g.slices for g in run.account.gauges)
    assert run.trace is not None and run.trace.cost == run.cost
    return run, port


def moments(backend: Scripted, *paths: str) -> list[tuple[str, str]]:
    return [(what, path) for what, path in backend.log if path in paths]


class TestConcurrency:
    def test_short_texts_of_long_bounds_run_together(self) -> None:
        def work() -> Any:
            return what_fits(*(writing(2048, 200, tag=i) for i in range(16)))

        whole, one = play(work(), "5k output tokens", slices=None)
        sliced, other = play(work(), "5k output tokens", slices=64)
        assert lengths(whole) == lengths(sliced) == [200] * 16
        assert whole.cost == sliced.cost
        assert other.steps < one.steps / 4, f"{other.steps} steps in slices, {one.steps} whole"

    def test_whoever_pauses_gives_its_room_back(self) -> None:
        run, _ = play(what_fits(writing(20, 12), writing(20, 12, tag=1)), "40 output", backend=Scripted(slots=1))
        assert lengths(run) == [12, 12]
        with pytest.raises(InvalidInput, match="slices=0"):
            Runtime({}, slices=0)

    def test_who_goes_on_waits_for_room_in_turn(self) -> None:
        backend = Scripted(slots=2)
        runtime = Runtime({MODEL: backend}, slices=1)
        run = runtime.start(what_fits(*(writing(9, 9, tag=i) for i in range(3))), budget="30 output")
        other = runtime.start(all_of(*(job(1, steps=2, tag=i) for i in range(20))))
        runtime.drive()
        assert lengths(run) == [9, 9, 9] and len(other.state) == 20
        between = [what for what, _ in backend.log[backend.log.index(("pause", "what_fits/2")) :]]
        assert between.index("submit") < between.index("resume"), "the other run had its turn"


class TestTheOldest:
    def test_it_has_its_whole_bound_and_never_pauses(self) -> None:
        run, backend = play(what_fits(*(writing(30, 30, tag=i) for i in range(5))), "40 output")
        assert moments(backend, "what_fits/1") == [("submit", "what_fits/1"), ("settle", "what_fits/1")]
        assert run.state[0].finish == "end"
        assert run.cost.total("output") == 40

    def test_after_it_comes_the_next(self) -> None:
        """What the first leaves goes to the second until that has all it may have, and then to the third."""
        run, _ = play(what_fits(writing(30, 6), *(writing(30, 30, tag=i) for i in range(3))), "63 output")
        assert lengths(run) == [6, 30, 15, 12]

    def test_its_bound_comes_before_the_work_of_others(self) -> None:
        """When the first ends, its money would do for the job, but then the second could not end."""

        async def method() -> Any:
            await short(30)
            return await fitting([writing(30, 6), writing(30, 30, tag=1), job(20, reply="no")])

        run, _ = play(method(), "45 output")
        assert [len(draft.text) for draft in run.state[:2]] == [6, 30] and run.state[2] is None

    def test_who_is_cancelled_is_the_oldest_no_more(self) -> None:
        """It goes on holding what it may cost, but the next is provided for at once."""

        async def method() -> Any:
            await short(30)
            old = await start([writing(30, 30, late=50)])
            group = await start([writing(30, 30, tag=1)])
            await gather([job(0, steps=2, model="other")])
            await cancel(old)
            await job(20)
            return await wait(group)

        backend = Scripted()
        run = Runtime({MODEL: backend, "other": Scripted()}, slices=4).run(method(), budget="75 output")
        assert backend.log.index(("settle", "method/2")) < backend.log.index(("submit", "method/4"))
        assert [len(outcome.value.text) for outcome in run.state] == [30]

    def test_nobody_younger_gets_more_while_it_lacks_its_bound(self) -> None:
        """The first ends early at 13; of the 5 that are left then nothing goes to the third, who waits for them."""
        work = [writing(40, 40, tag=1), writing(40, 40, tag=2)]

        async def method() -> Any:
            await short(16, 40)
            return await fitting([writing(16, 13), *work])

        run, _ = play(method(), "46 output")
        assert lengths(run) == [13, 21, 12]

    def test_what_may_not_be_cut_is_paid_whole(self) -> None:
        work = [writing(12, 9, tag=i, at_least=None) for i in range(3)] + [job(5), job(5)]  # type: ignore[list-item]
        run, backend = play(what_fits(*work), "24 output")
        assert not any(what == "pause" for what, _ in backend.log)
        assert run.trace is not None
        assert [d.path for d in run.trace.decisions("slice")] == ["what_fits/0"]

    def test_while_nobody_knows_how_long_they_are_all_are_paid_whole(self) -> None:
        async def method() -> Any:
            return await fitting(writing(30, 30, tag=i) for i in range(5))

        run, backend = play(method(), "100 output")
        assert lengths_or_none(run) == [30, 30, 30, 10, None], "a budget of three bounds gives three answers"
        assert not any(what == "pause" for what, _ in backend.log)


class TestTheEndOfTheMoney:
    def test_it_is_a_cut_and_not_one_token_is_lost(self) -> None:
        run, _ = play(what_fits(*(writing(50, 50, tag=i) for i in range(4))), "71 output")
        assert run.cost.total("output") == 71 and lengths(run)[0] == 50
        assert run.trace is not None
        cut = {d.path: d.facts["max_tokens"] for d in run.trace.decisions("clip")}
        for i, draft in enumerate(run.state):
            assert draft.finish == ("end" if i == 0 else "length")
            assert i == 0 or cut[f"what_fits/{i + 1}"] == len(draft.text)

    def test_no_cut_is_below_at_least(self) -> None:
        run, _ = play(what_fits(*(writing(50, 50, tag=i, at_least=10) for i in range(4))), "71 output")
        assert [n for n in lengths_or_none(run) if n is not None] == [50, 11, 10]

    def test_several_limits_and_prompts_that_are_paid_once(self) -> None:
        work = [writing(40, 30, tag=0, prompt=7) for _ in range(3)]
        run, _ = play(what_fits(*work), "60 tokens, 50 output tokens, 5 calls")
        assert run.cost.total("prompt") == 7 and run.cost.total("output") <= 50

    def test_branches_with_their_own_budgets_cut_their_own(self) -> None:
        async def pair(i: int) -> Any:
            return await fitting([writing(20, 20, tag=(i, j)) for j in range(3)])  # type: ignore[arg-type]

        async def method() -> Any:
            await short(20)
            outcomes = await within(Budget.parse("27 output"), [pair(i) for i in range(3)])
            return [draft for outcome in outcomes for draft in outcome.value or []]

        run, _ = play(method(), "90 output")
        assert lengths_or_none(run) == [20, 7, None] * 3, "nothing is left for the third"

    def test_a_branch_that_limits_something_else_shares_the_rest(self) -> None:
        async def pair(i: int) -> Any:
            return await fitting([writing(20, 20, tag=(i, j)) for j in range(2)])  # type: ignore[arg-type]

        async def method() -> Any:
            await short(20)
            outcomes = await within(Budget.parse("2 calls"), [pair(i) for i in range(2)])
            return [draft for outcome in outcomes for draft in outcome.value or []]

        run, _ = play(method(), "50 output, 9 calls")
        assert lengths_or_none(run) == [20, 18, 12, None], "across accounts too the older comes first"


def lengths_or_none(run: Run) -> list[int | None]:
    return [None if draft is None else len(draft.text) for draft in run.state]


class TestEndings:
    @pytest.mark.parametrize("late", [0, 2])
    def test_what_is_paused_can_be_cancelled(self, late: int) -> None:
        async def method() -> Any:
            await short(30)
            group = await start([writing(30, 30), *(writing(30, 30, tag=i, late=late) for i in range(3))])
            await gather([job(1, steps=8, tag="while they pause")])
            await cancel(group)
            return await job(3, reply="after")

        run, backend = play(method(), "60 output")
        assert run.state == "after"
        assert any(what == "pause" for what, _ in backend.log)
        assert not backend.live

    def test_a_race_cancels_the_paused(self) -> None:
        async def method() -> Any:
            await short(40)
            return await first([writing(40, 25), writing(40, 40, tag=1), writing(40, 3, tag=2)], count=2)

        run, _ = play(method(), "60 output")
        assert [len(draft.text) for draft in run.state] == [3, 25]

    def test_a_pause_that_comes_after_the_cancel_changes_nothing(self) -> None:
        class Hasty(Scripted):
            """Cancels reach it after its next step."""

            def __init__(self) -> None:
                super().__init__()
                self.asked: list[Any] = []

            def cancel(self, ticket: Any) -> None:
                self.asked.append(ticket)

            def step(self) -> Sequence[Item]:
                asked, self.asked = self.asked, []
                items = super().step()
                for ticket in asked:
                    super().cancel(ticket)
                return items

        async def method() -> Any:
            await short(30)
            group = await start([writing(30, 30), writing(30, 30, tag=1)])
            await gather([job(1, steps=2)])
            await cancel(group)
            return await job(2, reply="after")

        run, backend = play(method(), "50 output", backend=Hasty())
        assert run.state == "after" and any(what == "pause" for what, _ in backend.log)

    def test_another_attempt_begins_anew(self) -> None:
        work = [writing(20, 9), writing(20, 9, tag=1, fail="busy", retry=True)]
        run, backend = play(what_fits(*work), "90 output")
        assert [what for what, path in backend.log if path == "what_fits/2"].count("submit") == 4
        assert run.cost.total("output") == 9 + 4 * 9

    def test_a_backend_that_breaks_down_settles_the_paused_too(self) -> None:
        class Broken(Scripted):
            def step(self) -> Sequence[Item]:
                if self.steps < 6:
                    return super().step()
                live, self.live = self.live, {}
                return [Settled(t, None, Cost.of(MODEL, calls=1, output=4), Failure("broken")) for t in live]

        async def method() -> Any:
            await short(30)
            group = await start([writing(30, 30), *(writing(30, 30, tag=i) for i in range(2))])
            return [outcome.error for outcome in await wait(group)]

        run, _ = play(method(), "45 output", backend=Broken())
        assert len(run.state) == 3 and all(isinstance(error, BackendError) for error in run.state)

    def test_a_resume_that_raises_is_a_failure(self) -> None:
        class Forgetful(Scripted):
            def resume(self, ticket: Any, request: Any) -> None:
                del self.live[ticket]
                raise KeyError("gone")

        async def method() -> Any:
            await short(30)
            group = await start([writing(30, 9), writing(30, 9, tag=1)])
            return [outcome.error for outcome in await wait(group)]

        run = Runtime({MODEL: Forgetful()}, slices=4).run(method(), budget="90 output")
        assert run.state[1] is None and "resume raised" in str(run.state[0])


class TestTheSameAsEver:
    @pytest.mark.parametrize("threaded", [False, True])
    def test_texts_do_not_depend_on_slices(self, threaded: bool) -> None:
        def samples() -> Any:
            root = Prefix("p\n")
            return all_of(*(Sample(root, "toy/t1", i, max_tokens=500, at_least=1) for i in range(8)))

        def backend() -> Any:
            return Threaded(toy_backend("toy/t1", speed=3)) if threaded else toy_backend("toy/t1", speed=3)

        drafts = []
        for slices in (None, 1, 5, 64):
            runtime = Runtime({"toy/t1": backend()}, slices=slices)
            run = runtime.run(samples(), budget="1100 output tokens")
            runtime.close()
            drafts.append([draft.text for draft in run.state])
            assert run.cost.total("output") == sum(map(len, drafts[-1]))
        assert drafts[0] == drafts[1] == drafts[2] == drafts[3]

    def test_without_a_limit_nothing_is_paused(self) -> None:
        backend = Scripted()
        Runtime({MODEL: backend}, slices=1).run(all_of(writing(30, 30), writing(30, 30, tag=1)))
        assert not any(what == "pause" for what, _ in backend.log)

    def test_a_backend_that_cannot_pause_is_paid_whole(self) -> None:
        backend = toy_backend("toy/t1", pause=False)
        asked = (Sample(Prefix("p\n"), "toy/t1", i, max_tokens=90, at_least=1) for i in range(3))
        run = Runtime({"toy/t1": backend}, slices=1).run(all_of(*asked), budget="300 output tokens")
        assert run.trace is not None and not list(run.trace.decisions("slice"))
        assert "pause" in CAPABILITIES and not isinstance(backend.step(), Paused)

    @pytest.mark.parametrize("budget", ["60 output", "71 output", "200 output"])
    def test_a_written_trace_repeats_the_run(self, budget: str) -> None:
        def work() -> Any:
            return what_fits(*(writing(50, 20 + 9 * i, tag=i, prompt=2) for i in range(4)))

        run, _ = play(work(), budget)
        assert run.trace is not None and run.trace.header["slices"] == 4
        assert list(run.trace.decisions("pause")) or budget == "200 output"
        file = io.StringIO()
        sink = JsonlSink(file, run.trace.header)
        for event in run.trace.events:
            sink(event)
        again = replay(parse(io.StringIO(file.getvalue())), work())
        assert again.trace is not None
        assert [(e.tick, e.path, type(e)) for e in again.trace.events] == [
            (e.tick, e.path, type(e)) for e in run.trace.events
        ]
        assert (again.cost, again.stopped, lengths_or_none(again)) == (run.cost, run.stopped, lengths_or_none(run))
