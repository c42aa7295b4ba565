"""What each verb gives, costs and raises."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import pytest

from outthink.core.budget import Budget
from outthink.core.cost import Cost
from outthink.core.errors import BackendError, InvalidInput, OutOfBudget, Stuck
from outthink.core.request import Embed
from outthink.core.run import Run
from outthink.core.runtime import Runtime
from outthink.core.verbs import (
    bound,
    cancel,
    first,
    fitting,
    gather,
    keep,
    kept,
    left,
    note,
    resume,
    start,
    wait,
    within,
)
from outthink.testing.scripted import MODEL, Scripted, job


def run(method: Any, *, backend: Scripted | None = None, window: int = 1024, **options: Any) -> Run:
    runtime = Runtime({MODEL: backend if backend is not None else Scripted()}, window=window)
    ended = runtime.start(method, **options)
    runtime.drive()
    return ended


async def answers(value: Any, *, steps: int = 1, worst: int = 1) -> Any:
    await job(worst, steps=steps, reply=value)
    return value


async def fails(error: Exception) -> Any:
    await job(1)
    raise error


class TestRequests:
    def test_a_request_gives_its_reply(self) -> None:
        async def search() -> Any:
            return [await job(1, reply="one"), await job(1, reply=[2])]

        assert run(search()).state == ["one", [2]]

    def test_a_failure_is_raised_where_it_was_asked(self) -> None:
        async def search() -> Any:
            try:
                await job(3, 2, fail="it broke")
            except BackendError as error:
                return str(error)

        ended = run(search())
        assert ended.state == "scripted: it broke" and ended.cost.total("output") == 2

    def test_an_unknown_model_names_those_there_are(self) -> None:
        ended = run(asks(Embed("x", "scripte")))
        assert isinstance(ended.error, InvalidInput) and "Did you mean 'scripted'" in str(ended.error)

    def test_what_a_backend_refuses_is_raised_and_costs_nothing(self) -> None:
        ended = run(asks(Embed("x", MODEL)))
        assert type(ended.error).__name__ == "Unsupported" and not ended.cost


def asks(request: Any) -> Any:
    async def search() -> Any:
        return await request

    return search()


class TestGather:
    def test_results_keep_the_order_given(self) -> None:
        async def search() -> Any:
            return await gather(answers(i, steps=5 - i) for i in range(5))

        assert run(search()).state == [0, 1, 2, 3, 4]

    def test_work_may_be_mixed_and_of_any_kind(self) -> None:
        async def search() -> Any:
            mixed = await gather([job(1, reply="a"), answers("b")])
            return mixed, await gather(iter([job(1, reply="c")])), await gather((answers("d"),)), await gather([])

        assert run(search()).state == (["a", "b"], ["c"], ["d"], [])

    def test_the_first_error_cancels_the_rest(self) -> None:
        backend = Scripted()

        async def search() -> Any:
            return await gather([answers(1, steps=40), fails(ValueError("bug")), job(1, steps=40)])

        ended = run(search(), backend=backend)
        assert isinstance(ended.error, ValueError) and backend.steps < 6
        assert [e.status for e in ended.trace.served()].count("cancelled") == 2

    @pytest.mark.timeout(10)
    def test_an_infinite_input_is_drawn_a_window_at_a_time(self) -> None:
        drawn = 0

        async def search() -> Any:
            def forever() -> Any:
                nonlocal drawn
                for drawn in count(1):
                    yield job(1, tag=drawn)

            return await gather(forever())

        ended = run(search(), window=4, budget="20 output tokens")
        assert ended.stopped == "budget"
        assert 21 <= drawn <= 25 and ended.cost.total("output") <= 20

    def test_a_bug_in_the_iterable_is_raised(self) -> None:
        async def search() -> Any:
            def broken() -> Any:
                yield job(1)
                raise RuntimeError("in the generator")

            return await gather(broken())

        ended = run(search())
        assert isinstance(ended.error, RuntimeError) and "in the generator" in str(ended.error)

    @pytest.mark.parametrize("work", [[3], ["text"], [None]])
    def test_what_is_no_work_is_refused(self, work: Any) -> None:
        async def search() -> Any:
            return await gather(work)

        assert isinstance(run(search()).error, TypeError)

    def test_work_must_be_iterable(self) -> None:
        async def search() -> Any:
            return await gather(7)  # type: ignore[arg-type]

        assert isinstance(run(search()).error, TypeError)


class TestFitting:
    def test_results_are_aligned_with_the_input(self) -> None:
        async def search() -> Any:
            return await fitting([job(2, reply="a"), job(50, reply="b"), job(2, reply="c")])

        assert run(search(), budget="9 output tokens").state == ["a", None, "c"]
        assert run(search(), window=1, budget="9 output tokens").state == ["a", None, None], "drawn no further"

    def test_with_each_smaller_grants_are_the_same_for_all(self) -> None:
        async def search() -> Any:
            return await fitting([answers(i, worst=5) for i in range(4)], each=Budget.parse("5 output tokens"))

        ended = run(search(), budget="12 output tokens")
        assert ended.state == [0, 1, None, None]
        assert ended.cost.total("output") == 10

    def test_a_lazy_input_is_as_long_as_what_was_drawn(self) -> None:
        async def search() -> Any:
            return await fitting(answers(i, worst=5) for i in count())

        got = run(search(), window=3, budget="22 output tokens").state
        assert got[:4] == [0, 1, 2, 3] and all(value is None for value in got[4:]) and len(got) <= 7

    def test_failures_of_a_backend_leave_a_hole(self) -> None:
        async def search() -> Any:
            return await fitting([job(1, reply="a"), job(1, fail="500"), job(1, reply="c")])

        assert run(search()).state == ["a", None, "c"]

    def test_a_mistake_is_raised(self) -> None:
        async def search() -> Any:
            return await fitting([answers(1), fails(KeyError("bug"))])

        assert isinstance(run(search()).error, KeyError)

    def test_if_all_was_refused_it_is_out_of_budget(self) -> None:
        async def search() -> Any:
            return await fitting([job(5), job(5)])

        assert run(search(), budget="4 output tokens").stopped == "budget"

    def test_a_branch_that_ran_out_gives_what_it_kept(self) -> None:
        async def branch(i: int) -> Any:
            await keep(f"kept {i}")
            await job(9)
            return i

        async def search() -> Any:
            return await fitting([branch(0), branch(1)], each=Budget.parse("8 output tokens"))

        assert run(search(), budget="16 output tokens").state == ["kept 0", "kept 1"]

    def test_of_nothing_it_is_nothing(self) -> None:
        async def search() -> Any:
            return await fitting([]), await fitting([], each=Budget())

        assert run(search()).state == ([], [])


class TestFirst:
    def test_the_first_to_finish_wins_and_the_rest_is_cancelled(self) -> None:
        backend = Scripted()

        async def search() -> Any:
            return await first([answers("slow", steps=30), answers("fast", steps=2), answers("middle", steps=9)])

        ended = run(search(), backend=backend)
        assert ended.state == ["fast"] and backend.steps <= 6
        assert ended.cost == backend.served and ended.cost.total("calls") == 3

    def test_winners_come_in_order_of_completion(self) -> None:
        async def search() -> Any:
            return await first([answers(i, steps=s) for i, s in enumerate((9, 1, 5, 3))], count=3)

        assert run(search()).state == [1, 3, 2]

    def test_only_accepted_results_win(self) -> None:
        async def search() -> Any:
            return await first([answers(i, steps=i) for i in range(6)], count=2, accept=lambda v: v % 2 == 1)

        assert run(search()).state == [1, 3]

    def test_fewer_if_fewer_are_accepted(self) -> None:
        async def search() -> Any:
            return await first([answers(1), answers(2)], count=5), await first([answers(1)], accept=lambda v: False)

        assert run(search()).state == ([1, 2], [])

    def test_failures_are_no_winners(self) -> None:
        async def search() -> Any:
            return await first([job(1, fail="500"), answers("ok", steps=3)])

        assert run(search()).state == ["ok"]

    @pytest.mark.timeout(10)
    def test_an_endless_race_ends_with_the_budget(self) -> None:
        async def search() -> Any:
            return await first((answers(i) for i in count()), accept=lambda v: v == -1)

        assert run(search(), window=4, budget="20 output tokens").stopped == "budget"

    def test_if_none_won_and_money_was_short_it_is_out_of_budget(self) -> None:
        async def search() -> Any:
            return await first([job(50), job(1, fail="500", steps=2)])

        assert run(search(), budget="10 output tokens").stopped == "budget"

    def test_a_mistake_is_raised(self) -> None:
        async def search() -> Any:
            return await first([fails(KeyError("bug")), answers(1, steps=9)])

        assert isinstance(run(search()).error, KeyError)


class TestWithin:
    def test_each_piece_has_its_own_sub_budget(self) -> None:
        async def spends(n: int) -> Any:
            for i in range(n):
                await job(1, tag=i)
            return n

        async def search() -> Any:
            return await within(Budget.parse("3 output tokens"), [spends(2), spends(5), spends(3)])

        outcomes = run(search(), budget="9 output tokens").state
        assert [o.value for o in outcomes] == [2, None, 3]
        assert [o.index for o in outcomes] == [0, 1, 2]
        assert [o.cost.total("output") for o in outcomes] == [2, 3, 3]
        assert isinstance(outcomes[1].error, OutOfBudget)

    def test_several_grants_are_dealt_in_order(self) -> None:
        async def search() -> Any:
            grants = [Budget.parse(f"{n} output tokens") for n in (1, 4, 2)]
            return await within(grants, [answers(n, worst=n) for n in (2, 3, 2)])

        assert [o.value for o in run(search(), budget="20 output tokens").state] == [None, 3, 2]

    def test_a_cost_is_a_grant(self) -> None:
        async def search() -> Any:
            return await within(
                Cost.of(MODEL, output=3), [answers("a", worst=3), answers("b", worst=4), job(3, reply="c")]
            )

        assert [o.value for o in run(search(), budget="20 output tokens").state] == ["a", None, "c"]

    def test_too_few_grants_are_a_mistake(self) -> None:
        async def search() -> Any:
            return await within([Budget.parse("9 output tokens")], [answers(1), answers(2), answers(3)])

        ended = run(search())
        assert isinstance(ended.error, InvalidInput) and "one for each" in str(ended.error)

    def test_what_cannot_be_set_aside_costs_nothing(self) -> None:
        async def search() -> Any:
            return await within(Budget.parse("8 output tokens"), [answers(1, worst=8, steps=3), answers(2)])

        done = run(search(), budget="10 output tokens").state
        assert done[0].value == 1 and done[1].cost == Cost() and isinstance(done[1].error, OutOfBudget)

    def test_what_is_not_spent_goes_back(self) -> None:
        async def search() -> Any:
            for _ in range(20):
                (outcome,) = await within(Budget.parse("10 output tokens"), [answers(1)])
                assert outcome.value == 1
            return (await left()).of("output")

        assert run(search(), budget="30 output tokens").state == 10

    def test_a_kind_that_only_the_sub_budget_limits_is_kept(self) -> None:
        async def search() -> Any:
            return await within(Budget.parse("2 calls"), [gather([job(1), job(1), job(1)])])

        ended = run(search(), budget="30 output tokens")
        assert isinstance(ended.state[0].error, OutOfBudget) and ended.cost.total("calls") <= 2

    def test_a_mistake_is_raised(self) -> None:
        async def search() -> Any:
            return await within(Budget(), [fails(KeyError("bug"))])

        assert isinstance(run(search()).error, KeyError)

    def test_nested_sub_budgets_nest(self) -> None:
        async def level(n: int) -> int:
            await job(1)
            if n == 0:
                return 0
            (outcome,) = await within(Budget.parse(f"{n} output tokens"), [level(n - 1)])
            return 1 + (outcome.value if outcome.value is not None else -100)

        ended = run(level(20), budget="21 output tokens")
        assert ended.state == 20 and ended.cost.total("output") == 21
        assert all(gauge.spent == 21 for gauge in ended.account.gauges)

    @pytest.mark.parametrize("text", ["5 s", "3 depth", "9 tokens, 5 s"])
    def test_depth_and_seconds_belong_to_the_run(self, text: str) -> None:
        async def search() -> Any:
            return await within(Budget.parse(text), [answers(1)])

        assert isinstance(run(search()).error, InvalidInput)


class TestKeep:
    def test_the_order_is_complete_scored_value_first(self) -> None:
        async def search() -> Any:
            kept = [
                (("partial", 0.9), {"complete": False}), (("partial too", 0.9), {"complete": False}),
                (("draft", None), {}), (("second draft", None), {}), (("scored", 0.2), {}), (("better", 0.7), {}),
                (("equal", 0.7), {}), (("worse", 0.1), {}), (("unscored", None), {}),
                (("partial best", 1.0), {"complete": False}),
            ]  # fmt: skip
            for args, options in kept:
                await keep(*args, **options)
            await job(9)

        ended = run(search(), budget="0 output tokens")
        assert (ended.state, ended.value) == ("better", 0.7)
        assert [value for _, value in ended.history] == [0.9, None, 0.2, 0.7]

    def test_not_a_number_is_no_value(self) -> None:
        async def search() -> Any:
            await keep("x", float("nan"))

        assert isinstance(run(search()).error, InvalidInput)

    def test_the_curve_has_what_it_had_cost(self) -> None:
        async def search() -> Any:
            for i in range(3):
                await job(2, 2, tag=i)
                await keep(i, float(i))
            return 2

        ended = run(search())
        assert [cost.total("output") for cost, _ in ended.history] == [2, 4, 6]
        assert ended.value == 2.0

    def test_a_returned_state_without_an_answer_does_not_hide_one_that_was_kept(self) -> None:
        async def search() -> Any:
            await keep("answer: 7", 0.5)
            return "no idea"

        ended = run(search(), answer=lambda s: s.removeprefix("answer: ") if s.startswith("answer: ") else None)
        assert (ended.answer, ended.stopped) == ("7", "finished")

    def test_an_answer_function_that_fails_is_the_error_of_the_run(self) -> None:
        ended = run(answers("x"), answer=lambda state: 1 / 0)  # type: ignore[arg-type, return-value]
        assert ended.stopped == "failed" and isinstance(ended.error, ZeroDivisionError)


class TestLeftBoundNote:
    def test_left_is_that_of_the_nearest_account(self) -> None:
        async def branch() -> Any:
            await job(2, 1)
            return (await left()).of("output")

        async def search() -> Any:
            (inner,) = await within(Budget.parse("5 output tokens"), [branch()])
            return inner.value, (await left()).of("output"), (await left()).of("calls"), (await left()).of("images")

        assert run(search(), budget="20 output tokens, 9 calls").state == (4, 19, 8, None)

    def test_a_bound_spends_nothing(self) -> None:
        async def search() -> Any:
            return await bound(job(7, 2))

        ended = run(search(), budget="0 output tokens")
        assert ended.state == Cost.of(MODEL, calls=1, output=7) and not ended.cost

    def test_a_bound_of_the_impossible_is_raised(self) -> None:
        async def unknown() -> Any:
            return await bound(Embed("x", "nobody"))

        async def unsupported() -> Any:
            return await bound(Embed("x", MODEL))

        assert isinstance(run(unknown()).error, InvalidInput)
        assert type(run(unsupported()).error).__name__ == "Unsupported"

    def test_notes_are_in_the_trace_with_their_place(self) -> None:
        async def branch() -> None:
            await note(pruned=[1, 2], reason="low", kind="a fact named like an argument")

        async def search() -> Any:
            await gather([branch()])

        (event,) = run(search()).trace.decisions("note")
        assert event.path == "search/0/branch"
        assert event.facts == {"pruned": [1, 2], "reason": "low", "kind": "a fact named like an argument"}


class TestTraps:
    def test_wait_gives_all_that_have_ended(self) -> None:
        async def search() -> Any:
            group = await start([answers(i, steps=i) for i in range(4)])
            seen = [len(await wait(group, n)) for n in (1, 2, 0, 4)]
            return seen, len(await wait(group)), len(await wait(group, 99))

        seen, every, more = run(search()).state
        assert seen == sorted(seen) and seen[0] >= 1 and every == more == 4

    def test_cancelling_twice_or_what_has_ended_does_nothing(self) -> None:
        async def search() -> Any:
            group = await start([answers(1), answers(2, steps=50)])
            await wait(group, 1)
            await cancel(group)
            await cancel(group)
            return [o.value for o in await wait(group)]

        assert run(search()).state == [1]

    def test_an_outcome_that_is_there_wakes_who_waits_for_it(self) -> None:
        backend = Scripted()

        async def search() -> Any:
            group = await start([answers(1, steps=40), answers(2)], each=[Budget()])
            outcomes = list(await wait(group, 1))
            await cancel(group)
            return [type(o.error).__name__ for o in outcomes]

        ended = run(search(), backend=backend)
        assert ended.state == ["InvalidInput"] and backend.steps < 5

    def test_two_may_wait_for_one_group(self) -> None:
        async def waiter(group: Any, n: int) -> int:
            return len(await wait(group, n))

        async def search() -> Any:
            group = await start([answers(i, steps=4 * i) for i in range(3)])
            return await gather([waiter(group, 1), waiter(group, 3)])

        assert run(search()).state == [1, 3]


class TestForeign:
    def test_what_is_awaited_must_be_ours(self) -> None:
        async def search() -> None:
            await asyncio.sleep(0)

        error = run(search()).error
        assert isinstance(error, TypeError) and "only await requests" in str(error)

    def test_it_may_be_caught_at_its_line(self) -> None:
        async def search() -> str:
            try:
                await asyncio.sleep(0)
            except TypeError:
                return await job(1, reply="went on")  # type: ignore[no-any-return]
            return "never"

        assert run(search()).state == "went on"


class TestErrorsNameTheirPlace:
    def test_the_innermost_coroutine_is_named_once(self) -> None:
        async def judge(i: int) -> float:
            await job(1)
            return 1 / i

        async def beam() -> Any:
            return await gather([answers(0), gather_judges(), answers(1)])

        async def gather_judges() -> Any:
            return await gather(judge(i) for i in (1, 0))

        error = run(beam()).error
        assert isinstance(error, ZeroDivisionError)
        assert error.__notes__ == ["in beam/1/gather_judges/1/judge"]

    def test_the_traceback_begins_in_the_method(self) -> None:
        async def search() -> Any:
            await job(1)
            raise RuntimeError("here")

        runtime = Runtime({MODEL: Scripted()})
        with pytest.raises(RuntimeError) as caught:
            runtime.run(search())
        names = [entry.name for entry in caught.traceback]
        assert names[-1] == "search" and "drain" not in names

    def test_a_deep_tree_has_a_path(self) -> None:
        async def level(n: int) -> Any:
            if n == 0:
                raise RuntimeError("at the bottom")
            return (await gather([level(n - 1)]))[0]

        error = run(level(2_000)).error
        assert isinstance(error, RuntimeError) and error.__notes__[0].count("/level") == 2_000


class TestParked:
    """`start(parked=True)` keeps sub-budgets in reserve until `resume`."""

    each = Budget.parse("5 output tokens")

    def test_what_is_parked_is_set_aside_and_runs_when_resumed(self) -> None:
        async def search() -> Any:
            group = await start([answers("reserve", worst=5)], each=self.each, parked=True)
            before = (await left()).of("output")
            await job(5, 5)
            await resume(group)
            await resume(group)
            (outcome,) = await wait(group)
            return before, outcome.value, outcome.cost.total("output")

        assert run(search(), budget="10 output tokens").state == (5, "reserve", 5)

    def test_nothing_of_it_runs_before(self) -> None:
        backend = Scripted()

        async def search() -> Any:
            await start([answers("reserve"), answers("another")], each=self.each, parked=True)
            await job(1, steps=5)
            return "done"

        ended = run(search(), backend=backend, budget="20 output tokens")
        assert ended.state == "done" and ended.cost.total("calls") == 1
        assert all(gauge.held == 0 for gauge in ended.account.gauges), "the reserve went back when its owner ended"

    def test_a_parked_reserve_can_be_cancelled_and_its_money_spent(self) -> None:
        async def search() -> Any:
            group = await start([answers("reserve", worst=5)], each=self.each, parked=True)
            await cancel(group)
            await job(8, 8)
            return (await left()).of("output")

        assert run(search(), budget="10 output tokens").state == 2

    def test_without_a_grant_there_is_nothing_to_park(self) -> None:
        async def search() -> Any:
            await start([answers(1)], parked=True)

        ended = run(search())
        assert isinstance(ended.error, InvalidInput) and "each" in str(ended.error)

    def test_what_cannot_be_set_aside_is_refused_while_parked(self) -> None:
        async def search() -> Any:
            group = await start([answers(1, worst=5), answers(2, worst=5)], each=self.each, parked=True)
            await wait(group, 1)
            await resume(group)
            return [(o.index, o.value, type(o.error).__name__) for o in await wait(group)]

        assert run(search(), budget="8 output tokens").state == [(1, None, "OutOfBudget"), (0, 1, "NoneType")]

    def test_a_cancelled_run_lets_go_of_it(self) -> None:
        runtime = Runtime({MODEL: Scripted()})

        async def search() -> Any:
            await start([answers(1)], each=self.each, parked=True)
            await job(1, steps=99)

        ended = runtime.start(search(), budget="10 output tokens")
        for _ in range(3):
            runtime.step()
        assert ended.account.gauges[0].held == 6
        ended.cancel()
        runtime.drive()
        assert ended.account.gauges[0].held == 0

    def test_waiting_for_what_nobody_resumes_is_stuck(self) -> None:
        async def search() -> Any:
            return await wait(await start([answers(1)], each=self.each, parked=True))

        ended = run(search(), budget="10 output tokens")
        assert isinstance(ended.error, Stuck) and "search/0/answers" in str(ended.error)

    def test_kept_says_whether_something_complete_was_kept(self) -> None:
        async def search() -> Any:
            seen = [await kept()]
            for complete in (False, True):
                await keep("x", complete=complete)
                seen.append(await kept())
            return seen

        assert run(search()).state == [False, False, True]
