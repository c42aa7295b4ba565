"""The laws of verifiers."""

from __future__ import annotations

from outthink.core.refs import Prefix
from outthink.models.toy import CARD, toy_answer, toy_backend, toy_problems
from outthink.spaces.text import State
from outthink.testing import conformance
from outthink.verifiers.exact import Exact
from outthink.verifiers.process_reward import ProcessReward
from outthink.verifiers.vote import Vote

MODEL = "toy/t1"
ROOT = Prefix(toy_problems(1)[0].prompt)
STATES = [State(ROOT), *(State(ROOT.extend(words)) for words in ("+12\n", "+12\n-34\n", "# 42", "# 41"))]


def backends():
    return {MODEL: toy_backend(MODEL)}


def answer(state: State) -> str | None:
    return toy_answer(state.text)


test_exact = conformance.laws(conformance.VerifierCase(lambda: Exact("42", answer), STATES))
test_vote = conformance.laws(conformance.VerifierCase(lambda: Vote(answer), STATES, pointwise=False))
test_last = conformance.laws(
    conformance.VerifierCase(lambda: ProcessReward(MODEL), STATES, backends, cards={MODEL: CARD})
)
test_product = conformance.laws(
    conformance.VerifierCase(lambda: ProcessReward(MODEL, "product"), STATES, backends, cards={MODEL: CARD})
)
