"""The faulty backend does what its plan says, the same for every order of events."""

from __future__ import annotations

from typing import Any

import pytest

from outthink.core.budget import Budget
from outthink.core.errors import BackendError, InvalidInput
from outthink.core.refs import Prefix
from outthink.core.request import Sample, Score
from outthink.core.runtime import Runtime
from outthink.core.verbs import first, gather, within
from outthink.models.toy import toy_backend
from outthink.testing.faulty import FATES, Faults, Faulty
from outthink.testing.scripted import MODEL, Scripted, job


def run(plan: Faults, method: Any, *, toy: bool = False, retries: int = 0, seed: int = 0) -> Any:
    name = "toy/t1" if toy else MODEL
    backend = Faulty(toy_backend("toy/t1") if toy else Scripted(), plan, seed=seed)
    runtime = Runtime({name: backend}, retries=retries)
    ended = runtime.start(method)
    runtime.drive()
    return ended, backend


async def one() -> Any:
    return await job(4, 3, reply="fine")


@pytest.mark.parametrize(
    ("fate", "message", "cost"), [("refuse", "refuse", 0), ("busy", "busy", 0), ("timeout", "timed out", 4)]
)
def test_failures_are_settled(fate: str, message: str, cost: int) -> None:
    ended, backend = run(Faults(**{fate: 1.0}), one())
    assert isinstance(ended.error, BackendError) and message in str(ended.error)
    assert ended.cost.total("output") == cost and backend.fates == [("one/0", 0, fate)]
    assert ended.exact == (fate != "timeout")


def test_busy_helps_itself_by_another_attempt() -> None:
    ended, backend = run(Faults(busy=0.5), gather([one() for _ in range(20)]), retries=20)
    assert ended.state == ["fine"] * 20 and len(backend.fates) > 20


def test_missing_usage_is_the_bound_and_not_exact() -> None:
    ended, _ = run(Faults(silent=1.0), one())
    assert ended.state == "fine" and ended.cost.total("output") == 4 and not ended.exact


def test_usage_above_the_bound_is_flagged() -> None:
    ended, _ = run(Faults(over=1.0), one())
    assert ended.overrun


@pytest.mark.parametrize(("fate", "share"), [("empty", 0), ("short", 2)])
def test_replies_are_cut(fate: str, share: int) -> None:
    async def method() -> Any:
        draft = await Sample(Prefix("x\n"), "toy/t1", 1, max_tokens=20)
        scored = await Score(Prefix("x\n").extend("+1\n+1\n"), "toy/t1", step="\n")
        return draft, scored

    (draft, scored) = run(Faults(**{fate: 1.0}), method(), toy=True)[0].state
    assert len(draft.text) == (20 // share if share else 0) and draft.prefix.text == "x\n" + draft.text
    assert len(scored.steps) == (1 if share else 0)


def test_what_cannot_be_cut_is_left() -> None:
    assert run(Faults(short=1.0), one())[0].state == "fine"


def test_late_cancels_arrive_late() -> None:
    async def race() -> Any:
        return await first([job(9, 9, steps=30), job(1)])

    early, late = run(Faults(), race())[0], run(Faults(late=5), race())[0]
    assert late.cost.total("output") > early.cost.total("output")


def test_shuffling_changes_the_order_and_loses_nothing() -> None:
    async def method() -> Any:
        return await gather(job(1, tag=i, reply=i) for i in range(30))

    orders = set()
    for seed in range(3):
        ended, _ = run(Faults(shuffle=True), method(), seed=seed)
        assert ended.state == list(range(30))
        orders.add(tuple(e.path for e in ended.trace.served()))
    assert len(orders) == 3


def test_fates_depend_on_the_place_not_on_the_order() -> None:
    plan = Faults(refuse=0.3, busy=0.3)

    async def method() -> Any:
        return await within(Budget(), [one() for _ in range(30)])

    calm = dict((p, f) for p, a, f in run(plan, method())[1].fates if a == 0)
    wild = dict((p, f) for p, a, f in run(Faults(refuse=0.3, busy=0.3, shuffle=True), method())[1].fates if a == 0)
    assert calm == wild and {"refuse", "busy", None} == set(calm.values())
    assert set(FATES) >= {fate for fate in calm.values() if fate}


def test_plans_are_checked() -> None:
    with pytest.raises(InvalidInput, match="at most 1"):
        Faults(busy=0.8, refuse=0.8)
    with pytest.raises(InvalidInput, match="stepped"):
        Faulty(type("B", (), {"stepped": False})())  # type: ignore[arg-type]
