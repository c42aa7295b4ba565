"""Every solver under every law, on the toy world: steps of uneven length, a noisy reward model."""

from __future__ import annotations

from functools import partial

import pytest

from outthink.core.budget import Budget, Limit
from outthink.core.request import Draft
from outthink.models.toy import CARD, toy_answer, toy_backend, toy_problems
from outthink.papers import NAMES, Models, load
from outthink.testing.conformance import METHOD_LAWS, MethodCase

MODEL = "toy/lengths"
PROBLEM = toy_problems(1, bins=(0.8,))[0]
MODELS = Models(MODEL, MODEL, toy_answer, max_tokens=64, max_steps=8, temperature=1.0)
FLOOR = Budget((Limit("tokens", len(PROBLEM.prompt) + MODELS.max_tokens),))
KNOBS = {
    "adaptive_consistency": [{"most": 6}, {}],
    "beam": [{"width": 4, "fan": 2}, {}],
    "best_of_n": [{"n": 3}, {}],
    "dvts": [{"width": 4, "fan": 2}, {}],
    "first_finish": [{"n": 3}, {"n": 4, "k": 2}],
    "greedy": [{}],
    "majority": [{"n": 3}, {}],
    "monkeys": [{"n": 3}, {"choose": "weighted"}],
    "particle_filtering": [{"width": 3}, {"absorb": False, "resampling": "systematic"}],
    "rebase": [{"width": 4}, {}],
    "weighted_majority": [{"n": 3}, {}],
}
SOLVERS = [name.split("/")[-1] for name in NAMES if load(name).solver is not None]
CASES = [(name, knobs) for name in SOLVERS for knobs in KNOBS[name]]


def make(name, knobs, seed):
    return load(name).solver(MODELS, **knobs)(PROBLEM, seed=seed)


def produced(reply):
    return toy_answer(reply.prefix.written) if isinstance(reply, Draft) else None


@pytest.mark.parametrize(("name", "knobs"), CASES, ids=[f"{n}-{'-'.join(map(str, k.values()))}" for n, k in CASES])
@pytest.mark.parametrize("law", METHOD_LAWS, ids=lambda law: law.__name__)
def test_laws(law, name, knobs):
    solver = load(name).solver(MODELS, **knobs)
    case = MethodCase(
        partial(make, name, knobs), lambda: {MODEL: toy_backend(MODEL)}, answer=solver.answer, cards={MODEL: CARD},
        produced=produced, floor=FLOOR, barriers=name != "first_finish", examples=4,
    )  # fmt: skip
    law(case)
