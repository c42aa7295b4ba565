"""What a budget buys: how many more answers, of which length, from the first token to the last score."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.cost import Cost
from ..core.verbs import left

UNLIMITED = 16
"""How many answers a method that asks for as many as the budget pays for gets where nothing limits it."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The yardstick of a method that plans with its budget.

    length: how long a state is, in tokens (or whatever `price` takes).
    longest: the length at which every state ends.
    price: the bound of one more answer of at most this length, its score included; it falls once the prompt is held.
    """

    length: Callable[[Any], int]
    longest: int
    price: Callable[[int], Awaitable[Cost]]

    async def affordable(self, length: float) -> int | None:
        """Return how many more answers of this length the account can pay for, None if nothing limits it."""
        return (await left()).times(await self.price(max(1, round(length))))

    def most(self, states: Sequence[Any]) -> int:
        """Return the greatest length of these states, the longest allowed if there are none."""
        return max((self.length(state) for state in states), default=self.longest)

    def typical(self, states: Sequence[Any]) -> float:
        """Return the mean length of these states, the longest allowed if there are none: what begins shall end."""
        lengths = [self.length(state) for state in states]
        return sum(lengths) / len(lengths) if lengths else self.longest
