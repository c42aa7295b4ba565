"""The toy world under the laws that plug-in authors use."""

from __future__ import annotations

from outthink.core.refs import Prefix
from outthink.models.toy import toy_answer, toy_backend
from outthink.testing import conformance
from outthink.testing.toy_world import CARDS, MODEL, ToyOracle, ToyReward, ToySpace, best_of_n, toy_backends

STATES = [
    Prefix("x p=0.8\n"),
    Prefix("x p=0.8\n").extend("+12\n-3\n"),
    Prefix("x p=0.8\n").extend("+12\n" * 8 + "# 42"),
]


def toy(**knobs):
    return conformance.BackendCase(lambda: toy_backend(MODEL, **knobs), MODEL, reward=MODEL)


test_toy_backend = conformance.laws(toy())
test_slow_and_narrow_toy_backend = conformance.laws(toy(slots=2, speed=1, latency=2))
test_toy_space = conformance.laws(conformance.SpaceCase(ToySpace, toy_backends, steps=10))
test_toy_reward = conformance.laws(conformance.VerifierCase(ToyReward, STATES, toy_backends))
test_toy_oracle = conformance.laws(conformance.VerifierCase(ToyOracle, STATES))
test_best_of_n = conformance.laws(
    conformance.MethodCase(
        lambda seed: best_of_n(ToySpace(), ToyReward(), n=4, seed=seed),
        toy_backends,
        answer=lambda state: toy_answer(state.text),
        cards=CARDS,
        produced=lambda reply: toy_answer(reply.prefix.text) if hasattr(reply, "prefix") else None,
        examples=6,
    )
)
