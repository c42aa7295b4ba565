"""The toy world as a space and verifiers, and the simplest methods on it: something to hold laws against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any, Literal

from ..core.backend import Backend
from ..core.errors import BackendError
from ..core.refs import Prefix
from ..core.request import Sample, Score
from ..core.seeds import fold
from ..core.verbs import fitting, keep
from ..core.verdict import Problem, Verdict
from ..models.toy import CARD, toy_answer, toy_backend, toy_key, toy_problems
from ..models.toy_process import key_of

MODEL = "toy/t1"
CARDS = {MODEL: CARD}


def toy_backends(**knobs: Any) -> Mapping[str, Backend]:
    """Return a fresh toy under its name."""
    return {MODEL: toy_backend(MODEL, **knobs)}


class ToySpace:
    """Solutions line by line; a state is the Prefix of what is written."""

    forks = True

    def __init__(self, problem: Problem | None = None, *, max_tokens: int = 16, model: str = MODEL) -> None:
        self.problem = problem if problem is not None else toy_problems(1, bins=(0.8,))[0]
        self.max_tokens, self.model = max_tokens, model

    async def root(self, seed: int) -> Prefix:
        return Prefix(self.problem.prompt)

    async def expand(self, state: Prefix, n: int, seed: int) -> Sequence[Prefix]:
        samples = (Sample(state, self.model, fold(seed, i), max_tokens=self.max_tokens, stop=("\n",)) for i in range(n))
        return [draft.prefix for draft in await fitting(samples) if draft is not None]

    def is_done(self, state: Prefix) -> bool:
        return self.answer(state) is not None

    def answer(self, state: Prefix) -> str | None:
        return toy_answer(state.text)


class ToyReward:
    """The toy's process reward model."""

    scale: Literal["probability", "real"] = "probability"
    oracle = False

    def __init__(self, model: str = MODEL) -> None:
        self.model = model

    async def __call__(self, states: Sequence[Prefix], *, seed: int) -> Sequence[Verdict]:
        async def judge(state: Prefix) -> Verdict:
            try:
                return Verdict((await Score(state, self.model)).value)
            except BackendError as error:
                return Verdict(nan, "error", str(error))

        found = await fitting([judge(state) for state in states])
        return [v if v is not None else Verdict(nan, "error", "no money left to judge it") for v in found]


class ToyOracle:
    """Right or wrong, by the key: an oracle."""

    scale: Literal["probability", "real"] = "probability"
    oracle = True

    async def __call__(self, states: Sequence[Prefix], *, seed: int) -> Sequence[Verdict]:
        out = []
        for state in states:
            answer = toy_answer(state.text)
            right = key_of(state.chain()[0].piece)[0]
            out.append(Verdict(0.0, "unparsed") if answer is None else Verdict(float(answer == right)))
        return out


async def rollout(space: Any, *, seed: int) -> Any:
    """Return one solution, step by step; what is written so far is kept."""
    state = await space.root(seed)
    for step in range(64):
        if space.is_done(state):
            break
        children = await space.expand(state, 1, fold(seed, step))
        if not children:
            break
        state = children[0]
        await keep(state, None, complete=space.answer(state) is not None)
    return state


async def best_of_n(space: Any, verifier: Any, *, n: int, seed: int) -> Any:
    """Return the best of `n` solutions by the verifier; the first of equals; None of none."""
    drafts = await fitting(rollout(space, seed=fold(seed, i)) for i in range(n))
    states = [state for state in drafts if state is not None]
    for state in states:
        await keep(state, None, complete=space.answer(state) is not None)
    best = None
    for state, verdict in zip(states, await verifier(states, seed=fold(seed, "judge")), strict=True):
        if verdict.status == "ok" and (best is None or float(verdict) > best[0]):
            best = (float(verdict), state)
        if verdict.status == "ok":
            await keep(state, float(verdict), complete=space.answer(state) is not None)
    return best[1] if best is not None else None


__all__ = [
    "CARDS", "MODEL", "ToyOracle", "ToyReward", "ToySpace", "best_of_n", "rollout", "toy_backends", "toy_key",
]  # fmt: skip
