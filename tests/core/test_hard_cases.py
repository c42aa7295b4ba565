"""Where earlier designs broke: starvation, nested keep, shared accounts, big requests, orphans, circles."""

from __future__ import annotations

from typing import Any

import pytest

from outthink.core.bank import MemoryBank
from outthink.core.budget import Budget
from outthink.core.cost import Cost
from outthink.core.errors import Cancelled, OutOfBudget, Stuck
from outthink.core.refs import Prefix
from outthink.core.request import Sample
from outthink.core.runtime import Runtime
from outthink.core.seeds import fold
from outthink.core.verbs import bound, cancel, fitting, gather, keep, start, wait, within
from outthink.models.toy import toy_backend
from outthink.testing.faulty import Faults, Faulty
from outthink.testing.scripted import MODEL, Scripted, job


def run(method: Any, backend: Any = None, **options: Any) -> Any:
    backend = backend if backend is not None else Scripted()
    runtime = Runtime({MODEL: backend})
    run = runtime.start(method, **options)
    runtime.drive()
    assert all(gauge.held == 0 and gauge.spent <= gauge.cap for gauge in run.account.gauges)
    return run


async def lines(count: int, worst: int = 10, cost: int = 5) -> int:
    for i in range(count):
        await job(worst, cost, tag=i)
    return count


class TestStarvation:
    """Budget for k whole branches, 64 asked for: without sub-budgets all starve in their first steps."""

    @pytest.mark.parametrize("k", [1, 4, 10, 20])
    @pytest.mark.parametrize("length", [3, 8, 16])
    def test_what_is_set_aside_can_finish(self, k: int, length: int) -> None:
        each = Budget.parse(f"{10 * length} output tokens")

        async def search() -> Any:
            return await fitting((lines(length) for _ in range(64)), each=each)

        done = run(search(), budget=f"{10 * length * k} output tokens").state
        finished = [value for value in done if value is not None]
        assert len(finished) >= k
        assert len(finished) >= 2 * k - 2, "what a branch does not use starts others"

    def test_without_it_they_starve(self) -> None:
        """The reason for `each`: kept, so that the difference stays visible."""

        async def search() -> Any:
            return await fitting([lines(8) for _ in range(64)])

        ended = run(search(), budget="800 output tokens")
        assert ended.stopped == "budget" and ended.state is None

    def test_what_a_bound_costs_can_be_set_aside(self) -> None:
        async def branch(seed: int) -> Any:
            return await Sample(Prefix("p p=0.9\n"), "toy/t1", seed, max_tokens=80)

        async def search() -> Any:
            cost = await bound(Sample(Prefix("p p=0.9\n"), "toy/t1", 0, max_tokens=80))
            return await fitting([branch(i) for i in range(9)], each=cost)

        runtime = Runtime({"toy/t1": toy_backend("toy/t1")})
        done = runtime.run(search(), budget="300 tokens").state
        assert sum(draft is not None for draft in done) >= 3


def test_a_nested_keep_stays_with_its_coroutine() -> None:
    """A judge that is a best-of-N keeps its critiques; the run that is interrupted returns a draft."""

    async def judge(draft: str) -> float:
        for i in range(4):
            await keep(f"critique {i} of {draft}", 0.99)
            await job(1, tag=i)
        return 0.5

    async def search() -> str:
        for i in range(9):
            await job(1)
            await keep(f"draft {i}", None)
            (value,) = await gather([judge(f"draft {i}")])  # started as work: a search of its own
            await keep(f"draft {i}", value + i / 100)
        return "never"

    ended = run(search(), budget="13 output tokens")
    assert ended.stopped == "budget"
    assert ended.state == "draft 1" and ended.value == pytest.approx(0.51)


def test_a_branch_that_is_cut_yields_what_it_kept() -> None:
    async def branch(i: int) -> str:
        await keep(f"half of {i}", 0.1 * i)
        await lines(9, worst=1, cost=1)
        return f"all of {i}"

    async def search() -> Any:
        return await within(Budget.parse("3 output tokens"), [branch(0), branch(1)])

    ended = run(search(), budget="100 output tokens")
    for i, outcome in enumerate(ended.state):
        assert outcome.value is None and outcome.kept == outcome.best == f"half of {i}"
        assert isinstance(outcome.error, OutOfBudget) and outcome.cost.total("output") == 3


@pytest.mark.parametrize("order", range(6))
def test_a_tight_budget_is_deterministic_when_it_is_set_aside(order: int) -> None:
    async def search() -> Any:
        return await fitting(
            [lines(3, worst=10, cost=1 + i % 10) for i in range(12)], each=Budget.parse("30 output tokens")
        )

    def outcome(backend: Any) -> Any:
        ended = run(search(), backend, budget="120 output tokens")
        return ended.state, ended.cost

    few = Budget.parse("30 output tokens")
    assert few.cap("output") == 30
    shuffled = outcome(Faulty(Scripted(), Faults(shuffle=True), seed=order))
    assert shuffled[1].total("output") <= 120
    assert outcome(Faulty(Scripted(), Faults(shuffle=True), seed=order)) == shuffled


