"""Many whole answers, then a choice: best-of-N, majority, weighted votes are one loop with different choices."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from itertools import count
from typing import TypeVar

from ..core.errors import InvalidInput
from ..core.seeds import fold
from ..core.verbs import keep
from ..core.verdict import Space, Verifier
from .harvest import harvest
from .pace import UNLIMITED, Pace
from .rollout import rollout
from .vote import Choose, Leaf

S = TypeVar("S", bound=Hashable)

HEAD_START = 1.5
"""Votes of a state that was there before: more than one, so that ties go to it, less than two."""


async def sample(
    space: Space[S], verifier: Verifier[S] | None = None, *, choose: Choose, n: int | None = None,
    pace: Pace | None = None, seen: Sequence[S] = (), seed: int,
) -> S:  # fmt: skip
    """Return the state that `choose` picks from independent answers.

    Args:
      verifier: scores every draft, after the draft was kept; None where the choice is a vote.
      n: how many answers, those in `seen` included; None: as many as the budget pays for, 16 if nothing limits it.
      pace: with it, a draft starts only if the longest one could be finished and scored. When that does not fit any
        more, the last ones get what the longest one so far would take; what is cut then abstains.
      seen: finished states that take part (a greedy draft); ties in a majority go to them.

    Budget end: the choice among what came; OutOfBudget if nothing did. Ties: see `vote`.
    """
    if n is not None and n < 1:
        raise InvalidInput(f"n is {n}; ask for at least one answer, or None for as many as the budget pays for")
    root = await space.root(fold(seed, "root"))
    leaves: list[Leaf[S]] = []

    async def draft(*place: int) -> Leaf[S]:
        state = await rollout(space, root, seed=fold(seed, "draft", *place))
        return await scored(Leaf(state, space.answer(state)), *place)

    async def scored(leaf: Leaf[S], *place: int) -> Leaf[S]:
        await keep(leaf, complete=leaf.answer is not None)
        if verifier is None:
            return leaf
        (verdict,) = await verifier([leaf.state], seed=fold(seed, "score", *place))
        return replace(leaf, value=verdict.value if verdict.status == "ok" else None)

    async def take(fresh: Sequence[Leaf[S]]) -> None:
        leaves.extend(fresh)
        if choice := choose(leaves, seed=fold(seed, "choice")):
            await keep(choice.state, choice.value, complete=choice.answer is not None)

    limited = pace is not None and await pace.affordable(1) is not None
    wanted = n if n is not None or limited else max(UNLIMITED, len(seen) + 1)
    known = [Leaf(state, space.answer(state), votes=HEAD_START) for state in seen]
    if verifier is None:
        await take(known)
    elif known and pace is not None and await pace.affordable(2 * pace.most(seen)) == 0:
        await take(known)  # a score is worth nothing where there can be no second answer with one
        wanted = len(known)
    else:
        await harvest((scored(leaf, -1, i) for i, leaf in enumerate(known)), take=take)
    why, came = None, -1
    for phase in count():
        length = pace.most([leaf.state for leaf in leaves]) if pace is not None and phase else None
        numbers = count() if wanted is None else range(wanted - len(leaves))
        each = await pace.price(length or pace.longest) if pace is not None else None
        came = len(leaves)
        why = await harvest((draft(phase, i) for i in numbers), each=each, take=take) or why
        if pace is None or len(leaves) == wanted or (phase and len(leaves) == came) or not leaves:
            break
    choice = choose(leaves, seed=fold(seed, "choice"))
    if choice is None:
        raise why or InvalidInput(f"no answer came of n = {n}")
    return choice.state
