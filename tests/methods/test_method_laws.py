"""Bare mechanisms under the law that a solver's certain answer hides: k bounds of an answer complete k answers."""

from __future__ import annotations

import pytest

from outthink.core.cost import Cost
from outthink.core.request import Draft
from outthink.methods.adaptive import adaptive
from outthink.methods.finish import opening
from outthink.methods.pace import Pace
from outthink.methods.rollout import once
from outthink.methods.sample import sample
from outthink.methods.vote import best, majority
from outthink.models.toy import CARD, toy_answer, toy_backend, toy_problems
from outthink.spaces.text import Text
from outthink.testing.conformance import MethodCase
from outthink.testing.conformance.methods import what_is_paid_for_is_finished
from outthink.verifiers.process_reward import ProcessReward

MODEL = "toy/lengths"
PROMPT = toy_problems(1, bins=(0.8,))[0].prompt
TEXT = Text(PROMPT, MODEL, toy_answer, max_tokens=64, temperature=1.0)
STEPS = Text(PROMPT, MODEL, toy_answer, step="\n", max_tokens=64, at_least=None, temperature=1.0)
PACE = Pace(lambda state: state.tokens, 64, TEXT.price)


def opened(seed):
    def work(seen):
        return sample(TEXT, choose=majority, pace=PACE, seen=seen, seed=seed)

    return opening(work, lambda: once(TEXT, seed=seed), answer=TEXT.answer)


METHODS = {
    "sample": lambda seed: sample(TEXT, choose=majority, n=4, pace=PACE, seed=seed),
    "planned": lambda seed: sample(TEXT, choose=majority, pace=PACE, seed=seed),
    "steps": lambda seed: sample(STEPS, choose=majority, n=4, pace=PACE, seed=seed),
    "scored": lambda seed: sample(TEXT, ProcessReward(MODEL), choose=best, n=4, pace=PACE, seed=seed),
    "adaptive": lambda seed: adaptive(TEXT, stop=lambda votes, left: False, most=4, pace=PACE, seed=seed),
    "opening": opened,
}


def produced(reply):
    return toy_answer(reply.prefix.written) if isinstance(reply, Draft) else None


@pytest.mark.parametrize("name", METHODS)
def test_k_bounds_of_an_answer_complete_k_answers(name):
    bound = Cost.of(MODEL, prompt=len(PROMPT), output=64)
    case = MethodCase(
        METHODS[name], lambda: {MODEL: toy_backend(MODEL)}, answer=TEXT.answer, cards={MODEL: CARD}, produced=produced,
        per_answer=bound, asks=2 if name == "adaptive" else 4,  # three that agree of four are decided
    )  # fmt: skip
    what_is_paid_for_is_finished(case)
