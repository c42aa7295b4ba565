"""Every published method that answers prompts, on the toy world, under every law."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from outthink.core.budget import Budget, Limit
from outthink.models.toy import toy_answer, toy_problems
from outthink.papers import NAMES, Models, load
from outthink.testing.conformance import METHOD_LAWS, MethodCase
from outthink.testing.conformance.methods import traced_elsewhere
from outthink.testing.toy_world import CARDS, MODEL, toy_backends

MODELS = Models(MODEL, reward=MODEL, answer_of=toy_answer, step="\n", max_tokens=26, max_steps=8, temperature=1.0)
PROBLEM = toy_problems(1, bins=(0.8,), seed=1)[0]
FLOOR = Budget((Limit("tokens", len(PROBLEM.prompt) + MODELS.max_tokens),))
RACES = {"stopping/first_finish"}
KNOBS = {"baselines/best_of_n": [{}, {"n": 4}], "stopping/first_finish": [{}, {"n": 3, "k": 2}]}


def case_of(name: str, **knobs: int) -> MethodCase:
    entry = load(name)
    assert entry.solver is not None
    solver = entry.solver(MODELS, **knobs)
    return MethodCase(
        lambda seed: solver(PROBLEM, seed=seed),
        lambda: toy_backends(steps=4, tokens=5, speed=32),
        answer=solver.answer,
        cards=CARDS,
        produced=lambda reply: toy_answer(reply.prefix.text) if hasattr(reply, "prefix") else None,
        floor=FLOOR,
        barriers=name not in RACES,
        needs=solver.needs,
        examples=3,
    )


def solvers() -> list[str]:
    return [name for name in NAMES if load(name).solver is not None]


CASES = {f"{name} {knobs or ''}".strip(): (name, knobs) for name in solvers() for knobs in KNOBS.get(name, [{}])}


def every() -> list[MethodCase]:
    """Return all cases: what another process plays."""
    return [case_of(name, **knobs) for name, knobs in CASES.values()]


@cache
def case(which: str) -> MethodCase:
    name, knobs = CASES[which]
    return case_of(name, **knobs)


@pytest.mark.parametrize("law", METHOD_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("which", CASES)
def test_a_paper_keeps_the_laws(which: str, law) -> None:
    law(case(which))


def test_no_paper_depends_on_the_order_of_hashes() -> None:
    here = str(Path(__file__).parent)
    traces = {traced_elsewhere("test_papers:every", seed, path=[here]) for seed in ("1", "2")}
    assert len(traces) == 1
