"""A process reward model as a verifier: a value after every step, made one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..core.cost import Cost
from ..core.errors import unknown
from ..core.refs import Prefix
from ..core.request import Score, Scored
from ..core.verbs import bound, fitting
from ..core.verdict import Verdict

Aggregate = Literal["last", "min", "product", "mean"]
AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {
    "last": lambda steps: steps[-1],
    "min": min,
    "product": math.prod,
    "mean": lambda steps: math.fsum(steps) / len(steps),
}


@dataclass(frozen=True, slots=True)
class ProcessReward:
    """The reward of a state's text by `model` (capability "score"), in [0, 1].

    aggregate: "last" (the value after the last step), "min", "product" or "mean" over the steps.
    step: the string that ends a step.
    prefix_of: the text of a state.

    States with the same text are scored once. A reward that is not a number in [0, 1], a missing one, and one that the
    budget refused are verdicts with status "error" and a note; if the budget refused all, OutOfBudget is raised.
    """

    model: str
    aggregate: Aggregate = "last"
    step: str = "\n"
    prefix_of: Callable[[Any], Prefix] = lambda state: state.prefix
    scale: Literal["probability", "real"] = "probability"
    oracle: bool = False

    def __post_init__(self) -> None:
        if self.aggregate not in AGGREGATES:
            raise unknown("aggregate", self.aggregate, AGGREGATES)

    async def __call__(self, states: Sequence[Any], *, seed: int) -> list[Verdict]:
        prefixes = [self.prefix_of(state) for state in states]
        texts = list(dict.fromkeys(prefixes))
        replies = await fitting([Score(prefix, self.model, step=self.step) for prefix in texts])
        verdicts = {prefix: self.judge(reply) for prefix, reply in zip(texts, replies, strict=True)}
        return [verdicts[prefix] for prefix in prefixes]

    def judge(self, reply: Scored | None) -> Verdict:
        """Return the verdict of a reply. Pure."""
        if reply is None:
            return Verdict(0.0, "error", "not scored: refused by the budget, or the backend failed")
        steps = reply.steps or (reply.value,)
        wrong = [value for value in (*steps, reply.value) if not 0 <= value <= 1]  # a nan is not in the interval
        if wrong:
            return Verdict(0.0, "error", f"{self.model} gave {wrong[0]}, which is no probability")
        return Verdict(reply.value if self.aggregate == "last" else AGGREGATES[self.aggregate](steps))

    async def price(self, prompt: Prefix, tokens: int, *, steps: int = 1, attended: int = 0) -> Cost:
        """Return the bound of scoring a text of `tokens` tokens below `prompt`, read once, in `steps` calls.

        attended: the sum of context lengths over those tokens; what generated them attended as much.
        """
        cost = await bound(Score(prompt, self.model, step=self.step))
        return cost + Cost.of(self.model, prompt=tokens, calls=steps - 1, scores=steps - 1, attended=attended)
