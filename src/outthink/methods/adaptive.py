"""Self-consistency that stops when the vote is decided."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from math import comb
from typing import TypeVar

from ..core.errors import InvalidInput
from ..core.seeds import fold
from ..core.verbs import keep, note
from ..core.verdict import Space
from .harvest import harvest
from .pace import UNLIMITED, Pace
from .rollout import rollout
from .sample import HEAD_START
from .vote import Leaf, majority, tally

S = TypeVar("S", bound=Hashable)
Stop = Callable[[Sequence[int], int], bool]
"""`stop(votes, left)`: whether to stop, given the votes of each answer, largest first, and how many may still come."""


def lead_probability(first: int, second: int) -> float:
    """Return P(the leader is the commoner answer | votes): the mass above 1/2 of Beta(first + 1, second + 1).

    Exact sum over binomials; 0.5 where the two are equal.
    Source: Aggarwal et al. 2023, "Let's Sample Step by Step", the Beta criterion (all answers but two ignored).
    """
    if min(first, second) < 0:
        raise InvalidInput(f"votes are {first} and {second}; they are zero or more")
    n = first + second + 1
    return sum(comb(n, j) for j in range(first + 1)) / (1 << n)


def beta(threshold: float = 0.95) -> Stop:
    """Return the rule that stops once the leader is the commoner of the two first answers with this probability."""
    if not 0.5 <= threshold <= 1:
        raise InvalidInput(f"threshold is {threshold}; it is a probability of the leader, from 0.5 to 1")

    def stop(votes: Sequence[int], left: int) -> bool:
        first, second, *_ = *votes, 0, 0
        return first > 0 and lead_probability(first, second) >= threshold

    return stop


def decided(votes: Sequence[int], left: int) -> bool:
    """Whether the second can no longer reach the leader with what may still come; ties may still be broken, so no."""
    first, second, *_ = *votes, 0, 0
    return first - second > left


async def adaptive(
    space: Space[S], *, stop: Stop | None = None, most: int | None = None, chunk: int = 1,
    pace: Pace | None = None, seen: Sequence[S] = (), seed: int,
) -> S:  # fmt: skip
    """Return a state with the commonest answer, sampling until the vote is decided.

    Args:
      stop: the rule; None: `beta(0.95)`. A vote that cannot be overtaken always ends it.
      most: at most so many answers, those in `seen` included; None: what the budget pays for, 16 if nothing limits it.
      chunk: answers drawn together between two looks at the rule; more is faster and may overshoot by chunk - 1.
      pace, seen: as in `sample`.

    Budget end: the vote so far; OutOfBudget if nothing came. Ties: see `vote`.
    """
    if chunk < 1 or (most is not None and most < 1):
        raise InvalidInput(f"chunk is {chunk} and most is {most}; both are at least 1")
    stop = beta() if stop is None else stop
    root = await space.root(fold(seed, "root"))
    leaves = [Leaf(state, space.answer(state), votes=HEAD_START) for state in seen]

    async def draft(i: int) -> Leaf[S]:
        state = await rollout(space, root, seed=fold(seed, "draft", i))
        return Leaf(state, space.answer(state))

    async def take(fresh: Sequence[Leaf[S]]) -> None:
        leaves.extend(fresh)
        if choice := majority(leaves, seed=fold(seed, "choice")):
            await keep(choice.state, choice.value, complete=choice.answer is not None)

    why, begun = None, len(leaves)
    length = pace.longest if pace is not None else 0
    while True:
        payable = await pace.affordable(pace.typical([leaf.state for leaf in leaves])) if pace is not None else None
        missing = most - begun if most is not None else payable if payable is not None else UNLIMITED - begun
        votes = sorted(tally(leaf.answer for leaf in leaves).values(), reverse=True)
        if missing <= 0 or decided(votes, missing) or stop(votes, missing):
            break
        each = await pace.price(length) if pace is not None else None
        came = len(leaves)
        numbers = range(begun, begun + min(chunk, missing))
        why = await harvest((draft(i) for i in numbers), each=each, take=take) or why
        begun += len(numbers)
        if len(leaves) == came:
            if pace is None or not leaves or length <= pace.most([leaf.state for leaf in leaves]):
                break
            length = pace.most([leaf.state for leaf in leaves])  # the longest one allowed does not fit any more
    await note(reason="decided" if why is None else "budget", votes=votes)
    choice = majority(leaves, seed=fold(seed, "choice"))
    if choice is None:
        if why is None:
            raise InvalidInput(f"nothing was sampled: at most {most} answers")
        raise why
    return choice.state
