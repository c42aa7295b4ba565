"""Drivers, time, threads, retries, fairness, fences, watching: the runtime as its users see it."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from outthink.core.backend import Item, Progress, Settled
from outthink.core.budget import Budget, Card, Limit
from outthink.core.cost import Cost
from outthink.core.errors import BackendError, InvalidInput
from outthink.core.refs import Prefix, Ref
from outthink.core.request import Act, Sample, Score
from outthink.core.runtime import Runtime
from outthink.core.trace import Decision, Served
from outthink.core.verbs import first, gather, keep, start, wait, within
from outthink.models.toy import CARD, toy_backend
from outthink.testing.faulty import Faults, Faulty
from outthink.testing.scripted import MODEL, Scripted, job


async def several(n: int, steps: int = 1) -> int:
    for i in range(n):
        await job(1, steps=steps, tag=i)
        await keep(i + 1, float(i))
    return n


class Threaded:
    """A backend that is not stepped: each request is served by a thread of its own."""

    stepped = False
    capabilities = frozenset({"call"})

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.gate, self.cancelled = gate, threading.Event()
        self.post: Callable[[Sequence[Item]], None]

    def bound(self, ticket: Any, request: Any) -> Cost:
        return Cost.of(MODEL, calls=1, output=5)

    def room(self) -> int:
        return 8

    def submit(self, ticket: Any, request: Any) -> None:
        threading.Thread(target=self._work, args=(ticket,), daemon=True).start()

    def _work(self, ticket: Any) -> None:
        if self.gate is not None:
            self.gate.wait(10)
        self.post([Progress(ticket, "half")])
        self.post([Settled(ticket, "served", Cost.of(MODEL, calls=1, output=2))])

    def cancel(self, ticket: Any) -> None:
        self.cancelled.set()
        if self.gate is not None:
            self.gate.set()

    def step(self) -> Sequence[Item]:
        raise AssertionError("a backend that is not stepped was stepped")

    def attach(self, post: Callable[[Sequence[Item]], None]) -> None:
        self.post = post

    def close(self) -> None:
        pass


class TestDrivers:
    def test_run_returns_when_it_is_done(self) -> None:
        ended = Runtime({MODEL: Scripted()}).run(
            several(3), budget="9 calls", name="mine", header={"method": "several"}
        )
        assert (ended.state, ended.stopped, ended.done, ended.name) == (3, "finished", True, "mine")
        assert ended.trace.header["budget"] == "9 calls" and ended.trace.header["method"] == "several"
        assert repr(ended) == "Run('mine', finished, 3 tokens of 9 calls)"
        assert ended.gauges.depth == 3 and ended.cost.total("calls") == 3

    def test_run_raises_what_the_method_raised(self) -> None:
        async def broken() -> None:
            await job(1)
            raise KeyError("bug")

        with pytest.raises(KeyError):
            Runtime({MODEL: Scripted()}).run(broken())

    def test_drive_waits_for_those_named(self) -> None:
        runtime = Runtime({MODEL: Scripted()})
        short, long = runtime.start(several(1)), runtime.start(several(50))
        runtime.drive(short)
        assert short.done and not long.done
        runtime.drive()
        assert long.done

    def test_stepping_an_idle_runtime_does_nothing(self) -> None:
        runtime = Runtime({MODEL: Scripted()})
        runtime.step()
        runtime.drive()

    def test_arun_and_other_tasks_take_turns(self) -> None:
        ticks = 0

        async def ticker() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        async def main() -> Any:
            runtime = Runtime({MODEL: Scripted()})
            task = asyncio.create_task(ticker())
            runs = await asyncio.gather(runtime.arun(several(20)), runtime.arun(several(5)), runtime.arun(several(9)))
            task.cancel()
            return runs

        assert [ended.state for ended in asyncio.run(main())] == [20, 5, 9]
        assert ticks > 10

    def test_run_works_inside_a_running_event_loop(self) -> None:
        async def cell() -> Any:
            return Runtime({MODEL: Scripted()}).run(several(3))

        assert asyncio.run(cell()).state == 3

    def test_a_runtime_may_be_driven_by_one_loop_after_another(self) -> None:
        runtime = Runtime({MODEL: Scripted()})
        assert [asyncio.run(runtime.arun(several(n))).state for n in (1, 2)] == [1, 2]
        assert runtime.run(several(3)).state == 3

    def test_arun_raises_what_the_method_raised(self) -> None:
        async def broken() -> None:
            await job(1)
            raise KeyError("bug")

        with pytest.raises(KeyError):
            asyncio.run(Runtime({MODEL: Scripted()}).arun(broken()))

    def test_cancelling_the_task_cancels_the_run(self) -> None:
        async def main() -> Any:
            backend = Scripted()
            runtime = Runtime({MODEL: backend})
            task = asyncio.create_task(runtime.arun(several(10_000), name="mine"))
            while backend.steps < 5:
                await asyncio.sleep(0)
            (run,) = runtime.loop.runs
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await runtime.settled(run)
            return run, backend

        run, backend = asyncio.run(main())
        assert run.stopped == "cancelled" and run.done and not backend.live

    def test_serve_drives_runs_as_they_come(self) -> None:
        async def main() -> Any:
            runtime = Runtime({MODEL: Scripted()})
            server = asyncio.create_task(runtime.serve())
            await asyncio.sleep(0)
            one = await runtime.arun(several(3))
            run = runtime.start(several(4))
            await runtime.settled(run)
            server.cancel()
            with pytest.raises(asyncio.CancelledError):
                await server
            return one.state, run.state

        assert asyncio.run(main()) == (3, 4)

    def test_a_driver_that_fails_says_so_to_who_waits(self) -> None:
        class Bad(Scripted):
            def step(self) -> Sequence[Item]:
                raise RuntimeError("the backend's own bug")

        with pytest.raises(RuntimeError, match="own bug"):
            asyncio.run(Runtime({MODEL: Bad()}).arun(several(1)))
        with pytest.raises(RuntimeError, match="own bug"):
            Runtime({MODEL: Bad()}).run(several(1))

    def test_an_interrupt_cancels_and_is_raised_again(self) -> None:
        class Interrupted(Scripted):
            def step(self) -> Sequence[Item]:
                if self.steps == 3:
                    self.steps += 1
                    raise KeyboardInterrupt
                return super().step()

        runtime = Runtime({MODEL: Interrupted()})
        run = runtime.start(several(50))
        with pytest.raises(KeyboardInterrupt):
            runtime.drive()
        assert run.stopped == "cancelled" and run.state == 1
        runtime.drive()
        assert run.done

    def test_close_cancels_settles_and_closes(self) -> None:
        backend = Scripted()
        runtime = Runtime({MODEL: backend})
        run = runtime.start(several(50))
        runtime.step()
        runtime.close()
        assert run.done and run.stopped == "cancelled" and not backend.live


class TestThreads:
    def test_a_backend_in_threads_wakes_the_stepped_driver(self) -> None:
        async def search() -> Any:
            return await gather(job(1, tag=i) for i in range(20))

        ended = Runtime({MODEL: Threaded()}).run(search())
        assert ended.state == ["served"] * 20 and ended.cost.total("output") == 40

    def test_a_backend_in_threads_wakes_the_asyncio_driver(self) -> None:
        async def search() -> Any:
            return await gather(job(1, tag=i) for i in range(20))

        ended = asyncio.run(Runtime({MODEL: Threaded()}).arun(search()))
        assert ended.state == ["served"] * 20

    def test_other_threads_start_and_cancel_by_post(self) -> None:
        gate = threading.Event()
        backend = Threaded(gate)
        runtime = Runtime({MODEL: backend})
        run = runtime.start(several(5))
        threading.Timer(0.05, lambda: runtime.post(run.cancel)).start()
        runtime.drive()
        assert run.stopped == "cancelled" and backend.cancelled.is_set()

    def test_runs_may_come_by_post_while_served(self) -> None:
        async def main() -> Any:
            runtime = Runtime({MODEL: Threaded()})
            server = asyncio.create_task(runtime.serve())
            await asyncio.sleep(0)
            box: list[Any] = []
            arrived = asyncio.Event()
            loop = asyncio.get_running_loop()

            def begin() -> None:
                box.append(runtime.start(several(2)))
                loop.call_soon_threadsafe(arrived.set)

            threading.Thread(target=runtime.post, args=(begin,)).start()
            await arrived.wait()
            await runtime.settled(box[0])
            server.cancel()
            return box[0]

        assert asyncio.run(main()).state == 2


class TestTime:
    def test_a_deadline_is_an_outcome_and_what_was_kept_is_the_state(self) -> None:
        now = [0.0]

        class Slow(Scripted):
            def step(self) -> Sequence[Item]:
                now[0] += 1
                return super().step()

        runtime = Runtime({MODEL: Slow()}, clock=lambda: now[0])
        run, free = runtime.start(several(99), budget="10 s"), runtime.start(several(20))
        runtime.drive()
        assert run.stopped == "deadline" and 3 <= run.state <= 6 and run.error is None
        assert 10 <= run.gauges.seconds <= 12
        assert free.stopped == "finished"

    def test_a_deadline_wakes_a_driver_that_sleeps(self) -> None:
        backend = Threaded(threading.Event())
        run = Runtime({MODEL: backend}).run(several(3), budget="0.05 s")
        assert run.stopped == "deadline" and backend.cancelled.is_set()

    def test_a_deadline_wakes_asyncio(self) -> None:
        backend = Threaded(threading.Event())
        run = asyncio.run(Runtime({MODEL: backend}).arun(several(3), budget="0.05 s"))
        assert run.stopped == "deadline" and backend.cancelled.is_set()

    def test_depth_limits_chains_not_width(self) -> None:
        async def wide() -> Any:
            await gather(job(1, tag=i) for i in range(50))
            return "wide"

        runtime = Runtime({MODEL: Scripted()})
        assert runtime.run(wide(), budget="1 depth").state == "wide"
        ended = runtime.run(several(9), budget="4 depth")
        assert (ended.stopped, ended.state, ended.gauges.depth) == ("budget", 4, 4)

    def test_depth_follows_who_waits_for_whom(self) -> None:
        async def search() -> Any:
            await gather([several(3), several(5), job(1)])
            await job(1)

        assert Runtime({MODEL: Scripted()}).run(search()).gauges.depth == 6


class TestRetries:
    def test_a_retry_is_another_attempt_paid_and_traced(self) -> None:
        backend = Faulty(Scripted(), Faults(timeout=0.5), seed=3)
        ended = Runtime({MODEL: backend}, retries=10).run(several(9), budget="1k output tokens")
        attempts = [(e.path, e.attempt, e.status, e.retry) for e in ended.trace.served()]
        assert ended.state == 9 and len(attempts) > 9
        assert [a for _, a, status, _ in attempts if status == "done"] != [0] * 9
        assert all(retry == (status == "failed") for _, _, status, retry in attempts)
        assert ended.cost.total("output") == len(attempts) and not ended.exact

    def test_attempts_are_limited(self) -> None:
        runtime = Runtime({MODEL: Scripted()}, retries=2)

        async def search() -> Any:
            await job(1, 1, fail="busy", retry=True)

        run = runtime.start(search())
        runtime.drive()
        assert isinstance(run.error, BackendError) and "after 3 attempts: busy" in str(run.error)
        assert run.cost.total("calls") == 3

    def test_another_attempt_must_be_affordable(self) -> None:
        async def search() -> Any:
            await job(5, 5, fail="busy", retry=True)

        run = Runtime({MODEL: Scripted()}).run(search(), budget="12 output tokens")
        assert run.stopped == "budget" and run.cost.total("output") == 10

    def test_the_wait_before_it_is_kept(self) -> None:
        now, slept = [0.0], []

        class Busy(Scripted):
            def step(self) -> Sequence[Item]:
                items = super().step()
                return [
                    Settled(i.ticket, None, i.cost, i.failure.__class__("wait", retry=True, after=7.0))
                    if isinstance(i, Settled) and i.failure and self.steps < 4 else i
                    for i in items
                ]  # fmt: skip

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            now[0] += seconds

        async def search() -> Any:
            try:
                await job(1, fail="busy", retry=True)
            except BackendError:
                return "gave up"

        run = Runtime({MODEL: Busy()}, clock=lambda: now[0], sleep=sleep, retries=2).run(search())
        assert run.state == "gave up" and 7.0 in slept

    def test_a_cancelled_retry_costs_nothing_more(self) -> None:
        now = [0.0]

        async def search() -> Any:
            return await first([job(1, 1, fail="busy", retry=True), several(6)])

        class After(Scripted):
            def step(self) -> Sequence[Item]:
                return [
                    Settled(i.ticket, None, i.cost, i.failure.__class__("busy", retry=True, after=99.0))
                    if isinstance(i, Settled) and i.failure and i.failure.retry else i
                    for i in super().step()
                ]  # fmt: skip

        runtime = Runtime({MODEL: After()}, clock=lambda: now[0])
        run = runtime.run(search(), budget="100 output tokens")
        assert run.state == [6] and run.cost.total("calls") == 7 and not runtime.loop.settler.later
        assert all(gauge.held == 0 for gauge in run.account.gauges)

    def test_an_act_is_never_tried_again(self) -> None:
        class World(Scripted):
            def bound(self, ticket: Any, request: Any) -> Cost:
                return Cost.of(MODEL, calls=1, tools=1)

            def submit(self, ticket: Any, request: Any) -> None:
                super().submit(ticket, job(0, fail="the door is stuck", retry=True))

        async def search() -> Any:
            await Act(Ref(MODEL, "session"), "open the door", MODEL)

        runtime = Runtime({MODEL: World()})
        acted = runtime.start(search())
        runtime.drive()
        assert isinstance(acted.error, BackendError) and acted.cost.total("calls") == 1


class TestFairness:
    @staticmethod
    def served_in_order(weights: dict[str, float], asked: int = 40) -> list[str]:
        backend = Scripted(slots=2)
        runtime = Runtime({MODEL: backend})

        async def wide(n: int) -> Any:
            return await gather(job(1, tag=i) for i in range(n))

        for name, weight in weights.items():

            async def method(n: int = asked) -> Any:
                return await wide(n)

            method.__name__ = method.__qualname__ = name
            runtime.start(method(), weight=weight, name=name)
        runtime.drive()
        return [path.split("/")[0] for what, path in backend.log if what == "submit"]

    def test_equal_runs_take_turns(self) -> None:
        order = self.served_in_order({"a": 1, "b": 1})
        assert abs(order[:20].count("a") - 10) <= 1

    def test_a_weight_is_a_share(self) -> None:
        order = self.served_in_order({"a": 3, "b": 1})
        assert 28 <= order[:40].count("a") <= 32

    def test_a_run_that_comes_late_does_not_catch_up(self) -> None:
        backend = Scripted(slots=1)
        runtime = Runtime({MODEL: backend})
        runtime.start(several(30), name="a")
        for _ in range(30):
            runtime.step()
        late = runtime.start(gather_of(20), name="b")
        early = runtime.start(gather_of(20), name="c")
        runtime.drive(late)
        assert early.cost.total("calls") >= 17
        runtime.drive()

    def test_the_room_of_a_backend_is_kept(self) -> None:
        order = self.served_in_order({"a": 1}, asked=9)  # Scripted asserts that it is never over its slots
        assert len(order) == 9

    def test_a_full_backend_does_not_stop_another(self) -> None:
        full, free = Scripted(slots=1), Scripted()
        runtime = Runtime({MODEL: full, "other": free})

        async def search() -> Any:
            group = await start([gather_of(50), gather_of(5, model="other")], each=Budget())
            (outcome,) = await wait(group, 1)
            return len(outcome.value)

        assert runtime.run(search()).state == 5, "accounts never block each other"

    @pytest.mark.parametrize(("knob", "value"), [("window", 0), ("retries", -1)])
    def test_knobs_are_checked(self, knob: str, value: int) -> None:
        with pytest.raises(InvalidInput, match=knob):
            Runtime({}, **{knob: value})


async def gather_of(n: int, model: str = MODEL) -> Any:
    return await gather(job(1, tag=i, model=model) for i in range(n))


class TestFences:
    def test_a_backend_above_its_bound_is_booked_flagged_and_fenced(self) -> None:
        backend = Faulty(Scripted(), Faults(over=1.0))

        async def search() -> Any:
            await job(3)
            await keep("before the fence")
            await job(3)

        runtime = Runtime({MODEL: backend})
        ended = runtime.start(search(), budget="5 output tokens")
        runtime.drive()
        assert ended.overrun and ended.cost.total("output") == 6
        assert isinstance(ended.error, BackendError) and "gets no more requests" in str(ended.error)
        assert ended.state == "before the fence"

    def test_luck_is_no_overrun(self) -> None:
        class Lucky(Scripted):
            def step(self) -> Sequence[Item]:
                more = Cost.of(MODEL, cached=50, device_ns=10**9, recomputed=7)
                return [Settled(i.ticket, i.reply, i.cost + more) for i in super().step() if isinstance(i, Settled)]

        ended = Runtime({MODEL: Lucky()}).run(several(2), budget="9 tokens")
        assert not ended.overrun and ended.cost.total("cached") == 100

    def test_a_backend_that_settles_twice_is_found_out(self) -> None:
        class Twice(Scripted):
            def step(self) -> Sequence[Item]:
                return [item for item in super().step() for _ in range(2)]

        with pytest.raises(AssertionError, match="twice"):
            Runtime({MODEL: Twice()}).run(several(1))

    def test_a_submit_that_raises_is_a_failure_of_the_backend(self) -> None:
        class Bad(Scripted):
            def submit(self, ticket: Any, request: Any) -> None:
                raise RuntimeError("cannot")

        runtime = Runtime({MODEL: Bad()})
        run = runtime.start(several(1), budget="5 calls")
        runtime.drive()
        assert isinstance(run.error, BackendError) and "cannot" in str(run.error)
        assert run.account.gauges[0].held == 0


class TestGauges:
    def test_kv_peak_is_the_most_that_was_held_for_the_run_at_one_moment(self) -> None:
        async def samples(n: int) -> Any:
            return await gather(Sample(Prefix("p\n"), "toy/t1", i, max_tokens=10) for i in range(n))

        runtime = Runtime({"toy/t1": toy_backend("toy/t1", speed=4), MODEL: Scripted()})
        three, two = runtime.start(samples(3)), runtime.start(samples(2))
        other = runtime.start(several(2))
        runtime.drive()
        assert three.gauges.kv_peak == 3 * (2 + 10) and two.gauges.kv_peak == 2 * (2 + 10)
        assert other.gauges.kv_peak == 0


class TestWatching:
    def test_watchers_get_every_event_and_streamed_text(self) -> None:
        runtime = Runtime({"toy/t1": toy_backend("toy/t1", speed=4)})

        async def search() -> Any:
            return await Sample(Prefix("p\n"), "toy/t1", 1)

        seen: list[Any] = []
        run = runtime.start(search())
        stop = run.subscribe(seen.append)
        runtime.drive()
        stop()
        stop()
        assert "".join(i.text for i in seen if isinstance(i, Progress)) == run.state.text
        assert [i for i in seen if not isinstance(i, Progress)] == run.trace.events
        assert isinstance(seen[-1], Decision) and seen[-1].kind == "end"

    def test_asyncio_watchers_get_streamed_text_too(self) -> None:
        async def search() -> Any:
            return await Sample(Prefix("p\n"), "toy/t1", 1)

        async def main() -> Any:
            runtime = Runtime({"toy/t1": toy_backend("toy/t1", speed=4)})
            run = runtime.start(search())
            task = asyncio.create_task(runtime.settled(run))
            seen = [item async for item in run.watch()]
            await task
            return run, seen

        run, seen = asyncio.run(main())
        assert "".join(i.text for i in seen if isinstance(i, Progress)) == run.state.text
        assert isinstance(seen[0], Progress) and isinstance(seen[-1], Decision)

    def test_a_backend_is_told_whether_anybody_watches(self) -> None:
        backend = toy_backend("toy/t1", speed=4)
        runtime = Runtime({"toy/t1": backend})

        async def search() -> Any:
            return await Sample(Prefix("p\n"), "toy/t1", 1)

        run, seen = runtime.start(search()), []
        runtime.step()
        (ticket,) = backend.live
        assert not ticket.watched and not any(isinstance(item, Progress) for item in backend.step())
        stop = run.subscribe(lambda item: seen.append(item) if isinstance(item, Progress) else None)
        assert ticket.watched
        runtime.step()
        stop()
        assert not ticket.watched
        runtime.drive()
        assert "".join(item.text for item in seen) == run.state.text[8:12], "what was written while somebody watched"

    def test_watch_is_an_async_iterator_that_ends(self) -> None:
        async def main() -> Any:
            runtime = Runtime({MODEL: Scripted()})
            run = runtime.start(several(3))
            task = asyncio.create_task(runtime.settled(run))
            seen = [item async for item in run.watch()]
            await task
            return run, seen

        run, seen = asyncio.run(main())
        assert seen == run.trace.events
        assert sum(isinstance(item, Served) for item in seen) == 3

    def test_a_watcher_may_cancel(self) -> None:
        backend = Scripted()
        runtime = Runtime({MODEL: backend})
        run = runtime.start(gather_of(6))
        run.subscribe(lambda item: run.cancel())
        runtime.drive()
        assert run.stopped == "cancelled" and not backend.live and run.cost == backend.served

    def test_when_done_is_called_once_or_now(self) -> None:
        runtime = Runtime({MODEL: Scripted()})
        run = runtime.start(several(1))
        called: list[str] = []
        run.when_done(lambda: called.append("then"))
        runtime.drive()
        run.when_done(lambda: called.append("now"))
        assert called == ["then", "now"]

    def test_cancelling_what_has_ended_changes_nothing(self) -> None:
        run = Runtime({MODEL: Scripted()}).run(several(2))
        run.cancel()
        assert run.stopped == "finished" and run.state == 2


class TestStart:
    def test_a_function_is_not_a_coroutine(self) -> None:
        with pytest.raises(InvalidInput, match="call the method"):
            Runtime({}).start(several)  # type: ignore[arg-type]

    @pytest.mark.parametrize("options", [{"budget": "5 parsecs"}, {"weight": 0}, {"account": "team"}])
    def test_what_is_wrong_is_said_before_anything_starts(self, options: dict[str, Any]) -> None:
        with pytest.raises(InvalidInput):
            Runtime({MODEL: Scripted()}).start(several(1), **options)

    def test_no_backend_at_all(self) -> None:
        async def nothing() -> str:
            return "done"

        assert Runtime({}).run(nothing()).state == "done"

    def test_money_and_flops_need_a_card(self) -> None:
        runtime = Runtime({"toy/t1": toy_backend("toy/t1"), MODEL: Scripted()}, cards={"toy/t1": CARD, MODEL: Card()})

        async def search() -> Any:
            return await Sample(Prefix("p\n"), "toy/t1", 1)

        ended = runtime.run(search(), budget="$0.0001, 1e12 flops")
        assert ended.cost.total("output") == 68
        for budget in ("$1", "1e9 flops"):
            with pytest.raises(InvalidInput, match=r"card|Card"):
                runtime.run(several(1), budget=budget)

    def test_an_answer_that_is_none_is_no_answer(self) -> None:
        ended = Runtime({MODEL: Scripted()}).run(several(1), answer=lambda state: None)
        assert (ended.stopped, ended.answer, ended.state) == ("no answer", None, 1)
        nothing = Runtime({MODEL: Scripted()}).run(gather_of(0), answer=str)
        assert nothing.answer == "[]"

    def test_without_a_way_to_read_answers_a_state_is_one(self) -> None:
        runtime = Runtime({MODEL: Scripted()})
        assert runtime.run(several(2)).answer == "2"

        async def text() -> str:
            return "text"

        assert runtime.run(text()).answer == "text"
        run = runtime.start(several(1))
        assert run.answer is None and run.stopped is None and "running" in repr(run)
        runtime.drive()

    def test_trace_levels(self) -> None:
        events: list[Any] = []
        runtime = Runtime({MODEL: Scripted()})
        full = runtime.run(several(1), trace="full", sink=events.append)
        assert events == full.trace.events
        for level, request, reply in (("costs", False, False), ("requests", True, False), ("full", True, True)):

            async def search() -> Any:
                return await job(1, reply="r")

            (event,) = runtime.run(search(), trace=level).trace.served()
            assert (event.request is not None, event.reply is not None) == (request, reply)
        silent = runtime.run(several(1), trace=None, sink=events.append)
        assert silent.trace is None and len(events) == len(full.trace.events)
        assert runtime.run(several(1), sink=events.append, keep_events=False).trace is None
        assert len(events) == 2 * len(full.trace.events)


class TestPrefixes:
    def test_what_a_run_has_sent_is_not_paid_again(self) -> None:
        runtime = Runtime({"toy/t1": toy_backend("toy/t1")})
        prompt = Prefix("a prompt of 25 characters")

        async def search() -> Any:
            drafts = await gather(Sample(prompt, "toy/t1", i, max_tokens=10) for i in range(8))
            await gather(Sample(draft.prefix, "toy/t1", 0, max_tokens=10) for draft in drafts)
            await Score(drafts[0].prefix.extend("xyz"), "toy/t1")

        ended = runtime.run(search())
        assert ended.cost.total("prompt") == 25 + 3
        again = runtime.run(search())
        assert again.cost == ended.cost, "another run pays its own prompt"

    def test_without_the_capability_it_is_paid_every_time(self) -> None:
        class Forgetful:
            def __init__(self) -> None:
                self.inner = toy_backend("toy/t1")
                self.stepped, self.capabilities = True, self.inner.capabilities - {"prefix"}

            def __getattr__(self, name: str) -> Any:
                return getattr(self.inner, name)

        async def search() -> Any:
            return await gather(Sample(Prefix("12345"), "toy/t1", i, max_tokens=10) for i in range(8))

        ended = Runtime({"toy/t1": Forgetful()}).run(search())
        assert ended.cost.total("prompt") == 40


def test_one_backend_may_stand_under_several_names() -> None:
    backend = Scripted(slots=3)
    runtime = Runtime({"a": backend, "b": backend})

    async def search() -> Any:
        return await gather(job(1, model=name, tag=i) for i in range(5) for name in ("a", "b"))

    ended = runtime.run(search())
    assert {m: u["calls"] for m, u in ended.cost.nonzero().items()} == {"a": 5, "b": 5}


def test_ten_thousand_early_stops_leave_nothing() -> None:
    """Law 6: what is cancelled early leaves neither a ticket nor a reservation, and memory does not grow."""
    backend = Scripted()
    runtime = Runtime({MODEL: backend})
    jobs = [job(2, steps=1 + i, tag=i) for i in range(8)]

    async def race() -> Any:
        return await first(jobs)

    def objects(races: int) -> int:
        for _ in range(races):
            run = runtime.run(race(), budget="50 output tokens", trace=None)
            assert all(gauge.held == 0 for gauge in run.account.gauges)
        backend.log.clear()
        backend.costs.clear()
        gc.collect()
        return len(gc.get_objects())

    before = objects(100)
    after = objects(1_430)  # of eight requests each seven are stopped: 10,010
    assert after - before < 200, f"{after - before} objects more"
    assert not backend.live and not runtime.loop.runs


def test_seconds_and_depth_do_not_count_as_amounts() -> None:
    async def search() -> Any:
        group = await start([several(2)], each=Budget((Limit("calls", 2),)))
        (outcome,) = await wait(group)
        return outcome.value, (await within(Cost(), [several(0)]))[0].value

    assert Runtime({MODEL: Scripted()}).run(search(), budget="9 calls, 99 s, 99 depth").state == (2, 0)
