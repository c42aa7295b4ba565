"""Traces go out as JSON lines and come back; runs repeat from them without a model."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from outthink.core import jsonl
from outthink.core.budget import Budget
from outthink.core.cost import Cost
from outthink.core.errors import InvalidInput, OutthinkError, ReplayMismatch
from outthink.core.refs import Prefix, Ref
from outthink.core.replay import Replay, replay
from outthink.core.request import Draft, Sample, Score
from outthink.core.runtime import Runtime
from outthink.core.seeds import fold
from outthink.core.trace import Decision, Served, Trace
from outthink.core.verbs import first, fitting, gather, keep, left, note, within
from outthink.core.verdict import Verdict
from outthink.models.toy import toy_backend
from outthink.testing.faulty import Faults, Faulty
from outthink.testing.programs import Player, program, small_budget
from outthink.testing.scripted import MODEL, Scripted, job
from outthink.testing.strategies import requests

TOY = "toy/t1"


async def search(n: int = 4, *, seed: int = 0) -> Any:
    root = Prefix("a problem\n")
    drafts = await fitting(Sample(root, TOY, fold(seed, i), max_tokens=40, at_least=5) for i in range(n))
    drafts = [draft for draft in drafts if draft is not None]
    for draft in drafts:
        await keep(draft.text, None)
    scores = await gather(Score(draft.prefix, TOY, step="\n") for draft in drafts)
    await note(scores=[score.value for score in scores], left=(await left()).of("tokens"))
    (fast,) = await first([Sample(d.prefix, TOY, i, max_tokens=30) for i, d in enumerate(drafts)])
    outcomes = await within(Budget.parse("20 tokens"), [Sample(fast.prefix, TOY, 9, max_tokens=10) for _ in range(2)])
    return fast.text + "".join(o.value.text for o in outcomes if o.value is not None)


def played(method: Any, backend: Any = None, **options: Any) -> Any:
    runtime = Runtime({TOY: backend if backend is not None else toy_backend(TOY, speed=3)}, retries=2)
    run = runtime.start(method, **options)
    runtime.drive()
    return run


def through_json(trace: Trace) -> Trace:
    file = io.StringIO()
    sink = jsonl.JsonlSink(file, trace.header, level=trace.level)
    for event in trace.events:
        sink(event)
    return jsonl.parse(io.StringIO(file.getvalue()))


def same(one: Any, two: Any) -> None:
    assert (two.state, two.answer, two.value, two.stopped) == (one.state, one.answer, one.value, one.stopped)
    assert two.cost == one.cost and two.gauges.depth == one.gauges.depth
    assert [_key(e) for e in two.trace.events] == [_key(e) for e in one.trace.events]


def _key(event: Any) -> Any:
    if isinstance(event, Served):
        return event.tick, event.path, event.attempt, event.status, event.cost, event.bound, event.message
    return event.tick, event.path, event.kind


BUDGETS = [None, "400 tokens", "250 tokens", "150 tokens, 9 calls", "60 tokens", "0 tokens", "5 calls, 2 depth"]


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("json", [False, True])
def test_a_run_repeats_without_its_model(budget: str | None, json: bool) -> None:
    run = played(search(), budget=budget)
    same(run, replay(through_json(run.trace) if json else run.trace, search()))


@pytest.mark.parametrize("seed", range(8))
def test_a_run_with_failures_retries_and_shuffled_replies_repeats(seed: int) -> None:
    plan = Faults(timeout=0.15, busy=0.15, refuse=0.05, silent=0.1, shuffle=True, late=1)
    run = played(search(), Faulty(toy_backend(TOY, speed=3), plan, seed=seed), budget="900 tokens")
    again = replay(through_json(run.trace), search())
    same(run, again)
    assert again.exact == run.exact


def test_a_cancelled_run_repeats() -> None:
    runtime = Runtime({TOY: toy_backend(TOY, speed=3)})
    run = runtime.start(search())
    for _ in range(6):
        runtime.step()
    run.cancel()
    runtime.drive()
    same(run, replay(through_json(run.trace), search()))


def test_a_deadline_repeats() -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.01
        return now[0]

    runtime = Runtime({TOY: toy_backend(TOY, speed=1)}, clock=clock)
    run = runtime.start(search(), budget="0.3 s")
    runtime.drive()
    assert run.stopped == "deadline"
    same(run, replay(through_json(run.trace), search()))


def test_random_programs_repeat() -> None:
    """Whatever a program does with verbs, its trace repeats it."""
    for seed in range(150):
        rng = random.Random(fold(seed, "replay"))
        node, budget = program(rng), small_budget(rng)
        backend = Faulty(Scripted(), Faults(shuffle=True, late=rng.choice((0, 2))), seed=seed)
        runtime = Runtime({MODEL: backend}, retries=1)
        run = runtime.start(Player().play(node), budget=budget)
        runtime.drive()
        try:
            again = replay(through_json(run.trace), Player().play(node))
            assert (again.stopped, again.cost, repr(again.error)) == (run.stopped, run.cost, repr(run.error))
            assert [_key(e) for e in again.trace.events] == [_key(e) for e in run.trace.events]
        except (AssertionError, OutthinkError) as error:
            error.add_note(f"seed {seed}: {node} under {budget}")
            raise


class TestAnotherProgram:
    def test_another_request_is_named_by_its_place(self) -> None:
        run = played(search())
        with pytest.raises(ReplayMismatch, match="search/1 asks"):
            replay(run.trace, changed())

    def test_more_work_than_was_recorded_is_named(self) -> None:
        run = played(search(3))
        with pytest.raises(ReplayMismatch):
            replay(run.trace, search(5))

    def test_less_work_than_was_recorded_is_named(self) -> None:
        run = played(search(5))
        with pytest.raises(ReplayMismatch):
            replay(run.trace, search(3))

    def test_without_replies_there_is_no_replay(self) -> None:
        run = played(search(), trace="costs")
        with pytest.raises(InvalidInput, match="level 'costs'"):
            Replay(run.trace)


async def _changed() -> Any:
    root = Prefix("a problem\n")
    return await fitting(Sample(root, TOY, fold(0, i) + (i == 1), max_tokens=40, at_least=5) for i in range(4))


def changed() -> Any:
    """Return the same program with another seed in its second request."""
    coro = _changed()
    coro.__name__ = "search"
    return coro


class TestJson:
    def test_a_file_is_read_as_it_was_written(self, tmp_path: Path) -> None:
        run = played(search(), budget="300 tokens")
        path = tmp_path / "trace.jsonl"
        jsonl.write(run.trace, path)
        trace = jsonl.read(path)
        assert trace.header == run.trace.header and trace.level == "full"
        assert trace.cost == run.cost and [_key(e) for e in trace.events] == [_key(e) for e in run.trace.events]
        replies = [(a.reply, b.reply) for a, b in zip(trace.served(), run.trace.served(), strict=True)]
        assert all(a == b for a, b in replies)
        again = tmp_path / "again.jsonl"
        jsonl.write(trace, again)
        assert again.read_text() == path.read_text()

    def test_a_prompt_is_written_once(self) -> None:
        long = "x" * 2_000

        async def many() -> Any:
            return await gather(Sample(Prefix(long), TOY, i, max_tokens=5) for i in range(50))

        file = io.StringIO()
        run = played(many(), sink=None)
        sink = jsonl.JsonlSink(file, run.trace.header)
        for event in run.trace.events:
            sink(event)
        assert file.getvalue().count(long) == 1

    def test_a_sink_streams_as_it_goes(self) -> None:
        file = io.StringIO()
        sizes: list[int] = []

        async def method() -> Any:
            for i in range(3):
                await job(1, tag=i)
                sizes.append(len(file.getvalue().splitlines()))

        Runtime({MODEL: Scripted()}).run(method(), sink=jsonl.JsonlSink(file, {"name": "x"}), keep_events=False)
        assert sizes == [2, 3, 4]

    @given(request=requests())
    def test_every_request_has_a_stable_digest_that_survives_the_file(self, request: Any) -> None:
        event = Served(1, "m/0", 0, request, None, Cost(), Cost(), "done")
        trace = through_json(Trace({}, [event]))
        (back,) = trace.served()
        assert jsonl.digest(back.request) == jsonl.digest(request) != ""
        assert type(request).__name__ in repr(back.request)
        assert [_key(e) for e in through_json(trace).events] == [_key(event)]

    def test_values_come_back(self) -> None:
        values = [
            None, 1, 1.5, "text", "\udc80", True, [1, [2]], (1, (2, "x")), {"a": 1}, {1: (2,)}, Cost.of("m", calls=2),
            Verdict(0.5, "ok", "why"), Ref("b", "path", 3), Prefix("p").extend("q", tokens=(1, 2)),
            Draft("t", "end", Prefix("p").extend("t"), (5,), None, (-0.5,)), [Prefix("p"), {"deep": (Prefix("p"),)}],
        ]  # fmt: skip
        events = [Served(0, "m", 0, None, value, Cost(), Cost(), "done") for value in values]
        assert [e.reply for e in through_json(Trace({}, list(events))).served()] == values

    def test_what_json_cannot_say_is_written_as_text(self) -> None:
        trace = through_json(Trace({}, [Decision(0, "m", "note", {"state": {1, 2}, "f": object})]))
        assert next(trace.decisions("note")).facts["state"] == "{1, 2}"

    def test_digest_of_nothing(self) -> None:
        assert jsonl.digest(None) == ""

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("", "empty"),
            ("{nonsense\n", "line 1: not JSON"),
            ('{"a": 1}\n', "line 1: not a trace of schema"),
            ("[]\n", "line 1: not a trace of schema"),
            ('HEAD\n{"tick": 1}\n', "line 2: not an event"),
            ("HEAD\nxx\nyy\n", "line 2: not JSON"),
            ('HEAD\n{"piece": 0, "parent": 7, "text": "", "ids": null, "of": ""}\n', "line 2"),
        ],
    )
    def test_what_is_no_trace_is_named_with_its_line(self, text: str, match: str) -> None:
        head = json.dumps({"outthink_trace": 1, "level": "full", "header": {}})
        with pytest.raises(InvalidInput, match=match):
            jsonl.parse(io.StringIO(text.replace("HEAD", head)), "file.jsonl")

    def test_a_last_line_that_was_cut_is_left_out(self, tmp_path: Path) -> None:
        run = played(search())
        path = tmp_path / "t.jsonl"
        jsonl.write(run.trace, path)
        text = path.read_text()
        path.write_text(text[: len(text) - 30])
        assert len(jsonl.read(path).events) == len(run.trace.events) - 1
