"""Agreement as a verifier: how many of the others say the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..core.errors import InvalidInput
from ..core.verdict import Answer, Verdict


@dataclass(frozen=True, slots=True)
class Vote:
    """The share of its answer among the states that have one, so that the best state is the majority's. Free.

    weight: what a state counts for, at least 0 (default: 1 each). A state without an answer is "unparsed" and does not
    vote; where all weights are 0 every share is 0. Relative to the states of one call: not comparable between calls.
    """

    answer: Callable[[Any], Answer | None]
    weight: Callable[[Any], float] | None = None
    scale: Literal["probability", "real"] = "probability"
    oracle: bool = False

    async def __call__(self, states: Sequence[Any], *, seed: int) -> list[Verdict]:
        answers = [self.answer(state) for state in states]
        weights = [1.0 if self.weight is None else self.weight(state) for state in states]
        votes: Counter[str] = Counter()
        for answer, weight in zip(answers, weights, strict=True):
            if not 0 <= weight < float("inf"):
                raise InvalidInput(f"a vote of weight {weight}; weights are finite and at least 0")
            if answer is not None:
                votes[answer] += weight  # type: ignore[assignment]
        total = sum(votes.values())
        return [
            Verdict(0.0, "unparsed", "no answer") if answer is None else Verdict(votes[answer] / (total or 1))
            for answer in answers
        ]
