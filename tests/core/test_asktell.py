"""The same coroutine as an ask/tell object."""

from __future__ import annotations

import random
from typing import Any

import pytest

from outthink.core.asktell import AskTell, by_bytes
from outthink.core.backend import Failure
from outthink.core.cost import Cost
from outthink.core.errors import BackendError, InvalidInput
from outthink.core.refs import Prefix
from outthink.core.request import Embed, Sample
from outthink.core.runtime import Runtime
from outthink.core.verbs import first, gather, keep
from outthink.testing.scripted import MODEL, Scripted, job


async def method() -> Any:
    replies = await gather(job(3, tag=i, reply=i) for i in range(4))
    await keep("half", None)
    return [*replies, await job(2, reply="last")]


def told(request: Any) -> tuple[Any, Cost]:
    import json

    script = json.loads(request.arguments)
    return script["reply"], Cost.of(MODEL, **script["cost"])


def price(request: Any) -> Cost:
    return told(request)[1]


def test_told_in_any_order_it_ends_as_it_does_under_a_runtime() -> None:
    alone = Runtime({MODEL: Scripted()}).run(method())
    for seed in range(5):
        rng = random.Random(seed)
        search = AskTell(method(), models=[MODEL], bound=price)
        while not search.done:
            key, request = rng.choice(list(search.ask().items()))
            reply, cost = told(request)
            search.tell(key, reply, cost=cost)
        assert (search.run.state, search.run.cost) == (alone.state, alone.cost)


def test_asking_again_gives_the_same() -> None:
    search = AskTell(method(), models=[MODEL], bound=price)
    assert search.ask() == search.ask() and len(search.ask()) == 4


def test_budgets_hold() -> None:
    search = AskTell(method(), models=[MODEL], bound=price, budget="7 output tokens")
    while not search.done:
        key, request = next(iter(search.ask().items()))
        search.tell(key, *told(request)[:1], cost=told(request)[1])
    assert search.run.stopped == "budget" and search.run.cost.total("output") <= 7


def test_what_is_not_asked_cannot_be_told() -> None:
    search = AskTell(method(), models=[MODEL], bound=price)
    key = next(iter(search.ask()))
    search.tell(key, 0, cost=Cost())
    with pytest.raises(InvalidInput, match="told before"):
        search.tell(key, 0, cost=Cost())


def test_a_failure_is_told_and_may_be_tried_again() -> None:
    async def one() -> Any:
        return await job(1)

    search = AskTell(one(), models=[MODEL], bound=price)
    for attempt in range(4):
        (key,) = search.ask()
        search.tell(key, None, cost=Cost.of(MODEL, calls=1), failure=Failure("busy", retry=True))
        assert search.done == (attempt == 3)
    assert isinstance(search.run.error, BackendError) and search.run.cost.total("calls") == 4


def test_what_was_cancelled_is_still_to_be_told() -> None:
    async def race() -> Any:
        return await first([job(1, reply="a"), job(1, reply="b")])

    search = AskTell(race(), models=[MODEL], bound=price)
    one, two = search.ask()
    search.tell(one, "a", cost=Cost.of(MODEL, calls=1))
    assert search.run.stopped == "finished" and not search.done and list(search.ask()) == [two]
    search.tell(two, "b", cost=Cost.of(MODEL, calls=1))
    assert search.done and search.run.state == ["a"]


def test_bytes_bound_tokens() -> None:
    prefix = Prefix("dréi")
    assert by_bytes(Sample(prefix, "m", 0, max_tokens=7)) == Cost.of("m", calls=1, prompt=5, output=7)
    assert by_bytes(Embed("text", "m")) == Cost.of("m", calls=1)
    with pytest.raises(InvalidInput, match="max_tokens is needed"):
        by_bytes(Sample(prefix, "m", 0))


def test_it_is_a_backend_only_to_its_own_runtime() -> None:
    search = AskTell(method(), models=[MODEL], bound=price)
    assert "prefix" not in search.capabilities and search.room() > 10**6
    search.run.cancel()
    for key in list(search.ask()):
        search.tell(key, None, cost=Cost())
    assert search.done
    search.close()
