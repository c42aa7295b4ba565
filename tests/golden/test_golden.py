"""Golden traces: what the runtime and every published method do on a small toy, event by event.

A difference is either a bug or meant; if it is meant, `pytest tests/golden --update` and read the diff.
"""

from __future__ import annotations

from typing import Any

import pytest

from outthink.core.budget import Budget
from outthink.core.runtime import Runtime
from outthink.core.verbs import cancel, first, fitting, keep, left, note, resume, start, wait, within
from outthink.models.toy import toy_answer, toy_problems
from outthink.papers import NAMES, Models, load
from outthink.testing.scripted import MODEL, Scripted, job
from outthink.testing.toy_world import CARDS, toy_backends

TOY = "toy/t1"


async def verbs() -> Any:
    """Every verb once, with a refusal, a failure, a retry, a cancel and a clip among what happens."""

    async def branch(i: int) -> int:
        await keep(f"half of {i}", i / 10, complete=False)
        await job(4, min(2 + i, 4), tag=i)
        await job(4, 3, tag=i)
        return i

    await keep("nothing yet", complete=False)
    reserve = await start([branch(9)], each=Budget.parse("8 output tokens"), parked=True)
    some = await fitting((branch(i) for i in range(4)), each=Budget.parse("8 output tokens"))
    await note(some=some, left=(await left()).of("output"))
    outcomes = await within([Budget.parse("5 output tokens"), Budget.parse("1 calls")], [branch(1), branch(2)])
    await keep(f"a draft, {outcomes[0].kept}", 0.5)
    won = await first([job(1, steps=9), job(1, fail="broken"), job(1, steps=2, reply="won")])
    race = await start([job(2, steps=20, late=2), job(1)])
    await wait(race, 1)
    await cancel(race)
    await resume(reserve)
    (outcome,) = await wait(reserve)
    tried = await fitting([job(1, fail="busy", retry=True)])
    return won, outcome.value, tried


def test_verbs(golden: Any) -> None:
    runtime = Runtime({MODEL: Scripted()}, retries=1)
    run = runtime.start(verbs(), budget="60 output tokens, 40 calls")
    runtime.drive()
    golden("verbs", run)


@pytest.mark.parametrize("name", [name for name in NAMES if load(name).solver is not None])
def test_papers(golden: Any, name: str) -> None:
    (problem,) = toy_problems(1, bins=(0.8,))
    make = load(name).solver
    assert make is not None
    models = Models(TOY, reward=TOY, answer_of=toy_answer, max_tokens=16, max_steps=4, temperature=1.0)
    solver = make(models)
    runtime = Runtime(toy_backends(steps=2, tokens=4, speed=32), cards=CARDS)
    run = runtime.start(solver(problem, seed=1), budget="120 tokens", answer=solver.answer)
    runtime.drive()
    golden(name.replace("/", "-"), run)
