"""The reference answer as a verifier: an oracle, for upper bounds and coverage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..core.verdict import Answer, Verdict


@dataclass(frozen=True, slots=True)
class Exact:
    """1 where the canonical answer is the reference, 0 where it is another, "unparsed" where there is none. Free.

    equal: when two answers are the same (default: the same string).
    """

    reference: Answer
    answer: Callable[[Any], Answer | None]
    equal: Callable[[Answer, Answer], bool] = str.__eq__
    scale: Literal["probability", "real"] = "probability"
    oracle: bool = True

    async def __call__(self, states: Sequence[Any], *, seed: int) -> list[Verdict]:
        return [self._judge(self.answer(state)) for state in states]

    def _judge(self, answer: Answer | None) -> Verdict:
        if answer is None:
            return Verdict(0.0, "unparsed", "no answer")
        return Verdict(float(self.equal(answer, self.reference)))
