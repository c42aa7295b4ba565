"""Start many, take the first to finish."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeVar

from ..core.errors import BackendError, InvalidInput
from ..core.seeds import fold
from ..core.verbs import first, keep
from ..core.verdict import Space
from .pace import Pace
from .rollout import rollout
from .vote import Leaf, majority

S = TypeVar("S", bound=Hashable)


async def race(space: Space[S], *, n: int, k: int = 1, pace: Pace | None = None, seed: int) -> S:
    """Return the commonest answer among the first `k` of `n` answers to finish; the rest are cancelled, and paid for.

    Args:
      n: how many start at once.
      k: how many have to finish; 1 is a plain race, n a majority vote.
      pace: with it, fewer start where the budget cannot carry `n` answers of the greatest length to their end.

    Only a finish with an answer counts; if none has one, a state without an answer is returned. Budget end: the vote of
    those that had finished, OutOfBudget if none had. Ties of the vote: see `vote`; of the finish: the order in which
    the backend reports, so this method depends on the order of completion.
    """
    if not 1 <= k <= n:
        raise InvalidInput(f"k is {k} and n is {n}; k of n answers finish, so 1 <= k <= n")
    root = await space.root(fold(seed, "root"))
    if pace is not None and (payable := await pace.affordable(pace.longest)) is not None:
        n = min(n, max(1, payable))
    finished: list[Leaf[S]] = []

    def counts(state: S) -> bool:
        finished.append(Leaf(state, space.answer(state)))
        return finished[-1].answer is not None

    await first((rollout(space, root, seed=fold(seed, "draft", i)) for i in range(n)), count=min(k, n), accept=counts)
    choice = majority(finished, seed=fold(seed, "choice"))
    if choice is None:
        raise BackendError(f"none of {n} answers came to an end")
    await keep(choice.state, choice.value, complete=choice.answer is not None)
    return choice.state
