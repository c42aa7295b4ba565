"""Preferences: the probability that one state is better than another."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ..core.refs import Prefix
from ..core.request import Sample
from ..core.seeds import fold
from ..core.verbs import gather
from ..core.verdict import Preference, Verdict, Verifier

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class FromVerifier(Generic[S]):
    """A Preference by the values of a Verifier: the odds of Bradley and Terry.

    Probabilities are compared by a / (a + b), real values by the logistic of a - b; equal ones give 1/2. A state whose
    verdict is not "ok" loses against one whose verdict is; of two such, each is as good.
    """

    verifier: Verifier[S]

    async def __call__(self, a: S, b: S, *, seed: int) -> float:
        first, second = await self.verifier([a, b], seed=seed)
        return preferred(first, second, probability=self.verifier.scale == "probability")


def preferred(a: Verdict, b: Verdict, *, probability: bool) -> float:
    """Return P(a beats b) of two verdicts. Pure."""
    if a.status != "ok" or b.status != "ok":
        return 0.5 + 0.5 * ((a.status == "ok") - (b.status == "ok"))
    if probability:
        return 0.5 if a.value + b.value == 0 else a.value / (a.value + b.value)
    gap = a.value - b.value
    return 1 / (1 + math.exp(-gap)) if gap >= 0 else math.exp(gap) / (1 + math.exp(gap))


@dataclass(frozen=True, slots=True)
class BothOrders(Generic[S]):
    """A Preference asked in both orders, because judges favour a place: the mean of P(a > b) and 1 - P(b > a)."""

    preference: Preference[S]

    async def __call__(self, a: S, b: S, *, seed: int) -> float:
        one, other = await gather(
            [self.preference(a, b, seed=fold(seed, 0)), self.preference(b, a, seed=fold(seed, 1))]  # type: ignore[list-item]
        )
        return (one + 1 - other) / 2


@dataclass(frozen=True, slots=True)
class Judge:
    """A Preference by a model that is asked which of two is better. One draft per call; it may err towards a place.

    question: the prompt for the two texts (the first is called A). verdict_of: reads "A", "B" or None off the reply;
      None, a tie or nothing that can be read, counts 1/2.
    """

    model: str
    question: Callable[[Any, Any], str]
    verdict_of: Callable[[str], str | None]
    max_tokens: int = 256
    temperature: float = 0.0

    async def __call__(self, a: Any, b: Any, *, seed: int) -> float:
        prompt = Prefix(self.question(a, b))
        draft = await Sample(prompt, self.model, seed, max_tokens=self.max_tokens, temperature=self.temperature)
        return {"A": 1.0, "B": 0.0}.get(self.verdict_of(draft.text) or "", 0.5)
