"""The backend under the runtime: retries, budgets and cancellation with a real server below."""

import asyncio
import dataclasses

import pytest

from outthink.core.errors import BackendError
from outthink.core.refs import Prefix
from outthink.core.request import Sample
from outthink.core.runtime import Runtime
from outthink.core.verbs import first, fitting, gather
from outthink.models.openai import PRESETS, OpenAI

pytestmark = pytest.mark.loopback


@pytest.fixture
def runtime(server):
    backend = OpenAI("m", base_url=server.url, concurrency=8)
    yield Runtime({"openai/m": backend})  # which looks at the capabilities, and so probes
    backend.close()


def draw(i, **knobs):
    return Sample(Prefix("Say something."), "openai/m", seed=i, **({"max_tokens": 8} | knobs))


async def many(n, **knobs):
    return [draft.text for draft in await gather(draw(i, **knobs) for i in range(n))]


def test_a_run_costs_exactly_what_the_server_served(server, runtime):
    before = server.served
    run = runtime.run(many(20))
    assert len(set(run.state)) > 10
    assert run.cost.tokens == server.served - before
    assert run.exact and not run.overrun


def test_no_budget_is_exceeded(server, runtime):
    async def method():
        return await fitting(draw(i) for i in range(50))

    run = runtime.run(method(), budget="200 tokens")
    got = [draft for draft in run.state if draft is not None]
    assert run.cost.tokens <= 200
    assert 8 <= len(got) < 50


def test_failures_are_tried_again_by_the_runtime_and_the_failed_ones_are_paid(server, runtime):
    server.script = [
        server.reply(429, "{}", {"Retry-After": "0.01"}),
        server.reply(500, "", {"Retry-After": "0.01"}),
    ]
    run = runtime.run(many(1))
    assert len(run.state) == 1
    assert run.cost.total("calls") == 2, "429 was not served, 500 may have been"
    assert not run.exact and not run.overrun


def test_a_request_that_keeps_failing_raises_in_the_method_after_its_attempts(server, runtime):
    server.script = [server.reply(503, "loading", {"Retry-After": "0"})] * 4
    with pytest.raises(BackendError, match=r"after 4 attempts.*not ready"):
        runtime.run(many(1))


def test_a_refused_key_is_not_tried_again(server, runtime):
    before = len(server.asked)
    server.script = [server.reply(401, "{}")]
    with pytest.raises(BackendError, match="key is not accepted"):
        runtime.run(many(1))
    assert len(server.asked) == before + 1


def test_the_losers_of_a_race_are_settled_before_the_run_is_done(server, runtime):
    server.script = [server.stream([], then="hang")] * 3

    async def race():
        return await first([draw(i) for i in range(4)], count=1)

    run = runtime.run(race())
    assert len(run.state) == 1 and run.done
    assert run.cost.total("calls") == 4 and not run.exact


def test_it_works_inside_a_running_loop(server, runtime):
    async def notebook():
        asynchronous = await runtime.arun(many(5))
        return asynchronous.state, runtime.run(many(5)).state

    one, two = asyncio.run(notebook())
    assert one == two


def test_a_server_that_lies_above_its_bound_gets_no_more_requests(server):
    backend = OpenAI("m", base_url=server.url, can=PRESETS["plain"])
    server.manners = dataclasses.replace(
        server.manners, usage_of=lambda usage: usage | {"completion_tokens": 99_999, "total_tokens": 99_999}
    )
    runtime = Runtime({"openai/m": backend})
    run = runtime.start(many(1))
    runtime.drive(run)
    assert run.overrun and run.cost.tokens > 99_999 - 10
    with pytest.raises(BackendError, match="gets no more requests"):
        runtime.run(many(1))
    backend.close()