class TestSharedAccount:
    """Problems under one account take leases, so that each has the answer and cost it has alone."""

    def test_leases_make_together_as_alone(self) -> None:
        async def problem(i: int) -> int:
            total = 0
            for _ in range(9):
                await job(10, 3 + i)
                total += 3 + i
                await keep(total, None)
            return total

        alone = [run(problem(i), budget="40 output tokens") for i in range(3)]
        bank = MemoryBank({"team": Budget.parse("120 output tokens")})
        runtime = Runtime({MODEL: Scripted()}, bank=bank)
        runs = [runtime.start(problem(i), budget="40 output tokens", account="team") for i in range(3)]
        assert bank.left("team") == {"output": 0}
        with pytest.raises(OutOfBudget, match="0 left in 'team'"):
            runtime.start(problem(3), budget="1 output tokens", account="team")
        runtime.drive()
        assert [(r.state, r.cost) for r in runs] == [(r.state, r.cost) for r in alone]
        spent = sum(r.cost.total("output") for r in runs)
        assert bank.left("team") == {"output": 120 - spent}


class TestBigRequest:
    """One 16k request among small ones: other accounts do not wait for it, and it gets its turn."""

    def test_a_big_request_blocks_its_own_account_only(self) -> None:
        async def small(i: int) -> int:
            return await lines(2, worst=10, cost=10)

        async def big() -> str:
            await job(1600, 1600, steps=1)
            return "big"

        async def search() -> Any:
            # the small ones have accounts of their own, so the big one's wait is not theirs
            group = await start([small(i) for i in range(50)], each=Budget.parse("20 output tokens"))
            try:
                await big()
            finally:
                done = await wait(group)
            return len(done)

        ended = run(search(), budget="2600 output tokens")
        assert ended.state == 50 and ended.cost.total("output") == 2600

    def test_within_an_account_it_is_first_come_first_served(self) -> None:
        backend = Scripted()
        sizes = [3, 3, 9, 1, 1]

        async def search() -> Any:
            return await gather(job(size, size, steps=1, tag=i) for i, size in enumerate(sizes))

        ended = run(search(), backend, budget="17 output tokens")
        assert ended.stopped == "finished"
        assert [path for what, path in backend.log if what == "submit"] == [f"search/{i}" for i in range(5)]

    def test_a_head_that_frees_money_lets_the_next_one_pass_in_the_same_step(self) -> None:
        """A cancelled head does not make those behind it wait for another settlement."""
        backend = Scripted()

        async def search() -> Any:
            long = await start([job(6, 6, steps=50)])
            head = await start([job(9, 9)])
            small = await start([job(1, 1, steps=0)])
            await wait(await start([job(0, 0, steps=0, tag="tick")]), 0)
            await cancel(head)
            done = await wait(small)
            await cancel(long)
            return len(done)

        ended = run(search(), backend, budget="10 output tokens")
        assert ended.state == 1
        assert backend.steps <= 4, "the small request waited for the long one"


class TestOrphans:
    def test_work_that_nobody_waits_for_ends_with_its_coroutine_and_is_booked(self) -> None:
        backend = Scripted()

        async def search() -> str:
            await start([job(5, 4, steps=9, late=2) for _ in range(4)])
            await job(1, 1, steps=3)
            return "done"

        ended = run(search(), backend)
        assert ended.state == "done"
        assert ended.cost == backend.served and ended.cost.total("calls") == 5
        assert [e.status for e in ended.trace.served()].count("cancelled") == 4
        assert not backend.live

    def test_a_run_is_done_only_when_cancelled_work_has_settled(self) -> None:
        backend = Scripted()
        runtime = Runtime({MODEL: backend})

        async def search() -> str:
            await start([job(5, 5, steps=99, late=7)])
            await job(1)
            return "done"

        ended = runtime.start(search(), budget="50 output tokens")
        while ended.stopped is None:
            runtime.step()
        assert not ended.done and backend.live, "it has stopped, its cancelled work has not"
        assert ended.account.gauges[0].held == 5
        runtime.drive()
        assert ended.done and not backend.live and ended.account.gauges[0].held == 0

    def test_money_of_cancelled_work_is_reserved_until_it_settles(self) -> None:
        async def search() -> Any:
            group = await start([job(8, 8, steps=99, late=5)])
            await wait(await start([job(0, tag="wait for dispatch")]))
            await cancel(group)
            return await job(10, 1)

        backend = Scripted()
        ended = run(search(), backend, budget="15 output tokens")
        assert ended.stopped == "no answer" and ended.error is None, "it had to wait, and was not refused"
        assert backend.log[-2:] == [("submit", "search/2"), ("settle", "search/2")]


class TestStuck:
    def test_waiting_for_oneself_is_named(self) -> None:
        box: list[Any] = []

        async def child() -> Any:
            await job(1)
            return await wait(box[0])

        async def search() -> Any:
            box.append(await start([child(), lines(2)]))
            return await wait(box[0])

        ended = run(search())
        assert ended.stopped == "failed" and isinstance(ended.error, Stuck)
        assert "search/0/child" in str(ended.error)

    def test_two_that_wait_for_each_other_are_named(self) -> None:
        groups: dict[str, Any] = {}

        async def left() -> Any:
            groups["left"] = await start([waits_for("right")])
            return await wait(groups["left"])

        async def right() -> Any:
            groups["right"] = await start([waits_for("left")])
            return await wait(groups["right"])

        async def waits_for(other: str) -> Any:
            await job(1)
            return await wait(groups[other])

        async def search() -> Any:
            return await gather([left(), right()])

        ended = run(search())
        assert isinstance(ended.error, Stuck)
        assert "search/0/left/0/waits_for" in str(ended.error) and "search/1/right/0/waits_for" in str(ended.error)

    def test_other_runs_go_on(self) -> None:
        box: list[Any] = []

        async def circle() -> Any:
            box.append(await start([again()]))
            return await wait(box[0])

        async def again() -> Any:
            await job(1)
            return await wait(box[0])

        runtime = Runtime({MODEL: Scripted()})
        stuck, fine = runtime.start(circle()), runtime.start(lines(5))
        runtime.drive()
        assert isinstance(stuck.error, Stuck) and fine.stopped == "finished" and fine.state == 5

    def test_a_branch_with_a_sub_budget_may_wait_for_one_that_needs_money(self) -> None:
        """Not a deadlock: who cannot be paid is refused, and the one that waits goes on."""
        box: list[Any] = []

        async def holder() -> str:
            outcomes = await wait(box[0])
            return type(outcomes[0].error).__name__

        async def search() -> Any:
            held = await start([holder()], each=Budget.parse("6 output tokens"))
            box.append(await start([job(6)]))
            (outcome,) = await wait(held)
            return outcome.value

        assert run(search(), budget="10 output tokens").state == "OutOfBudget"

    def test_whoever_waits_for_what_somebody_else_cancels_is_told(self) -> None:
        async def waiter(group: Any) -> str:
            try:
                await wait(group)
            except Cancelled as error:
                return str(error)
            return "no"

        async def search() -> Any:
            group = await start([job(1, steps=50)])
            watching = await start([waiter(group)])
            await job(1)
            await cancel(group)
            return (await wait(watching))[0].value

        assert "search/1/waiter waited for work that search started" in run(search()).state


class TestClip:
    """`Sample(max_tokens=None)` means what is left; `at_least` allows a cut."""

    @staticmethod
    def toy(**knobs: Any) -> Runtime:
        return Runtime({"toy/t1": toy_backend("toy/t1", **knobs)})

    @pytest.mark.parametrize("left", [5, 20, 60])
    def test_what_is_left_is_what_is_asked_for(self, left: int) -> None:
        async def search() -> Any:
            return await Sample(Prefix("12345\n"), "toy/t1", 1)

        ended = self.toy().run(search(), budget=f"{6 + left} tokens")
        assert len(ended.state.text) == left and ended.state.finish == "length"
        (clip,) = ended.trace.decisions("clip")
        assert clip.facts["max_tokens"] == left

    def test_a_cut_is_never_below_at_least(self) -> None:
        async def search() -> Any:
            return await Sample(Prefix("12345\n"), "toy/t1", 1, max_tokens=64, at_least=10)

        assert len(self.toy().run(search(), budget="16 tokens").state.text) == 10
        assert self.toy().run(search(), budget="15 tokens").stopped == "budget"
        assert len(self.toy().run(search(), budget="70 tokens").state.text) == 64

    def test_without_leave_nothing_is_cut(self) -> None:
        async def search() -> Any:
            return await Sample(Prefix("12345\n"), "toy/t1", 1, max_tokens=64)

        assert self.toy().run(search(), budget="69 tokens").cost == Cost()

    def test_a_cut_waits_until_nothing_can_be_given_back(self) -> None:
        """A sample that fits once its sibling has settled is not cut."""

        async def search() -> Any:
            return await gather(
                Sample(Prefix(f"{i}\n"), "toy/t1", fold(0, i), max_tokens=50, at_least=1, stop=("\n",))
                for i in range(2)
            )

        ended = self.toy().run(search(), budget="70 tokens")
        assert all(draft.text.endswith("\n") for draft in ended.state)
        assert not list(ended.trace.decisions("clip"))
